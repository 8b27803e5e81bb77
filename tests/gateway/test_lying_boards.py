"""What one board signs stops the route for no other, and a platform that refuses everything gets no board blamed.

Both on a real platform, the way to which refuses what the test says.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.faulty_way import PASS, Done, FaultyWay, Request
from tests.gateway.parts import until
from tests.gateway.platform import HELD, ROUTE, T0_MS, City, Key, boards, city, civitas, dead_key, served, stored
from tests.servers import Mosquitto

from laterne_emulator.proxy import CONNECT, PUBLISH, UP, Answer, Do, Packet, Proxy, refusal, topic_and_payload
from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_gateway import dead_letters
from laterne_gateway.clock import SystemClock
from laterne_gateway.health import Health
from laterne_gateway.routes import blame, feed, sta_sending
from laterne_gateway.routes import civitas as civitas_module
from laterne_gateway.routes.blame import Blame
from laterne_gateway.routes.civitas import _Message
from laterne_gateway.routes.feed import UnderWay
from laterne_gateway.routes.observations import Observation

WITHIN_S = 60.0  # a bound for what would hang
LETTERS, AHEAD = 24, 30  # of four boards each may have eight letters
CONTENT = 0x99

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorThingsServer]:
    """It takes one observation of a time."""
    with served(tmp_path_factory.mktemp("city"), is_strict=True) as made:
        yield made


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_DEAD_LETTERS", LETTERS)
    monkeypatch.setattr(feed, "MAX_AHEAD", AHEAD)
    monkeypatch.setattr(feed, "READ_AT_ONCE", 2)
    monkeypatch.setattr(civitas_module, "CAP_S", 0.2)
    monkeypatch.setattr(civitas_module, "HELD_S", 0.05)


def names(*street: FakeBoard) -> Callable[[bytes], bool]:
    """Whether a request or message has an observation of one of these boards."""
    marks = [f'"board":"{board.name}"'.encode() for board in street]
    return lambda body: any(mark in body for mark in marks)


def refuse(is_meant: Callable[[bytes], bool]) -> Callable[[Request], str | int | Done]:
    return lambda request: 422 if request.creates and is_meant(request.body) else PASS


async def delivered_while_others_speak(here: City, *others: FakeBoard, waits: str = HELD) -> None:
    """Waits until nothing is left. Each time when something waits to be judged these close a report, and that arrives.

    waits: what is counted then.
    """
    while True:
        former = here.counted(waits)
        await until(lambda: not here.parts.buffer.waiting(ROUTE) or here.counted(waits) > former)  # noqa: B023 - awaited
        if not here.parts.buffer.waiting(ROUTE):
            return
        wanted = here.counted("observations delivered") + len(others)
        for board in others:
            await here.put(board, 1, 1)
        await here.delivered_counts("observations delivered", wanted)


@pytest.mark.parametrize(("liars", "rows"), [(1, 1), (3, 100)])
async def test_what_boards_sign_stops_the_route_for_no_other(
    tmp_path: Path, server: SensorThingsServer, liars: int, rows: int
) -> None:
    """More than all dead letters and all the memory there is, before anything of the others."""
    *lying, one, other, third, fourth = street = boards(liars + 4)
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        way.rule = refuse(names(*lying))
        for board in lying:
            await here.put(board, 3, 20)
        for board in (one, other, third, fourth):
            await here.put(board, 8, 4)
        async with here.delivering(rows=rows):
            await delivered_while_others_speak(here, one, other)
        await here.parts.reopen()
        for board in street:
            await here.put(board, 1, 4)
        async with here.delivering(rows=rows):
            await delivered_while_others_speak(here, one, other)
        here.check(server, *(key for key in here.values if key[0] in {board.name for board in lying}))
        letters = await here.dead()
        share = dead_letters.share_of(len(street))
        assert {letter.board for letter in letters} == {board.name for board in lying}
        assert all(0 < sum(letter.board == board.name for letter in letters) <= share for board in lying)


async def test_a_board_on_which_a_platform_fails_for_long_stops_the_route_for_no_other(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It signs one time again and again; whether it is the row at which this server fails takes minutes to tell."""
    liar, one, other = street = boards(3)
    async with city(tmp_path, server.url, *street) as here:
        for sequence in (1, 2, 3):
            liar.utc_ms = T0_MS - 245  # whole seconds: the server cuts milliseconds off what comes alone
            await here.parts.buffer.put(here.accepted(liar, sequence, readings=20))
        for board in (one, other):
            await here.put(board, 12, 4)
        async with here.delivering():
            await until(lambda: sum(len(stored(server, board.name)) for board in (one, other)) == 2 * 12 * 4)
            assert await here.dead() == []
        await here.parts.reopen()  # what was delivered past the liar is looked for, and not sent again
        monkeypatch.setattr(sta_sending, "FAILS_FOR_S", 0.2)
        async with here.delivering():
            await delivered_while_others_speak(here, one, waits="requests failed")
        here.boards.remove(liar)
        here.check(server)
        assert len(stored(server, liar.name)) == 20
        assert {letter.board for letter in await here.dead()} == {liar.name}


