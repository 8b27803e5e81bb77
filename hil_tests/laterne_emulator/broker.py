"""The demo's own MQTT 5 broker: rumqttd, which the package iotcore carries, as a process on loopback."""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from laterne_emulator.processes import Child, Children, ProcessFailed

_PORTS = {"mqtt": 1883, "mqtts": 8883}  # IANA
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


async def reach_broker(url: str) -> str:
    """The URL, once something accepts connections there. Raises ProcessFailed with what to do."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ProcessFailed(f"{url} is no broker's address: write mqtt://host:port")
    try:
        async with asyncio.timeout(STARTS_WITHIN_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or _PORTS[parts.scheme])
            writer.close()
            await writer.wait_closed()
    except (OSError, ValueError) as why:  # TimeoutError is an OSError; a port that is no number a ValueError
        raise ProcessFailed(
            f"no broker answers at {url} ({why or 'timed out'}): start it, correct the address, or leave --broker out"
        ) from why
    return url


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
