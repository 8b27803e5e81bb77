"""What `board doctor` makes of a board's state, and what it makes of a stranger's text on the port."""

import io
import json
import os
import pty
import tty
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import pytest

from laterne_protocol import report
from laterne_provisioning.doctor import judging, watching
from laterne_provisioning.doctor.console import Console, PortGone, State, state_of
from laterne_provisioning.doctor.judging import BROKEN, LOOK, OK, Facts
from laterne_provisioning.flashing.checking import Reading, reading_of

NOW_MS = 1_790_000_000_000
GOOD = State(
    board="LE-0001",
    release="0.1.0",
    slot="a",
    is_tried=False,
    is_enrolled=True,
    model="pico",
    tier=0,
    by_power=True,
    boot=3,
    uptime_ms=3_600_000,
    clock=(report.SET, NOW_MS, 12),
    waiting=1,
    next_sequence=61,
    asked_ms=700,
    damaged=2,
    refused=0,
    free=40_000,
    has_noise=True,
    switch_is_closed=False,
    sample_ms=1000,
    sensors=(("SHT4x at 0x44", ""),),
    readings=(reading_of(1, 2150, report.GOOD), reading_of(2, 5512, report.GOOD)),
)
LINE = (
    'LE-0001: state [1, "0.1.0", "/a", false, true, "pico", 0, true, 3, 3600000, [1, 1790000000000, 12], 1, 61, 700, '
    '2, 0, 40000, true, false, 1000, [["SHT4x at 0x44", ""]], [[1, 2150, 1], [2, 5512, 1]]]'
)


def verdicts(*states: State) -> dict[str, str]:
    return {finding.about: finding.verdict for finding in judging.of_states(states, NOW_MS)}


def test_a_state_is_read_as_the_firmware_prints_it() -> None:
    assert state_of(LINE) == GOOD


def test_all_is_well_with_a_good_board() -> None:
    assert set(verdicts(GOOD)) == {
        "power", "release", "REPL", "air temperature", "relative humidity", "line", "clock", "backlog", "randomness",
        "key", "flash wear", "memory",
    }  # fmt: skip
    assert set(verdicts(GOOD).values()) == {OK}
    assert all(not finding.do for finding in judging.of_states([GOOD], NOW_MS))


CHANGES: list[tuple[dict[str, object], str, str]] = [
    ({"by_power": False, "uptime_ms": 60_000, "damaged": 0}, "power", LOOK),
    ({"by_power": False}, "power", OK),
    ({"by_power": False, "boot": 1, "uptime_ms": 60_000, "damaged": 0}, "power", OK),
    ({"slot": "r"}, "release", BROKEN),
    ({"is_tried": True}, "release", LOOK),
    ({"is_enrolled": False}, "REPL", LOOK),
    ({"sensors": ()}, "sensors", BROKEN),
    ({"sensors": None}, "sensors", LOOK),
    ({"sensors": (("SHT4x at 0x44", "CRC"),)}, "sensors", BROKEN),
    ({"readings": (Reading(4, "illuminance", 54612.0, "lx", report.SUSPECT),)}, "illuminance", LOOK),
    ({"readings": (Reading(4, "illuminance", None, "lx", report.MISSING),)}, "illuminance", BROKEN),
    ({"switch_is_closed": True}, "service switch", LOOK),
    ({"asked_ms": None}, "line", LOOK),
    ({"asked_ms": 61_000}, "line", LOOK),
    ({"damaged": 100}, "line", LOOK),
    ({"clock": (report.NEVER_SET, None, 0)}, "clock", LOOK),
    ({"clock": (report.HELD, NOW_MS, 900)}, "clock", LOOK),
    ({"clock": (report.SET, NOW_MS - 60_000, 12)}, "clock", LOOK),
    ({"waiting": 11}, "backlog", LOOK),
    ({"waiting": 24 * 64}, "backlog", BROKEN),
    ({"has_noise": False}, "randomness", LOOK),
    ({"next_sequence": 30_000_000}, "flash wear", BROKEN),
    ({"next_sequence": 17_000_000}, "flash wear", LOOK),
    ({"free": 8_000}, "memory", LOOK),
]


@pytest.mark.parametrize(("change", "about", "verdict"), CHANGES)
def test_what_is_wrong_is_named_with_what_to_do(change: dict[str, object], about: str, verdict: str) -> None:
    state = replace(GOOD, **change)  # type: ignore[arg-type]  # fields of a state
    found = [finding for finding in judging.of_states([state], NOW_MS) if finding.about == about]
    assert [finding.verdict for finding in found] in ([verdict], [verdict, OK])
    assert verdict == OK or found[0].do.endswith((".", "?"))
    others = {finding.about for finding in judging.of_states([state], NOW_MS) if finding.verdict != OK}
    assert others <= {about}, "and nothing else is blamed"


