"""Questions and answers on a line: when a question was asked decides how well a board's clock is known."""

from pathlib import Path

from laterne_gateway.config import LineSettings
from laterne_gateway.exchange import Exchange
from laterne_gateway.health import Health
from laterne_gateway.serial_line import SerialLine
from laterne_protocol import frame
from laterne_protocol.frame import Frame

ASKED = Frame(frame.MESSAGE, 1, frame.GATEWAY, b"?")
ANSWER = Frame(frame.MESSAGE, frame.GATEWAY, 1, b"!")


class Machine:
    """A clock that only moves when somebody moves it."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def monotonic_s(self) -> float:
        return self.at_s

    def utc_ms(self) -> int | None:
        return None


class HeldUp(SerialLine):
    """The bytes leave at once; then something else has the processor for 80 ms. The board reads its clock meanwhile."""

    def __init__(self, machine: Machine, health: Health) -> None:
        super().__init__(LineSettings("held", Path("nowhere"), 115_200, ()), health)
        self.machine = machine
        self.board_reads_s = 0.0

    def write(self, data: bytes) -> None:
        self.board_reads_s = self.machine.at_s + 0.005
        self.machine.at_s += 0.08

    async def frame(self, until_s: float) -> tuple[Frame, float] | None:
        return ANSWER, self.machine.at_s


async def test_the_board_read_its_clock_between_question_and_answer_however_the_process_was_held_up() -> None:
    machine, health = Machine(), Health()
    line = HeldUp(machine, health)
    answer = await Exchange(line, machine, health).ask(lambda: ASKED, lambda received: received.payload, 1)
    assert answer is not None
    assert answer.asked_s <= line.board_reads_s <= answer.answered_s
