"""What the tests of sessions count and wait for."""

from collections.abc import Callable

from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import Parts, until

MakeLine = Callable[..., FakeLine]
LINE = "line line"


def counted(gateway: Parts, board: FakeBoard, what: str) -> int:
    return gateway.health.counted(board.name, what)


async def opened(gateway: Parts, board: FakeBoard, times: int) -> None:
    await until(lambda: counted(gateway, board, "sessions opened") >= times)
