"""Boards that run hil_tests/firmware_for_tests/talk.py, and who talks to them over the line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import serialx

FIRMWARE = Path(__file__).parents[2] / "hil_tests" / "firmware_for_tests"
TALK = {"main.py": (FIRMWARE / "talk.py").read_bytes()}
WITHIN_S = 20.0  # a bound for what would hang, not a time that is tested


class Talk:
    """A program at the gateway's end of the line: a line out, a line back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, command: str) -> None:
        self._writer.write(command.encode() + b"\n")

    async def hear(self) -> str:
        async with asyncio.timeout(WITHIN_S):
            return (await self._reader.readline()).decode().strip()

    async def ask(self, command: str) -> str:
        self.say(command)
        return await self.hear()


@asynccontextmanager
async def talking(port: Path) -> AsyncIterator[Talk]:
    reader, writer = await serialx.open_serial_connection(str(port), baudrate=115200)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()
