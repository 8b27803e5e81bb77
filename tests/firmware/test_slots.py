"""The state record of updates: each step is one commit, and another start reads back what is on flash then."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.firmware.micropython import BoardError, MicroPython

OLD, NEW, NEWER = "01" * 16, "02" * 16, "03" * 16
INDEX = "aa" * 32
ABANDONED, CRASHED = 5, 3

Steps = Callable[..., dict[str, Any]]

FACTORY = (["arm", "a", OLD, INDEX, 7], ["confirm"])


@pytest.fixture(scope="module")
def board() -> Iterator[MicroPython]:
    with MicroPython("slots_runner.py") as interpreter:
        yield interpreter


@pytest.fixture
def after(board: MicroPython, tmp_path: Path) -> Steps:
    """What another start finds after these steps."""

    def _after(*steps: list[object]) -> dict[str, Any]:
        board.ask({"folder": str(tmp_path), "steps": steps})
        answer = board.ask({"folder": str(tmp_path), "steps": [["load"]]})
        assert isinstance(answer, dict)
        return answer

    return _after


def test_a_board_without_a_record_runs_its_first_slot(after: Steps) -> None:
    found = after(["load"])
    assert (found["active"], found["trial"], found["slots"], found["other"]) == ("a", None, {}, "b")


def test_a_damaged_record_proves_nothing(after: Steps, tmp_path: Path) -> None:
    after(*FACTORY)
    for copy in ("slot.0", "slot.1"):
        content = bytearray((tmp_path / copy).read_bytes())
        content[20] ^= 1
        (tmp_path / copy).write_bytes(content)
    assert after()["active"] == ""


@pytest.mark.parametrize("content", ["a0", "01", "a10161", "f6"])
def test_a_record_that_holds_something_else_proves_nothing(after: Steps, content: str) -> None:
    assert after(["raw", content])["active"] == ""


def test_arming_opens_a_trial_and_takes_away_that_the_slot_was_confirmed(after: Steps) -> None:
    after(*FACTORY, ["arm", "b", NEW, INDEX, 8], ["confirm"], ["set", "attempts", 5])
    found = after(["load"], ["arm", "a", NEWER, INDEX, 9])
    assert (found["active"], found["trial"], found["confirmed"]) == ("b", "a", ["b"])
    assert found["slots"]["a"] == [NEWER, INDEX, 9]
    assert (found["attempts"], found["floor"]) == (0, 8)


def test_the_slot_that_runs_and_a_second_trial_are_not_armed(after: Steps) -> None:
    after(*FACTORY)
    with pytest.raises(BoardError):
        after(["load"], ["arm", "a", NEW, INDEX, 8])
    after(["load"], ["arm", "b", NEW, INDEX, 8])
    with pytest.raises(BoardError):
        after(["load"], ["arm", "b", NEWER, INDEX, 9])
    assert after()["slots"]["b"][0] == NEW


def test_a_confirmation_switches_and_raises_the_floor_at_once_and_doing_it_twice_changes_nothing(after: Steps) -> None:
    once = after(*FACTORY, ["arm", "b", NEW, INDEX, 8], ["confirm"])
    assert (once["active"], once["trial"], once["floor"], once["confirmed"]) == ("b", None, 8, ["a", "b"])
    assert after(["load"], ["confirm"]) == once


def test_a_release_may_give_up_an_older_one_that_was_confirmed(after: Steps) -> None:
    for least, kept in ((7, ["a", "b"]), (8, ["b"])):
        assert after(*FACTORY, ["arm", "b", NEW, INDEX, 8], ["confirm", least])["confirmed"] == kept


def test_a_trial_that_failed_leaves_the_floor_and_refuses_its_release(after: Steps) -> None:
    found = after(*FACTORY, ["arm", "b", NEW, INDEX, 8], ["abandon", CRASHED])
    assert (found["active"], found["trial"], found["floor"]) == ("a", None, 7)
    assert (found["result"], found["refused"]) == ([CRASHED, NEW], NEW)
    assert found["confirmed"] == ["a"]


def test_a_trial_that_an_order_ended_may_come_again(after: Steps) -> None:
    found = after(*FACTORY, ["arm", "b", NEW, INDEX, 8], ["abandon"])
    assert (found["result"], found["refused"]) == ([ABANDONED, NEW], None)


def test_starts_that_were_counted_are_taken_back_when_the_release_has_run_long_enough(after: Steps) -> None:
    assert after(*FACTORY, ["set", "attempts", 5], ["save"], ["healthy"])["attempts"] == 0
    assert after(["load"], ["arm", "b", NEW, INDEX, 8], ["set", "attempts", 2], ["save"], ["healthy"])["attempts"] == 2
