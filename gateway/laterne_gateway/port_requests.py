"""`laterne-gateway port release | take`: a line's port for a technician, and back.

That two programs never fight over a port is the lock's work: the gateway, `laterne flash`, `board doctor` and mpremote
all hold it (flock) while they have a port open, and the kernel frees it however they end. Here one asks the other for
it. What was asked for is kept in memory and ends by itself: a technician who forgets it, and a gateway that is started
again, leave no board unserved.

The running gateway listens on a socket in its directory, which only its own user and root can reach. A request is one
line of JSON, {"do": "release", "port": path or line's name, "seconds"} or {"do": "take", "port"}; so is the answer,
{"done": whether, "said": a sentence}.
"""

import asyncio
import json
import logging
import socket
import sys
from pathlib import Path

from laterne_gateway.config import Config
from laterne_gateway.health import Health
from laterne_gateway.running import Running
from laterne_gateway.status import reachable

log = logging.getLogger("laterne")

SOCKET_NAME = "port.sock"
MAX_REQUEST_BYTES = 8192  # a path has 4,096 at most
REQUEST_WITHIN_S = 5.0
CLOSED_WITHIN_S = 20.0  # the question that is under way: an exchange of a slow board, repeated
LONGEST_S = 24 * 3600.0
DONE, WRONG = 0, 1


class PortServer:
    def __init__(self, directory: Path, running: Running, health: Health) -> None:
        self._path = directory / SOCKET_NAME
        self._running = running
        self._health = health

    async def run(self) -> None:
        self._path.unlink(missing_ok=True)  # of a former process: the directory is locked, so nobody listens there
        try:
            server = await asyncio.start_unix_server(self._serve, reachable(self._path), limit=MAX_REQUEST_BYTES)
        except OSError as why:
            # No reason to stop serving boards.
            self._health.alarm(
                "ports", "socket", f"{self._path}: {why}: no port can be given up; stop the gateway for it"
            )
            return
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_WITHIN_S):
                request = await reader.readline()
            done, said = await self._answer(request)
            writer.write(json.dumps({"done": done, "said": said}).encode() + b"\n")
            async with asyncio.timeout(REQUEST_WITHIN_S):
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as why:  # ValueError: a line that is too long
            log.debug("port: nobody took the answer: %s", why)
        finally:
            writer.close()

    async def _answer(self, request: bytes) -> tuple[bool, str]:
        try:
            asked = json.loads(request)
            do, port, seconds = str(asked["do"]), str(asked["port"]), float(asked.get("seconds", 0.0))
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError):
            return False, "that is no request"
        bus = self._running.bus_at(port)
        if bus is None:
            names = ", ".join(f"{line.name} at {line.path}" for line in self._running.config.lines)
            return False, f"{port} is no line of this gateway; its lines: {names}"
        try:
            async with asyncio.timeout(CLOSED_WITHIN_S):
                if do == "release" and 0 < seconds <= LONGEST_S:
                    if not await bus.give_up(seconds):
                        return (
                            False,
                            f"{port} is given up, but its driver hangs: unplug the adapter and plug it in again",
                        )
                    back = f"laterne-gateway port take {port}"
                    return True, f"{port} is free for {seconds / 60:.0f} min; give it back before: {back}"
                if do == "take":
                    if await bus.take_back():
                        return True, f"{port} is served again"
                    return (
                        False,
                        f"{port} cannot be opened yet; the gateway goes on trying: laterne-gateway status says why",
                    )
        except TimeoutError:
            return False, f"{port}: the gateway was busy with it for {CLOSED_WITHIN_S:.0f} s: give the command again"
        return False, "that is no request"


def run(config: Config, action: str, port: str, minutes: float, *, as_json: bool) -> int:
    """The command. Returns the exit code: 1 when it was not done."""
    request = {"do": action, "port": port, "seconds": minutes * 60}
    if action == "take":
        del request["seconds"]
    answer = _asked(config.gateway.directory / SOCKET_NAME, json.dumps(request).encode() + b"\n")
    if answer is None:
        # No gateway runs: nobody holds the port, and nobody can take it.
        answer = {"done": action == "release", "said": "no gateway runs here (laterne-gateway status)"}
    if as_json:
        print(json.dumps(answer))
    else:
        print(answer["said"], file=sys.stdout if answer["done"] else sys.stderr)
    return DONE if answer["done"] else WRONG


def _asked(path: Path, request: bytes) -> dict[str, object] | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CLOSED_WITHIN_S + REQUEST_WITHIN_S)
        try:
            client.connect(reachable(path))
            client.sendall(request)
            data = bytearray()
            while not data.endswith(b"\n") and len(data) < MAX_REQUEST_BYTES and (more := client.recv(4096)):
                data += more
        except (ConnectionError, FileNotFoundError):
            return None
        except PermissionError:
            raise  # said as for every command
        except OSError as why:
            return {"done": False, "said": f"{path}: {why}"}
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
