"""One question, one answer: what the bus sends on a line and waits for (protocol/README.md, 3).

The sender of a question says what an answer is; all other frames are counted and left. A repeated question is made
anew each time, because a record must never be sent twice.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from laterne_gateway.clock import Clock
from laterne_gateway.health import Health
from laterne_gateway.serial_line import SerialLine
from laterne_protocol import frame
from laterne_protocol.frame import Frame

BITS_A_BYTE = 10  # 8N1: a start and a stop bit
BOARD_TURNS_ROUND_S = 0.45  # a board erases a flash block (RP2040: 45 ms typical, 400 ms at most) before it answers
ADAPTERS_S = 0.05  # FTDI holds back short data for 16 ms each way (facts/gateway.md, 10), and the scheduler's share

What = TypeVar("What")


def answer_within_s(question_bytes: int, baud: int) -> float:
    """How long a question and the longest answer can take: bytes on the line, the board's turn-round, the adapters."""
    on_the_line = question_bytes + frame.MAX_FRAME_BYTES + 2 * len(frame.DELIMITER)
    return on_the_line * BITS_A_BYTE / baud + BOARD_TURNS_ROUND_S + ADAPTERS_S


class Answer(NamedTuple, Generic[What]):
    """asked_s, answered_s: just before the question was first written, when the answer was there (monotonic)."""

    what: What
    asked_s: float
    answered_s: float
    repeated: bool


class Exchange:
    """Asks on one line, one question at a time."""

    def __init__(self, line: SerialLine, clock: Clock, health: Health) -> None:
        self._line = line
        self._clock = clock
        self._health = health
        self._subject = f"line {line.name}"

    async def ask(
        self,
        question: Callable[[], Frame | None],
        judge: Callable[[Frame], What | None],
        times: int,
        ahead: bytes = b"",
    ) -> Answer[What] | None:
        """The answer, or None when there was none in time.

        question: the frame to send next, or None: ask no more. judge: what a frame that came answers, or None.
        times: how often it is asked, at most. ahead: frames that have no answer, sent once before it. Raises LineLost.
        """
        first_s = 0.0
        for attempt in range(times):
            asked = question()
            if asked is None:
                return None
            data = asked.to_bytes()
            self._line.forget()
            # The zero ahead closes whatever noise the line has left in the board's decoder.
            # Before the write: the process may be held up behind it while the board already reads its clock.
            asked_s = self._clock.monotonic_s()
            self._line.write(ahead + frame.DELIMITER + data)
            if attempt:
                self._health.count(self._subject, "questions repeated")
            else:
                first_s = asked_s
            until_s = asked_s + answer_within_s(len(ahead) + len(data) + 1, self._line.baud)
            ahead = b""
            while (received := await self._line.frame(until_s)) is not None:
                what = judge(received[0])
                if what is not None:
                    return Answer(what, first_s, received[1], attempt > 0)
                self._health.count(self._subject, "frames unasked")
        return None

    def tell(self, frame_to_send: Frame) -> None:
        """Sends what has no answer. Raises LineLost."""
        self._line.write(frame.DELIMITER + frame_to_send.to_bytes())