def test_damage_that_grows_while_one_looks_is_noise() -> None:
    assert verdicts(GOOD, replace(GOOD, damaged=3))["line"] == LOOK


FACTS = Facts("MicroPython", "0.1.0", True, 4096, 352, 300, 100_000, True, False, True, True)


def test_a_board_with_a_repl_tells_what_it_can_and_doctor_says_what_it_cannot() -> None:
    found = {finding.about: finding for finding in judging.of_facts(FACTS)}
    assert set(found) == {
        "interpreter", "power", "REPL", "release", "randomness", "key", "flash", "memory", "not known",
    }  # fmt: skip
    assert found["power"].said == "started when it got power"
    assert "by a reset" in {one.about: one.said for one in judging.of_facts(replace(FACTS, by_power=False))}["power"]
    assert "line, clock, backlog and flash wear" in found["not known"].said


def test_a_board_that_was_enrolled_and_has_a_repl_is_broken() -> None:
    assert judging.worst(judging.of_facts(FACTS)) == OK
    assert judging.worst(judging.of_facts(replace(FACTS, has_credential=True))) == BROKEN
    assert judging.worst(judging.of_facts(replace(FACTS, is_random=False))) == BROKEN
    assert judging.worst(judging.of_facts(replace(FACTS, release=None, free_blocks=30))) == LOOK


@pytest.mark.parametrize(
    "said",
    [
        LINE[:-20],
        LINE.replace("[1, ", "[2, ", 1),
        LINE.replace('"/a", ', ""),
        LINE.replace("2150", '"x"'),
        LINE.replace("2150", "1e400"),
        LINE.replace("2150", "9" * 400),
        LINE.replace("2150", "9" * 300),
        LINE.replace("[2, 5512, 1]", "[-2, 5512, 1]"),
        LINE.replace("[2, 5512, 1]", "[65536, 5512, 1]"),
        LINE.replace(" 700, ", " " + "9" * 400 + ", "),
        LINE.replace(" 61, ", " " + "9" * 400 + ", "),
        LINE.replace("3600000", "-1"),
        LINE.replace("40000", "1e400"),
        "LE-0001: state " + "[" * 4000,
        "LE-0001: report 4 closed, 20 readings",
    ],
)
def test_a_line_that_is_no_state_is_none(said: str) -> None:
    assert state_of(said) is None


def test_a_board_cannot_steer_the_terminal() -> None:
    state = state_of(LINE.replace("LE-0001", "\x1b[2J" * 40).replace('"0.1.0"', json.dumps("\x1b]0;x\x07")))
    assert state is not None
    assert "\x1b" not in state.board + state.release
    assert len(state.board) < 300


@pytest.fixture
def port() -> Iterator[tuple[int, str]]:
    """(the board's end, the path of the port)."""
    board, device = pty.openpty()
    tty.setraw(device)
    try:
        yield board, os.ttyname(device)
    finally:
        os.close(device)
        os.close(board)


def test_lines_are_found_in_noise_and_never_grow(port: tuple[int, str]) -> None:
    board, path = port
    with Console(path) as console:
        os.write(board, b"\xff" * 2000)
        os.write(board, b"half" * 300)
        lines = console.lines(10.0)
        os.write(board, b"\xfe" * 2500 + b"\n" + LINE.encode() + b"\r\n")
        assert state_of(next(lines)) == GOOD, "what was too long is left out"


def test_a_prompt_is_told_from_silence(port: tuple[int, str]) -> None:
    board, path = port
    with Console(path) as console:
        assert not console.gives_prompt()
        os.write(board, b"MicroPython v1.29\r\n>>> ")
        assert console.gives_prompt()
    assert os.read(board, 100).strip(b"\r\x02") == b"", "nothing that a program would take for an interrupt was sent"


def test_a_port_that_vanishes_is_told() -> None:
    board, device = pty.openpty()
    path = os.ttyname(device)
    with Console(path) as console:
        os.close(device)
        os.close(board)
        with pytest.raises(PortGone, match="plug the board in again"):
            list(console.lines(10.0))


def test_a_chart_goes_from_the_least_to_the_most() -> None:
    assert watching.chart(deque([1.0, None, 2.0, 8.0])) == "▁ ▂█"
    assert watching.chart(deque([5.0, 5.0])) == "▄▄"
    assert watching.chart(deque([None])) == " "


def test_a_channel_that_is_missing_leaves_a_blank() -> None:
    from rich.console import Console as Screen

    watched = watching.Watched()
    watched.told(GOOD)
    watched.told(replace(GOOD, readings=GOOD.readings[1:]))
    watched.said("\x1b[2Jclear")
    screen = Screen(width=120, record=True, file=io.StringIO())
    screen.print(watched.drawn())
    text = screen.export_text()
    assert "air temperature" in text
    assert "missing" in text
    assert "\x1b" not in text
