"""P1: what is refused beyond a board's share of the dead letters is stated on the disk until somebody has seen it."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import until
from tests.gateway.platform import ROUTE, boards, city, civitas
from tests.gateway.test_buffer import accepted, open_buffer

from laterne_gateway import database, dead_letters, salvage
from laterne_gateway.__main__ import run_command
from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import SystemClock
from laterne_gateway.database import FILE_NAME
from laterne_gateway.dead_letters import WHOLE_REPORT, DeadLetter, DeadLetters
from laterne_gateway.routes import beside
from laterne_gateway.routes import civitas as civitas_module

SHARE = 2  # of each of the two boards
LIAR = "LE-0001"
CONFIG = (
    '[gateway]\nid = "gw-1"\ntenant = "testingen"\ndirectory = "state"\ntrust = "trust.cbor"\n'
    'roster = "roster.cbor"\ncredential = "gateway.cbor"\n[mqtt]\nurl = "mqtt://b"\n[[line]]\nname = "a"\npath = "a"\n'
    f'[[route]]\nname = "{ROUTE}"\nkind = "civitas"\nurl = "mqtt://c"\n'
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_DEAD_LETTERS", 2 * SHARE)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def ask(config: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Gives a command of `laterne-gateway dead`: its exit code and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return run_command(["dead", *words, "--config", str(config)]), capsys.readouterr().out

    return run


def letters(buffer: Buffer) -> DeadLetters:
    """As a process that begins has them."""
    return DeadLetters(ROUTE, buffer, SystemClock())


async def refuse(kept: DeadLetters, sequence: int, place: str = WHOLE_REPORT, why: str = "no") -> bool | None:
    return await kept.put(DeadLetter(LIAR, sequence, place, why, b"x"), 2)


async def fill_the_share(kept: DeadLetters) -> None:
    assert [await refuse(kept, sequence) for sequence in range(1, SHARE + 1)] == [True] * SHARE


def on_disk(directory: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / FILE_NAME)) as db:
        return db.execute("select route, board, first, last, reports, reason from passed_over").fetchall()


async def test_what_is_passed_over_is_on_the_disk_when_its_lane_may_pass_it(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, ROUTE)
    kept = letters(buffer)
    await fill_the_share(kept)
    assert on_disk(tmp_path) == []
    for sequence, place, stated in [
        (7, "a/0", (7, 7, 1)),
        (7, "a/1", (7, 7, 1)),
        (9, "a/0", (7, 9, 2)),
        (7, "a/2", (7, 9, 2)),
        (5, WHOLE_REPORT, (5, 9, 3)),
    ]:
        assert await refuse(kept, sequence, place, f"no {sequence}") is None
        assert on_disk(tmp_path)[0][2:5] == stated
    assert on_disk(tmp_path) == [(ROUTE, LIAR, 5, 9, 3, "no 5")]
    await buffer.close()


async def test_a_report_that_is_refused_again_after_a_restart_never_makes_more_of_them_than_there_are(
    tmp_path: Path,
) -> None:
    buffer = open_buffer(tmp_path, ROUTE)
    await fill_the_share(letters(buffer))
    for _ in range(3):
        kept = letters(buffer)
        for sequence in (7, 8):
            assert await refuse(kept, sequence) is None
    assert on_disk(tmp_path) == [(ROUTE, LIAR, 7, 8, 2, "no")]
    await buffer.close()


async def test_what_was_passed_over_is_listed_until_it_was_seen(
    tmp_path: Path, ask: Callable[..., tuple[int, str]]
) -> None:
    buffer = open_buffer(tmp_path / "state", ROUTE)
    kept = letters(buffer)
    await fill_the_share(kept)
    assert await asyncio.to_thread(ask, "seen") == (0, "nothing was passed over\n")
    for sequence in (7, 8):
        await refuse(kept, sequence, why="the platform's mistake")
    status, out = await asyncio.to_thread(ask, "list")
    assert (status, len(out.splitlines())) == (0, SHARE + 1)
    assert f"{ROUTE}: {LIAR} reports 7 to 8: of 2 of them" in out
    assert "the platform's mistake" in out
    (told,) = json.loads((await asyncio.to_thread(ask, "list", "--json"))[1])["passed_over"]
    assert (told["first"], told["last"], told["reports"]) == (7, 8, 2)
    assert (await asyncio.to_thread(ask, "retry"))[0] == 0
    assert on_disk(tmp_path / "state"), "what is not kept cannot be sent again: it is still stated"
    assert (await buffer.tallies())["reports passed over"] == 2
    status, out = await asyncio.to_thread(ask, "seen", "--route", ROUTE)
    assert (status, out.count("reports 7 to 8")) == (0, 1)
    assert on_disk(tmp_path / "state") == []
    await refuse(kept, 8, "a/1")
    assert on_disk(tmp_path / "state")[0][2:5] == (8, 8, 1), "more of a report that was seen is stated anew"
    await buffer.close()


async def test_what_came_after_it_was_shown_is_still_to_be_seen(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, ROUTE)
    kept = letters(buffer)
    await fill_the_share(kept)
    await refuse(kept, 7)
    shown = await kept.passed_over()
    await refuse(kept, 8)
    await buffer.write(lambda db, _: dead_letters.seen(db, shown))
    assert on_disk(tmp_path) == [(ROUTE, LIAR, 7, 8, 2, "no")]
    await buffer.close()


async def test_a_gateway_that_begins_anew_says_what_was_passed_over_although_its_platform_is_away(
    tmp_path: Path, ask: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(civitas_module, "BASE_S", 0.01)
    monkeypatch.setattr(civitas_module, "CAP_S", 0.01)
    monkeypatch.setattr(beside, "LOOK_EVERY_S", 0.01)
    said = f"more than is kept of {LIAR} from report 7 on"
    async with city(tmp_path, "", *boards(2)) as here:
        kept = letters(here.parts.buffer)
        await fill_the_share(kept)
        await refuse(kept, 7)
        await here.parts.reopen()
        async with civitas(here, 1):  # nobody listens there
            await until(lambda: any(said in alarm for alarm in here.alarms()))
            await asyncio.to_thread(ask, "seen")
            await until(lambda: not any(said in alarm for alarm in here.alarms()))


async def test_a_gateway_with_a_database_of_the_former_format_starts_with_all_that_is_in_it(
    tmp_path: Path, ask: Callable[..., tuple[int, str]]
) -> None:
    """It has everything but the new table. Commands that look at it before the gateway has started do no harm."""
    state = tmp_path / "state"
    buffer = open_buffer(state, ROUTE)
    await buffer.put(accepted(FakeBoard(LIAR), 1))
    await fill_the_share(letters(buffer))
    await buffer.close()
    with closing(sqlite3.connect(state / FILE_NAME)) as db:
        db.executescript("drop table passed_over; pragma user_version = 3;")
        db.execute("vacuum")
    status, out = await asyncio.to_thread(ask, "list", "--json")
    assert (status, json.loads(out)["passed_over"]) == (0, [])
    buffer = open_buffer(state, ROUTE)
    assert [row.sequence for row in await buffer.oldest(0, 10)] == [1]
    kept = letters(buffer)
    assert (await refuse(kept, 7), await kept.count()) == (None, SHARE)
    await buffer.close()
    with closing(sqlite3.connect(state / FILE_NAME)) as db:
        assert db.execute("pragma user_version").fetchone() == (database.FORMAT,)
    assert on_disk(state) == [(ROUTE, LIAR, 7, 7, 1, "no")]
    buffer = open_buffer(state, ROUTE)  # it is brought up to date once
    assert [row.sequence for row in await buffer.oldest(0, 10)] == [1]
    await buffer.close()


async def test_a_repaired_database_still_states_what_was_passed_over(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, ROUTE)
    kept = letters(buffer)
    await fill_the_share(kept)
    await refuse(kept, 7)
    await refuse(kept, 8)
    await buffer.close()
    before = on_disk(tmp_path)
    salvage.repair(tmp_path, "a test", salvage.Known())
    assert on_disk(tmp_path) == before != []
