"""The control socket of `laterne emulate`: one JSON document a line, each way.

Every request is answered with {"ok": true, ...} or {"error": "..."}; both ends bound a line at MAX_LINE_BYTES.
What can be asked stands in `Desk` (desk.py) and in hil_tests/README.md.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Self

MAX_LINE_BYTES = 1 << 20  # a status of 32 boards is about 20 KB


def reachable(path: Path) -> str:
    """A name of a socket that fits into the 107 bytes of unix(7): the way from here is often shorter."""
    whole = str(path.absolute())
    relative = os.path.relpath(whole)
    return relative if len(relative) < len(whole) else whole


class ControlRefused(Exception):
    """The emulator does not do what was asked: its own words."""


class Control:
    """A connection to a running `laterne emulate`. Requests are answered one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def connect(cls, path: Path, within_s: float = 0.0) -> Self:
        """Connect to DIR/control; OSError if nobody listens after `within_s` seconds."""
        give_up_at = asyncio.get_running_loop().time() + within_s
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(reachable(path), limit=MAX_LINE_BYTES)
                return cls(reader, writer)
            except OSError:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise
            await asyncio.sleep(0.05)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request, return its answer. Raises ControlRefused, ConnectionError when the emulator ends."""
        async with self._one_at_a_time:
            self._writer.write(json.dumps(request).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the emulator has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ControlRefused(answer["error"])
        return answer

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return  # it has ended before us

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *why: object) -> None:
        await self.close()
