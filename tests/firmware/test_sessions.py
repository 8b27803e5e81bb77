"""What happens in a board's sessions at one moment, where the line cannot be made to bring it about at will."""

from tests.firmware.micropython import ROOMY_HEAP, MicroPython


def test_a_session_that_proves_itself_leaves_work_that_is_about_to_begin_alone() -> None:
    """A message_1 and the first record of the session before it, read from the line at once by a board that was busy:
    the task that works has not yet looked at what it is to work at."""
    with MicroPython("sessions_runner.py", heap=ROOMY_HEAP) as board:
        found = board.ask({})
    assert isinstance(found, dict)
    assert (found["began"], found["opened"]) == (True, "poll")
    assert found["question"].startswith("01")
    assert found["said"] == []
