"""Ctrl-C ends a command with 130, without a traceback; in a pipe progress is quiet, on a terminal it waits."""

import os
import pty
import select
import signal
import sys
import termios
from pathlib import Path

from tests.provisioning.commands import WITHIN_S, enrol, laterne, running
from tests.provisioning.fake_board import WAIT_S, FakeBoard


def test_ctrl_c_while_a_board_is_asked_ends_with_130_and_leaves_nothing(authority: Path, board: FakeBoard) -> None:
    board.stop_at = (2, False)
    arguments = ("board", "enrol", "--port", board.port, "--id", "LE-0001", "--authority", authority)
    with running(*arguments) as command:
        assert board.stopped.wait(WAIT_S)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=WITHIN_S)
    assert command.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert laterne("board", "list", "--authority", authority, "--json").json() == []
    board.go_on()
    enrol(board, "LE-0001", authority)


def test_ctrl_c_at_the_passphrase_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with running("init", tmp_path / "a", terminal=slave) as command:
        shown = b""
        while b"Passphrase of the new keys" not in shown:
            shown += os.read(master, 1000)
        while termios.tcgetattr(slave)[3] & termios.ECHO:
            os.sched_yield()
        command.send_signal(signal.SIGINT)
        assert command.wait(WITHIN_S) == 130
    os.close(slave)
    os.close(master)
    assert list(tmp_path.iterdir()) == []


def test_a_command_without_a_terminal_says_its_result_and_nothing_else(authority: Path, board: FakeBoard) -> None:
    done = enrol(board, "LE-0001", authority)
    assert done.err == ""
    assert done.out.startswith("LE-0001 is enrolled.\n")
    assert "\x1b" not in done.out


ASKS_AMID = """
from laterne_provisioning import keys, output
with output.progress() as say:
    keys.Secrets().ask("passphrase of the enrolment key")
    say("it is open")
"""
SEVERAL_TURNS_S = 0.5  # what moves on a terminal moves 12 times a second


def test_nothing_moves_over_a_question_on_the_terminal() -> None:
    master, slave = pty.openpty()
    with running(command=(sys.executable, "-c", ASKS_AMID), terminal=slave) as command:
        shown = b""
        while b"Passphrase of the enrolment key: " not in shown:
            shown += os.read(master, 1000)
        while termios.tcgetattr(slave)[3] & termios.ECHO:
            os.sched_yield()
        if select.select([master], [], [], SEVERAL_TURNS_S)[0]:
            shown += os.read(master, 1000)
        assert shown.endswith(b"Passphrase of the enrolment key: ")
        os.write(master, b"Kandelaber 7\n")
        while b"it is open" not in shown:
            shown += os.read(master, 1000)
        os.close(slave)
        assert command.wait(WITHIN_S) == 0
    os.close(master)
