"""Times of observations on a real SensorThings server: two of one time, gaps, none, and any that a board claims."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.faulty_way import Done, Request
from tests.gateway.parts import until
from tests.gateway.platform import boards, city, dead_key, stored

from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_gateway.routes import feed, sta_sending
from laterne_protocol import fields

Rule = Callable[[Request], str | int | Done]
REPORTS, READINGS = 20, 6


pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_a_time_that_another_observation_has_holds_nothing_back(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readings of one moment: the strict server fails on the second with 500, the other one stores both."""
    monkeypatch.setattr(sta_sending, "FAILS_FOR_S", 0.0)
    street = boards()
    async with city(tmp_path, server.url, *street) as here:
        board = street[0]
        for sequence in (1, 2):
            board.utc_ms = 1_795_300_000_000
            await here.put_report(board, sequence)
        async with here.delivering():
            for sequence in range(3, 7):  # what is written in between tells that it is the rows and not the server
                board.utc_ms = 1_795_300_000_000 + 60_000 * sequence
                await here.put_report(board, sequence)
                await here.delivered_counts("observations delivered", 4 * (sequence - 1))
            await here.delivered()
        both = {one.sequence for one in stored(server, board.name)} >= {1, 2}
        letters = await here.dead()
        assert [one.sequence for one in letters] == ([] if both else [2, 2, 2, 2])
        assert len(stored(server, board.name)) == 24 - len(letters)


async def test_a_gap_is_told_as_a_count_of_lost_reports(tmp_path: Path, server: SensorThingsServer) -> None:
    street = boards()
    async with city(tmp_path, server.url, *street) as here:
        board = street[0]
        await here.put(board, 2, READINGS)
        board.utc_ms = 1_795_100_000_000
        await here.put_report(board, 6, gaps=[[3, 5, 2]])
        async with here.delivering():
            await here.delivered()
        (lost,) = [one for one in stored(server, board.name) if one.datastream.endswith("reports lost")]
        assert (lost.value, lost.parameters["from"], lost.parameters["to"]) == (3.0, 3, 5)
        assert lost.parameters["reason"] == "damaged on flash"


async def test_gaps_that_were_noticed_together_are_told_one_after_the_other(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    """A server that takes one observation of a time would refuse the second for ever."""
    (board,) = boards()
    async with city(tmp_path, server.url, board) as here:
        board.utc_ms = 1_795_400_000_000
        for sequence, follows in ((1, None), (5, 1), (9, 5)):
            accepted = here.accepted(board, sequence, readings=1)
            await here.parts.buffer.put(accepted._replace(follows=follows, missing="passed over"))
            board.utc_ms += 1000
        await here.parts.buffer.write(lambda db, _: db.execute("update gap set noticed_ms = 1795400000000"))
        async with here.delivering():
            await here.delivered_counts("gaps told", 2)
            await here.delivered()
        lost = [one for one in stored(server, board.name) if one.datastream.endswith("reports lost")]
        assert [(one.value, one.parameters["from"], one.parameters["to"]) for one in lost] == [(3, 2, 4), (3, 6, 8)]


async def test_a_report_without_a_time_waits_for_the_first_answers_to_a_gateway_that_has_begun(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What dated its start was in the memory of the process before; the board's next answer tells it again."""
    monkeypatch.setattr(feed, "CLOCK_AGAIN_S", 0.02)
    (board,) = boards()
    async with city(tmp_path, server.url, board) as here:
        board.utc_ms = None
        await here.put_report(board, 1)
        async with here.delivering():
            await until(lambda: bool(here.counted("waits for a report's time")))
            here.parts.dates.learn((board.name, board.key.kid), board.boot, (0, 1_795_200_000_000, 20))
            await here.delivered()
        assert len(stored(server, board.name)) == 4
        assert await here.dead() == []


async def test_a_report_without_a_time_is_a_dead_letter_until_its_start_is_dated(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "DATED_WITHIN_S", 0.0)
    street = boards()
    async with city(tmp_path, server.url, *street) as here:
        board = street[0]
        board.utc_ms = None
        await here.put_report(board, 1)
        async with here.delivering():
            await here.delivered()
            (letter,) = await here.dead()
            assert (letter.place, stored(server, board.name)) == ("report", [])
            here.parts.dates.learn((board.name, board.key.kid), board.boot, (0, 1_795_200_000_000, 20))
            config = tmp_path / "state" / "gateway.sqlite3"
            db = sqlite3.connect(config)
            with db:
                db.execute("update dead_letter set again = 1")
            db.close()
            await here.delivered_counts("dead letters sent again", 1)
        found = stored(server, board.name)
        assert len(found) == 4
        assert {one.parameters["clock"] for one in found} == {"dated"}


@pytest.mark.parametrize("utc_ms", [fields.MAX_UTC_MS, 1])
async def test_a_board_that_claims_any_time_at_all_holds_nothing_back(
    tmp_path: Path, server: SensorThingsServer, utc_ms: int
) -> None:
    """What is looked for around it must be a time, too."""
    (one,) = boards()
    async with city(tmp_path, server.url, one) as here:
        one.utc_ms = utc_ms
        await here.put_report(one, 1, gaps=None)
        await here.put(one, 2)
        async with here.delivering():
            await here.delivered()
        found = [(row.sequence, row.position) for row in stored(server, one.name)]
        dead = [dead_key(letter)[1:] for letter in await here.dead()]
        assert sorted(found + dead) == [(sequence, position) for sequence in (1, 2, 3) for position in range(4)]
