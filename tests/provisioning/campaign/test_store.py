"""A campaign's journal, cut at any byte: what was committed is there, what was not never happened."""

import copy
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.provisioning.campaign.city import BEGIN, NEW, Board, City, plan

from laterne_provisioning.campaign import store
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.rows import Course
from laterne_provisioning.campaign.states import COMPLETED, CONFIRMED
from laterne_provisioning.campaign.store import JOURNAL, Store
from laterne_provisioning.errors import OperatorError, UsageError

RELEASE = b"a release file"


def made(directory: Path, boards: int = 10) -> Store:
    return store.create(directory, plan(boards), RELEASE)


def documents(engine: Engine) -> dict[str, Any]:
    return {board: row.document() for board, row in engine.rows.items()}


@dataclass
class Moment:
    """What was stored when the journal was so long, and how the boards were then."""

    length: int
    rows: dict[str, Any]
    course: Course
    boards: dict[str, Board]


def run(
    chosen: Store, engine: Engine, steps: int | None = None, boards: dict[str, Board] | None = None
) -> list[Moment]:
    """Go on as the runner does: what has happened is committed before an order goes out."""
    now = max(BEGIN, engine.course.since, *(row.since for row in engine.rows.values()))
    city = City(engine, None, 1, now=now, boards=boards or {})
    engine.watched_again(city.now)
    moments: list[Moment] = []
    stored: dict[str, Any] = documents(engine)

    def keep() -> None:
        nonlocal stored
        changes, rows = engine.take()
        if changes or rows:
            chosen.commit(engine.course, rows, city.now)
            stored = stored | {board: row.document() for board, row in rows.items()}
            length = (chosen.folder / JOURNAL).stat().st_size
            moments.append(Moment(length, stored, copy.deepcopy(engine.course), copy.deepcopy(city.boards)))

    city.keep = keep
    while not engine.is_over() and steps != 0:
        city.step()
        steps = None if steps is None else steps - 1
    keep()
    return moments


def begun(chosen: Store) -> Engine:
    engine = chosen.engine()
    engine.approve(BEGIN)
    engine.start(BEGIN)
    _, rows = engine.take()
    chosen.commit(engine.course, rows or engine.rows, BEGIN)
    return engine


def test_a_campaign_is_whole_or_not_there(tmp_path: Path) -> None:
    chosen = made(tmp_path)
    assert chosen.plan() == plan(10)
    assert chosen.release() == RELEASE
    assert [one.id for one in store.stores(tmp_path)] == ["C-1"]
    (tmp_path / store.FOLDER / ".C-2.unfinished").mkdir()  # what a kill in the middle leaves
    assert [one.id for one in store.stores(tmp_path)] == ["C-1"]
    with pytest.raises(UsageError, match="C-1"):
        store.store_of(tmp_path, "C-3")


def test_cut_at_any_byte_the_journal_says_what_the_last_whole_line_says_and_the_campaign_goes_on_to_its_end(
    tmp_path: Path,
) -> None:
    chosen = made(tmp_path)
    with chosen.writing():
        moments = run(chosen, begun(chosen))
        data = (chosen.folder / JOURNAL).read_bytes()
    assert len(moments) > 20
    journal = chosen.folder / JOURNAL
    cuts = ends = 0
    for before, after in itertools.pairwise(moments):
        length, following = before.length, after.length
        # Every byte of the shorter lines, and some of the longer ones.
        for cut in sorted({*range(length, following, max(1, (following - length) // 16)), following - 1}):
            for garbage in (b"", bytes(7), b"\xff" * 9):
                if garbage and (cut == following - 1 or cut == length):
                    continue
                journal.write_bytes(data[:cut] + garbage)
                engine = chosen.engine()
                if cut < following - 1:  # else only the newline is missing, and it counts
                    assert (documents(engine), engine.course) == (before.rows, before.course), cut
                cuts += 1
        journal.write_bytes(data[: (length + following) // 2])
        # The boards are where they were when that line should have been written.
        boards = copy.deepcopy(after.boards)
        with chosen.writing():
            engine = chosen.engine()
            run(chosen, engine, boards=boards)
        assert chosen.engine().course == engine.course
        assert chosen.engine().counts() == engine.counts()
        for board, row in engine.rows.items():
            assert row.state != CONFIRMED or boards[board].confirmed == NEW, "success that is none"
        # A report that was heard and not yet stored is lost, and its board unknown: the campaign halts.
        assert engine.course.state == COMPLETED or {row.why for row in engine.rows.values()} <= {"", "timeout"}
        ends += engine.course.state == COMPLETED
    assert cuts > 500
    assert ends > len(moments) / 2


def test_a_line_that_was_damaged_in_the_middle_is_no_cut_and_is_told(tmp_path: Path) -> None:
    chosen = made(tmp_path)
    with chosen.writing():
        run(chosen, begun(chosen), steps=5)
    with chosen.writing():  # one line of all of it, then more
        run(chosen, chosen.engine(), steps=5)
    path = chosen.folder / JOURNAL
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(OperatorError, match=r"Line 1 of .* is damaged"):
        chosen.read()


def test_opening_makes_one_line_of_all_and_loses_nothing(tmp_path: Path) -> None:
    chosen = made(tmp_path)
    with chosen.writing():
        engine = begun(chosen)
        run(chosen, engine, steps=30)
    before = chosen.engine()
    with chosen.writing():
        assert (chosen.folder / JOURNAL).read_bytes().count(b"\n") == 1
        assert documents(chosen.engine()) == documents(before)
        assert chosen.engine().course == before.course


def test_one_process_writes_and_the_lock_of_a_killed_one_is_free(tmp_path: Path) -> None:
    chosen = made(tmp_path)
    program = (
        "import pathlib, sys, time\n"
        "from laterne_provisioning.campaign.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).writing():\n"
        "    print('mine', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(chosen.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"mine\n"
            assert chosen.is_run()
            with pytest.raises(OperatorError, match="another command"), chosen.writing():
                pass
        finally:
            os.kill(other.pid, signal.SIGKILL)
    assert not chosen.is_run()
    with chosen.writing():
        assert chosen.read().course is None


def test_requests_are_taken_once_and_what_is_no_request_is_dropped(tmp_path: Path) -> None:
    chosen = made(tmp_path)
    assert chosen.request() is None
    chosen.ask("pause")
    assert chosen.request() == "pause"
    assert chosen.request() is None
    chosen.ask("explode")
    assert chosen.request() is None


def test_a_plan_that_somebody_has_changed_is_no_plan(tmp_path: Path) -> None:
    chosen = made(tmp_path)
    path = chosen.folder / store.PLAN
    changed = json.loads(path.read_bytes())
    breaks: list[Callable[[Any], object]] = [
        lambda one: one.pop("gates"),
        lambda one: one["gates"].update(success_percent="all"),
        lambda one: one["windows"].append("at night"),
        lambda one: one.update(more=1),
        lambda one: one["targets"].append({"board": "LE-1"}),
    ]
    for break_it in breaks:
        other = copy.deepcopy(changed)
        break_it(other)
        path.write_text(json.dumps(other))
        with pytest.raises(OperatorError, match="no plan"):
            chosen.plan()
