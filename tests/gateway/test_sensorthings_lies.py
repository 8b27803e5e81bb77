"""A SensorThings server that says what none should: the route waits and goes on, and nothing is lost or doubled."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.gateway.faulty_way import PASS, Done, FaultyWay, Request, Says
from tests.gateway.platform import MINUTE_MS, ROUTE, T0_MS, boards, city, served, stored

from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_gateway import dead_letters
from laterne_gateway.route_settings import SensorThingsSettings
from laterne_gateway.routes import feed as feed_module
from laterne_gateway.routes import source as source_module
from laterne_gateway.routes import sta_server
from laterne_gateway.routes.feed import Feed, UnderWay
from laterne_gateway.routes.observations import Observation
from laterne_protocol import cose, report

LIES = 2  # requests of a kind that are answered so


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorThingsServer]:
    with served(tmp_path_factory.mktemp("city"), is_strict=False) as made:
        yield made


pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(Says(200, b"[" * 200_000), id="brackets without an end"),
        pytest.param(Says(200, b'{"a":' * 100_000), id="objects without an end"),
        pytest.param(Says(200, b"9" * 10_000), id="a long number"),
        pytest.param(Says(200, b" " * (sta_server.MAX_ANSWER_BYTES + 1)), id="too much"),
        pytest.param(Says(200, b'{"value":[{"@iot.id":[]}],"@iot.nextLink":"x"}'), id="the same page for ever"),
        pytest.param(Says(201, b"[]", (("Location", "x(\u00b2)"),)), id="an id that is a superscript"),
        pytest.param(Says(503, b"", (("Retry-After", "\u00b2"),)), id="a pause that is a superscript"),
        pytest.param(Says(302, b"", (("Location", "http://127.0.0.1:1/"),)), id="a redirect"),
        pytest.param(Says(204), id="nothing"),
    ],
)
async def test_a_lie_costs_nothing_but_time(tmp_path: Path, server: SensorThingsServer, lie: Says) -> None:
    """Told about the service, about what is made, and about observations that are looked for."""
    (one,), told = boards(), Counter[str]()

    def rule(request: Request) -> str | Says:
        kind = "read" if "/Observations" in request.path else request.method
        told[kind] += 1
        return lie if told[kind] <= LIES else PASS

    async with FaultyWay(server).open() as way, city(tmp_path, way.url, one) as here:
        way.rule = rule
        await here.put(one, 3)
        async with here.delivering():
            await here.delivered()
        here.check(server)
        assert not await here.dead()


async def test_a_dead_letter_that_cannot_be_read_is_kept_and_holds_back_no_other(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    """As one of another release of ours, or one that the card has changed."""
    (one,) = boards()
    async with city(tmp_path, server.url, one) as here:
        rows = [
            (ROUTE, one.name, number, body)
            for number, body in enumerate((b"\xff\xfe", b"[]", b"{}", b'{"lost":null,"other":1}'))
        ]
        await here.parts.buffer.write(
            lambda db, _: db.executemany(
                "insert into dead_letter (route, board, sequence, place, again, reason, noticed_ms, body) "
                "values (?, ?, ?, 'air-temperature/0', 1, 'x', null, ?)",
                rows,
            )
        )
        await here.put(one, 1)
        async with here.delivering():
            await here.delivered()
            await here.delivered_counts("dead letters", 4)
        here.check(server)
        assert [letter.reason.startswith("cannot be read") for letter in await here.dead()] == [True] * 4


async def test_a_board_whose_reports_nobody_can_read_stops_the_route_for_no_other(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    """It signs whatever it likes, ten reports a second. The gateway takes them, as the broker does."""
    one, liar = boards(2)
    async with city(tmp_path, server.url, one, liar) as here:
        share = dead_letters.share_of(2)
        full = [(ROUTE, liar.name, number) for number in range(10, 10 + share - 1)]
        await here.parts.buffer.write(
            lambda db, _: db.executemany(
                "insert into dead_letter (route, board, sequence, place, again, reason, noticed_ms, body) "
                "values (?, ?, ?, 'report', 0, 'x', null, x'')",
                full,
            )
        )
        for sequence in range(1, 5):
            said = here.accepted(liar, sequence)
            await here.parts.buffer.put(said._replace(body=b"\xff"))
        await here.put(one, 3)
        async with here.delivering():
            await here.delivered()
        assert {key for key in here.values if key[0] == one.name} == {
            (one.name, row.sequence, row.position) for row in stored(server, one.name)
        }
        assert len(await here.dead()) == share
        assert here.counted("passed over: their board has its share of the dead letters") == 3
        assert any(f"more than is kept of {liar.name} from report 2 on" in alarm for alarm in here.alarms())


async def test_a_board_that_signs_for_ever_new_channels_fills_neither_platform_nor_memory(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_CHANNELS_A_BOARD", 6)
    one, liar = boards(2)
    async with city(tmp_path, server.url, one, liar) as here:
        for sequence in range(1, 5):
            columns = [report.Column(channel, b"\x02", []) for channel in range(4 * sequence, 4 * sequence + 4)]
            times, clock = report.Times(0, 0, 1), (1, T0_MS, 5)
            payload = report.Report(liar.name, sequence, bytes(16), 1, 60_000, clock, times, columns, []).to_payload()
            body = cose.assemble(cose.protected_header(bytes(8)), payload, bytes(64))
            await here.parts.buffer.put(here.accepted(liar, sequence)._replace(body=body))
        await here.put(one, 2)
        async with here.delivering():
            await here.delivered()
        assert {row.datastream for row in stored(server, one.name)}
        assert len({row.datastream for row in stored(server, liar.name)}) == 6
        assert here.counted("observations passed over: too many channels of their board") == 4 * 4 - 6
        assert "more than 6 channels" in str(here.parts.health.snapshot()[liar.name]["alarms"])


async def test_a_clock_that_jumped_over_years_has_not_all_between_them_read(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    """A look that reads all that a Datastream has ends nowhere, and the route with it."""
    (one,) = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, one) as here:
        await here.put(one, 120, readings=1)
        async with here.delivering():
            await here.delivered()
        one.utc_ms = T0_MS - 365 * 1440 * MINUTE_MS
        await here.put_report(one, 121)
        one.utc_ms = T0_MS + 365 * 1440 * MINUTE_MS
        await here.put_report(one, 122)
        way.requests.clear()
        async with here.delivering():  # another process: both may be there
            await here.delivered()
        read = [request for request in way.requests if request.method == "GET" and "/Observations" in request.path]
        assert not [request for request in read if "skip=100" in request.path]
        found = [(row.sequence, row.position) for row in stored(server, one.name)]
        assert len(found) == len(set(found)) == 120 + 2 * 4


async def test_long_reports_do_not_fill_the_memory(tmp_path: Path) -> None:
    """A lane has at most so many observations ahead, however many a report holds."""
    (one,) = boards()
    async with city(tmp_path, "", one) as here:
        await here.put(one, 64, readings=300)
        taken: list[int] = []
        all_read = asyncio.Event()

        async def post(observations: list[Observation], under_way: UnderWay, feed: Feed) -> None:
            taken.append(len(observations))
            if sum(taken) >= feed_module.MAX_AHEAD:
                all_read.set()

        (lane,) = here.parts.buffer.part(ROUTE)
        feed = Feed(here.source(SensorThingsSettings(ROUTE, "")), lane, post, None)
        running = asyncio.create_task(feed.run())
        await all_read.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert sum(taken) < feed_module.MAX_AHEAD + 300


async def test_a_row_that_is_stored_and_answered_with_no_link_is_not_sent_again_without_a_look(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    """Alone it goes a second time, in the way that tells why it is refused: it may be there from the first."""
    (one,) = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, one) as here:

        def rule(request: Request) -> int | str | Done:
            said = json.loads(request.body) if request.path.endswith("CreateObservations") else None
            if said is None:
                return PASS
            return Done(201) if sum(len(group["dataArray"]) for group in said) == 1 else 409

        way.rule = rule
        await here.put(one, 1, 2)
        async with here.delivering():
            await here.delivered()
        here.check(server)
        assert not await here.dead()


async def test_an_entity_that_a_platform_tells_twice_is_not_removed(tmp_path: Path, server: SensorThingsServer) -> None:
    """As where pages overlap because somebody adds entities meanwhile."""
    (one,) = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, one) as here:
        told: list[str] = []

        def rule(request: Request) -> str | Says:
            if request.method == "GET" and "/Sensors?" in request.path and told:
                return Says(200, json.dumps({"value": [{"@iot.id": told[0], "properties": told_of}] * 2}).encode())
            return PASS

        await here.put(one, 2)
        async with here.delivering():
            await here.delivered()
        told_of = {"reference": f"testingen/{one.name}/sensors"}
        told.append(sensor_of(server, told_of["reference"]))
        way.rule = rule
        await here.put(one, 2)
        way.requests.clear()
        async with here.delivering():
            await here.delivered()
        here.check(server)
        assert [request.path for request in way.requests if request.method == "DELETE"] == []
        assert not [alarm for alarm in here.alarms() if "Sensors" in alarm]


def sensor_of(server: SensorThingsServer, reference: str) -> str:
    db = sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)
    try:
        query = (
            "select id from sensorthings_v1_1_django_backend_sensor where json_extract(properties, '$.reference') = ?"
        )
        (found,) = db.execute(query, (reference,)).fetchone()
    finally:
        db.close()
    return str(UUID(found))
