"""The interpreter that our board tests run on."""

from pathlib import Path

import pytest
from tests.firmware.micropython import BoardError, MicroPython, evaluate


def test_an_expression_is_evaluated_on_the_pinned_interpreter() -> None:
    assert evaluate("[sys.implementation.name, 2 ** 70]", "import sys") == ["micropython", 2**70]


def test_the_protocol_is_imported_from_the_same_files_as_here() -> None:
    assert evaluate("cbor.encode([1, 2]).hex()", "from laterne_protocol import cbor") == "820102"


def test_an_exception_on_the_board_is_raised_here_by_name_and_the_board_goes_on() -> None:
    with MicroPython("expression.py") as board:
        with pytest.raises(BoardError, match="ZeroDivisionError"):
            board.ask({"setup": "", "expression": "1 // 0"})
        assert board.ask({"setup": "", "expression": "1 + 1"}) == 2


def test_many_questions_are_answered_in_their_order() -> None:
    with MicroPython("expression.py") as board:
        answers = board.ask_all({"setup": "", "expression": f"{number} * 2"} for number in range(500))
    assert answers == [2 * number for number in range(500)]


def test_a_runner_that_ends_says_why(tmp_path: Path) -> None:
    runner = tmp_path / "runner.py"
    runner.write_text("raise OSError('no bus')")
    with pytest.raises(RuntimeError, match="no bus"):
        MicroPython(runner)


def test_an_interpreter_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    runner = tmp_path / "runner.py"
    runner.write_text("""print('{"implementation": ["micropython", [1, 20, 0, ""], 2822], "version": "3.4.0"}')""")
    with pytest.raises(RuntimeError, match="not the pinned MicroPython"):
        MicroPython(runner)
