"""A process for test_buffer: puts reports of four boards and says each one that put() returned for, until it is killed.

python writer.py DIRECTORY: on stdout lines "board sequence", after the commit.
"""

import asyncio
import os
import sys
from pathlib import Path

from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import Accepted
from laterne_gateway.config import BufferSettings
from laterne_gateway.health import Health

BOARDS = 4
UNDER_WAY = 8


async def write(directory: Path) -> None:
    buffer = Buffer(directory, ("mqtt",), BufferSettings(), Health())
    async with asyncio.TaskGroup() as tasks:
        for number in range(BOARDS):
            tasks.create_task(write_board(buffer, f"LE-{number}"))


async def write_board(buffer: Buffer, board: str) -> None:
    chain = buffer.chains.get(board)
    sequence = chain.sequence if chain else 0
    under_way: list[asyncio.Task[None]] = []
    while True:
        follows, sequence = sequence or None, sequence + 1
        under_way.append(asyncio.create_task(put(buffer, board, sequence, follows)))
        if len(under_way) >= UNDER_WAY:
            await under_way.pop(0)


async def put(buffer: Buffer, board: str, sequence: int, follows: int | None) -> None:
    accepted = Accepted(board, sequence, b"d" * 16, b"c" * 16, follows, 1_770_000_000_000, None, os.urandom(300))
    await buffer.put(accepted)
    os.write(1, f"{board} {sequence}\n".encode())
    buffer.delivered(buffer.lanes["mqtt"][-1], max(0, buffer.last_id - 500))


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
