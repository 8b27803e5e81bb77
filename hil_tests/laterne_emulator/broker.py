"""The demo's own MQTT 5 broker: rumqttd, which the package iotcore carries, as a process on loopback."""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

from laterne_emulator.processes import Child, Children, ProcessFailed

STARTS_WITHIN_S = 10.0  # measured: 0.3 s on an idle machine

_CONFIGURATION = """\
id = 0

[router]
id = 0
max_connections = 64
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10

[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = 65536
max_inflight_count = 200
dynamic_filters = true
"""


async def start_broker(children: Children, directory: Path) -> str:
    """Start a broker on a free port of loopback; its configuration and log are kept in the directory.

    Returns its URL. Raises ProcessFailed when it does not accept connections in time.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    configuration = directory / "rumqttd.toml"
    configuration.write_text(_CONFIGURATION.format(port=port))
    child = await children.start(
        "broker",
        [sys.executable, "-m", "iotcore", "--log-level", "WARNING", "--config", str(configuration)],
        log=directory / "broker.log",
    )
    await _wait_until_open(child, port)
    return f"mqtt://127.0.0.1:{port}"


def _free_port() -> int:
    # Between this and the broker's own bind another process may take the port: the broker then ends, which is reported.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _wait_until_open(child: Child, port: int) -> None:
    deadline = asyncio.get_running_loop().time() + STARTS_WITHIN_S
    while asyncio.get_running_loop().time() < deadline:
        if child.ended:
            raise ProcessFailed(f"the broker ended at once: {child.last_words()}")
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.05)
    raise ProcessFailed(f"the broker did not open port {port} within {STARTS_WITHIN_S:.0f} s: {child.last_words()}")
