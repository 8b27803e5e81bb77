"""Routes hold back no other: two whose platforms never answer, beside a broker that takes everything."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tests.benchmarks.observed import resident_mib
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.subscriber import Subscriber
from tests.servers import Mosquitto

READINGS = 60
FIRST, MORE = 150, 750  # reports: with the first ones both routes have in memory what they may have
MORE_MIB = 4.0  # 45,000 observations in memory would be 40 MiB


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Accepts connections, reads and never says a word. Its port, and what was said to it first, by connection."""
    heard: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.read(65536))
            while await reader.read(65536):
                pass
        except OSError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


async def test_platforms_that_never_answer_hold_back_no_other_and_cost_no_memory(
    tmp_path: Path, mosquitto: Mosquitto, subscriber: Subscriber, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    async with silent_server() as (port, heard):
        gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
        gateway.config.write_text(
            gateway.config.read_text()
            + f'[[route]]\nname = "city"\nkind = "sensorthings"\nurl = "http://127.0.0.1:{port}/v1.1"\n'
            + f'[[route]]\nname = "flow"\nkind = "civitas"\nurl = "mqtt://127.0.0.1:{port}"\n'
        )
        try:
            await gateway.start()
            board.close_reports(FIRST, READINGS)
            await subscriber.has_all(board)
            await until(lambda: len(heard) >= 2)  # both have asked
            assert gateway.process is not None
            before_mib = resident_mib(gateway.process.pid)
            board.close_reports(MORE, READINGS)
            await subscriber.has_all(board)
            await board.forgets(FIRST + MORE)
            assert subscriber.repeated == 0
            assert subscriber.bodies[board.name] == list(board.taken.values())
            assert resident_mib(gateway.process.pid) - before_mib < MORE_MIB
            found = gateway.status()
            assert found is not None
            assert isinstance(found["buffer"], dict)
            waiting = found["buffer"]["waiting"]
            assert (waiting["city"], waiting["flow"]) == (FIRST + MORE, FIRST + MORE)
            assert await gateway.stop() == 0, "nor does it hang when it is told to stop"
        finally:
            await gateway.end()
