"""What travels with each observation, whichever route takes it: its quality, how its time is known and how well, and
which signed report holds it, so that anybody can look it up there.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import until
from tests.gateway.platform import T0_MS, City, boards, city, civitas, served, stored
from tests.gateway.test_civitas import heard, observations_in
from tests.servers import Mosquitto

from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_gateway.routes import feed
from laterne_protocol import report
from laterne_protocol.channels import TEMPERATURE

pytestmark = pytest.mark.usefixtures("short_pauses")

CLOSED_MS = 60_000  # since the board's start
READINGS = [  # hundredths of a degree, or none
    (2150, report.GOOD),
    (2160, report.SUSPECT),
    (None, report.MISSING),
    (2170, report.NOT_EVALUATED),
    (2180, report.FAIL),
]
# By position in the report: value and flag. One that is missing is none, and keeps its place.
WANTED = {0: (21.5, "1"), 1: (21.6, "3"), 3: (21.7, "2"), 4: (21.8, "4")}
NEVER_SET = (report.NEVER_SET, None, 0)


class Told(NamedTuple):
    """An observation as the platform has it."""

    at_ms: int
    value: float
    quality: dict[str, Any]
    parameters: dict[str, Any]


Platform = Callable[[FakeBoard], contextlib.AbstractAsyncContextManager[tuple[City, Callable[[], list[Told]]]]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorThingsServer]:
    with served(tmp_path_factory.mktemp("city"), is_strict=False) as made:
        yield made


@pytest.fixture(params=["sensorthings", "civitas"])
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Platform:
    """A gateway that delivers meanwhile, and what its platform has of a board."""

    @contextlib.asynccontextmanager
    async def to_sensorthings(board: FakeBoard) -> AsyncIterator[tuple[City, Callable[[], list[Told]]]]:
        server: SensorThingsServer = request.getfixturevalue("server")

        def told() -> list[Told]:
            return [Told(ms_of(one.at), one.value, one.quality, one.parameters) for one in stored(server, board.name)]

        async with city(tmp_path, server.url, board) as here, here.delivering():
            yield here, told

    @contextlib.asynccontextmanager
    async def to_civitas(board: FakeBoard) -> AsyncIterator[tuple[City, Callable[[], list[Told]]]]:
        broker: Mosquitto = request.getfixturevalue("mosquitto")
        async with city(tmp_path, "", board) as here, heard(broker) as seen, civitas(here, broker.port):
            yield (
                here,
                lambda: [
                    Told(ms_of(one["phenomenonTime"]), one["result"], one["resultQuality"], one["parameters"])
                    for one in observations_in(seen)
                ],
            )

    return to_sensorthings if request.param == "sensorthings" else to_civitas


def ms_of(at: str) -> int:
    found = datetime.fromisoformat(at)
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


async def put(here: City, board: FakeBoard, clock: tuple[int, int | None, int]) -> bytes:
    """The board's first report is in the buffer. Its payload."""
    column = report.ColumnWriter(TEMPERATURE)
    for value, flag in READINGS:
        column.add(value, flag)
    times = report.times_of([CLOSED_MS - 1000 * (5 - index) for index in range(len(READINGS))], CLOSED_MS)
    columns = [report.Column(TEMPERATURE, bytes(column.packed), column.quality)]
    made = report.Report(board.name, 1, bytes(16), board.boot, CLOSED_MS, clock, times, columns, [])
    payload = made.to_payload()
    body, digest = board.key.sign("laterne/report/1", payload), report.digest(payload)
    await here.parts.buffer.put(here.accepted(board, 1)._replace(body=body, digest=digest, closed_ms=clock[1]))
    return payload


@pytest.mark.parametrize(
    ("clock", "state", "within_ms"),
    [
        pytest.param((report.SET, T0_MS, 15), "set", 15, id="the board's clock was set"),
        pytest.param((report.HELD, T0_MS, 4321), "held", 4321, id="it runs on since"),
        # The gateway knew the board's start to 20 ms; a minute later its crystal may be off by 6 (100 ppm).
        pytest.param(NEVER_SET, "dated", 26, id="the gateway has dated it"),
    ],
)
async def test_quality_time_and_report_travel_with_each_observation(
    platform: Platform, clock: tuple[int, int | None, int], state: str, within_ms: int
) -> None:
    (board,) = boards()
    async with platform(board) as (here, told):
        here.parts.dates.learn((board.name, board.key.kid), board.boot, (0, T0_MS - CLOSED_MS, 20))
        payload = await put(here, board, clock)
        await here.delivered()
        await until(lambda: len(told()) >= len(WANTED))
        found = told()
        assert await here.dead() == []
    by_position = {one.parameters["position"]: one for one in found}
    assert len(found) == len(by_position)
    assert {position: (one.value, one.quality["DQ_Result"]["code"]) for position, one in by_position.items()} == WANTED
    assert {one.quality["nameOfMeasure"] for one in found} == {"QARTOD"}
    for position, one in by_position.items():
        assert one.at_ms == T0_MS - 1000 * (5 - position)
        said = {name: one.parameters[name] for name in ("board", "sequence", "digest", "clock", "within_ms")}
        assert said == {
            "board": board.name,
            "sequence": 1,
            "digest": report.digest(payload).hex(),
            "clock": state,
            "within_ms": within_ms,
        }


async def test_what_nobody_can_date_reaches_no_platform_and_is_a_dead_letter_that_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "DATED_WITHIN_S", 0.0)
    (board,) = boards()
    async with platform(board) as (here, told):
        await put(here, board, NEVER_SET)
        await here.delivered()
        (letter,) = await here.dead()
        assert (letter.board, letter.sequence, letter.place) == (board.name, 1, "report")
        assert "neither the board nor this gateway knows" in letter.reason
        # What is closed later, by a board that knows the time, does not wait behind it.
        board.utc_ms = T0_MS
        await here.put_report(board, 2)
        await here.delivered()
        await until(lambda: len(told()) >= 4)
        assert {one.parameters["sequence"] for one in told()} == {2}