async def test_a_board_whose_datastream_a_platform_refuses_stops_the_route_for_no_other(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sta_sending, "FAILS_FOR_S", 0.2)
    liar, one = street = boards(2)
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        way.rule = lambda request: (
            422 if request.path.endswith("/Datastreams") and f"{liar.name} ".encode() in request.body else PASS
        )
        await here.put(liar, 4, 30)
        await here.put(one, 8, 4)
        async with here.delivering():
            await until(lambda: len(stored(server, one.name)) == 32)
            await delivered_while_others_speak(here, one, waits="requests failed")
        assert {(letter.board, letter.place) for letter in await here.dead()} == {(liar.name, "report")}
        way.rule = lambda request: PASS
        await here.parts.buffer.write(lambda db, _: dead_letters.mark(db, None, []))
        async with here.delivering():
            await here.delivered_counts("dead letters sent again", 4)
        here.check(server)


@pytest.mark.parametrize("how_many", [1, 3])
async def test_a_platform_that_refuses_everything_makes_no_dead_letter(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch, how_many: int
) -> None:
    """As with another schema or limit, also from the middle on, and over a restart. All of it arrives afterwards."""
    monkeypatch.setattr(blame, "QUIET_S", 0.0)
    street = boards(how_many)
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        for board in street:
            await here.put(board, 3, 4)
        async with here.delivering():
            await here.delivered()
            way.rule = refuse(lambda body: True)
            for board in street:
                await here.put(board, 20, 4)
            await here.delivered_counts(HELD, 20)
            assert any("refuses" in alarm for alarm in here.alarms())
            if how_many > 1:
                await until(lambda: any("cannot be used: it refuses" in alarm for alarm in here.alarms()))
        await here.parts.reopen()
        async with here.delivering():
            await here.delivered_counts(HELD, 40)
            assert await here.dead() == []
            way.rule = lambda request: PASS
            await here.delivered()
            assert not [alarm for alarm in here.alarms() if "refuses" in alarm]
        here.check(server)
        assert await here.dead() == []


FULL = "no more dead letters are kept"


async def the_dead_letters_are_full(here: City, refused: list[FakeBoard], one: FakeBoard) -> None:
    """Each of the refused ones has its share after four reports. The others go on then, too."""

    async def until_as_one_goes_on(happened: Callable[[], bool]) -> None:
        while not happened():
            former = here.counted(HELD)
            await until(lambda: happened() or here.counted(HELD) > former)  # noqa: B023 - awaited
            await here.put(one, 1, 1)

    for board in refused:
        await here.put(board, 4, 2)
    await until_as_one_goes_on(lambda: here.counted("dead letters") == LETTERS)
    for board in refused:
        await here.put(board, 3, 2)
    await until_as_one_goes_on(lambda: any(FULL in alarm for alarm in here.alarms()))
    wanted = here.counted("observations delivered") + 5
    await here.put(one, 5, 1)
    await here.delivered_counts("observations delivered", wanted)


async def test_when_more_than_half_of_the_boards_are_refused_nothing_is_passed_over_and_the_others_go_on(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    """It may be the platform. When somebody has corrected it all arrives."""
    *refused, one = street = boards(4)
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        way.rule = refuse(names(*refused))
        async with here.delivering():
            await the_dead_letters_are_full(here, refused, one)
        await here.parts.reopen()
        async with here.delivering():
            way.rule = lambda request: PASS
            await here.parts.buffer.write(lambda db, _: dead_letters.mark(db, None, []))
            await here.delivered()
            await here.delivered_counts("dead letters sent again", LETTERS)
        found = [(board.name, row.sequence, row.position) for board in street for row in stored(server, board.name)]
        assert sorted(found) == sorted(here.values)


@asynccontextmanager
async def civitas_broker(
    mosquitto: Mosquitto, judge: list[Callable[[bytes], bool]]
) -> AsyncIterator[tuple[Proxy, set[Key]]]:
    """A way to a broker that refuses envelopes as judge[0] says, and (board, sequence, position) as taken."""
    taken: set[Key] = set()

    def rule(packet: Packet) -> Do | Answer:
        if (packet.way, packet.kind) != (UP, PUBLISH):
            return Do.PASS
        body = topic_and_payload(packet)[1]
        if judge[0](body):
            return Answer(refusal(packet, CONTENT))
        said = [one["parameters"] for one in json.loads(body)["observations"]]
        taken.update((one["board"], one["sequence"], one["position"]) for one in said)
        return Do.PASS

    async with Proxy(mosquitto.port) as way:
        way.rule = rule
        yield way, taken


@pytest.mark.parametrize("liars", [1, 3])
async def test_what_boards_sign_stops_a_civitas_route_for_no_other(
    tmp_path: Path, mosquitto: Mosquitto, liars: int
) -> None:
    *lying, one, other, third, fourth = street = boards(liars + 4)
    async with civitas_broker(mosquitto, [names(*lying)]) as (way, taken), city(tmp_path, "", *street) as here:
        for board in lying:
            await here.put(board, 3, 20)
        for board in (one, other, third, fourth):
            await here.put(board, 8, 4)
        async with civitas(here, way.port):
            await delivered_while_others_speak(here, one, other)
        letters = await here.dead()
        assert taken == {key for key in here.values if key[0] not in {board.name for board in lying}}
        share = dead_letters.share_of(len(street))
        assert all(0 < sum(letter.board == board.name for letter in letters) <= share for board in lying)
        assert {letter.board for letter in letters} == {board.name for board in lying}
        # Of what was taken by nobody each is a dead letter, or stated.
        neither = set(here.values) - taken - {dead_key(letter) for letter in letters}
        stated = await here.parts.buffer.read(lambda db, _: dead_letters.passed_over(db, ROUTE))
        assert isinstance(stated, list)
        for loss in stated:
            reports = {key[1] for key in neither if key[0] == loss.board}
            assert (loss.first, loss.last, loss.reports) == (min(reports), max(reports), len(reports))
        assert {loss.board for loss in stated} == {key[0] for key in neither} == {board.name for board in lying}


@pytest.mark.parametrize("how_many", [1, 3])
async def test_a_broker_that_refuses_everything_makes_no_dead_letter(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, how_many: int
) -> None:
    monkeypatch.setattr(blame, "QUIET_S", 0.0)
    street = boards(how_many)
    judge: list[Callable[[bytes], bool]] = [lambda body: False]
    async with civitas_broker(mosquitto, judge) as (way, taken), city(tmp_path, "", *street) as here:
        for board in street:
            await here.put(board, 3, 4)
        async with civitas(here, way.port):
            await here.delivered()
            judge[0] = lambda body: True
            for board in street:
                await here.put(board, 20, 4)
            await here.delivered_counts(HELD, 20)
            said = "the broker at" if how_many > 1 else "has taken none since"
            await until(lambda: any(said in alarm and "refuses" in alarm for alarm in here.alarms()))
        await here.parts.reopen()
        async with civitas(here, way.port):
            await here.delivered_counts(HELD, 40)
            assert await here.dead() == []
            judge[0] = lambda body: False
            await here.delivered()
            await until(lambda: here.alarms() == [] or "nobody listens" in here.alarms()[0])
        assert taken == set(here.values)
        assert await here.dead() == []


async def test_a_broker_that_has_refused_everything_and_is_slow_when_it_is_corrected_gets_all(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blame, "QUIET_S", 0.0)
    street = boards(2)
    judge: list[Callable[[bytes], bool]] = [lambda body: True]
    async with civitas_broker(mosquitto, judge) as (way, _), city(tmp_path, "", *street) as here:
        for board in street:
            await here.put(board, 2, 4)
        async with civitas(here, way.port):
            await until(lambda: any("what several boards say" in alarm for alarm in here.alarms()))
            judge[0] = lambda body: False
            refuses = way.rule
            # An acknowledgement takes much longer than HELD_S.
            way.rule, way.pause_s = lambda packet: Do.SLOW if packet.kind == CONNECT else refuses(packet), 0.005
            async with asyncio.timeout(WITHIN_S):
                await here.delivered()
        assert await here.dead() == []


async def test_what_a_broker_has_refused_is_remembered_within_a_bound(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused reports that the buffer has dropped for want of room never come again, so nothing takes them out."""
    monkeypatch.setattr(civitas_module, "MAX_REFUSED", 10)
    async with city(tmp_path, "", *boards(1)) as here, civitas(here, mosquitto.port) as route:
        one = Observation("LE-0001", 1, "00", 1, 0, T0_MS, 21.5, 1, "set", 15)
        under_way = UnderWay(1, 1, asyncio.Event())
        for sequence in range(1, 31):
            message = _Message([one._replace(sequence=sequence)], under_way, False, None)
            assert route.note_refused(message, 600, CONTENT)
        assert [key[2] for key in route._refused] == list(range(21, 31)), "the newest"


async def test_when_more_than_half_of_the_boards_are_refused_by_a_broker_nothing_is_passed_over(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    *refused, one = street = boards(4)
    judge = [names(*refused)]
    async with civitas_broker(mosquitto, judge) as (way, taken), city(tmp_path, "", *street) as here:
        async with civitas(here, way.port):
            await the_dead_letters_are_full(here, refused, one)
            judge[0] = lambda body: False
            await here.parts.buffer.write(lambda db, _: dead_letters.mark(db, None, []))
            await here.delivered()
            await here.delivered_counts("dead letters sent again", LETTERS)
        assert taken == set(here.values)


def test_an_answer_that_was_under_way_tells_nothing_of_a_platform_that_has_begun_to_refuse() -> None:
    judge = Blame("route city", SystemClock(), Health())
    under_way, refused = judge.begin(), judge.begin()
    judge.take(under_way)
    assert not judge.is_told(refused)
    later = judge.begin()
    assert not judge.is_told(refused)
    judge.take(later)
    assert judge.is_told(refused)
    assert not judge.is_told(later), "what is refused now is another matter"
