"""Boards that speak the real protocol over a real PTY, and a line that can be given faults.

They run in the test's event loop. A board signs real reports, keeps its backlog, and forgets what is acknowledged, as
the firmware does; what it forgot stays in `taken`, so that a test can compare both ends.
"""

import asyncio
import contextlib
import os
import random
import tty
from collections.abc import Callable
from pathlib import Path

from tests.gateway.board_orders import BoardOrders
from tests.gateway.board_sessions import BoardSessions
from tests.gateway.board_updates import BoardUpdates
from tests.gateway.fake_authority import FakeAuthority, Key

from laterne_protocol import credential, frame, messages, report, roster
from laterne_protocol.frame import Frame, FrameDecoder

Arrange = Callable[[list[bytes]], list[bytes]]

FIRST_REPORTS_MS = 70_000  # since boot
SEGMENT_REPORTS = 64  # in a file of its backlog; their numbers are reserved together (laterne_firmware.segment)


class FakeBoard:
    """boot, clock: as a board keeps them. taken: every report it ever closed: sequence -> signed bytes."""

    def __init__(self, name: str = "LE-0007", address: int = 1) -> None:
        self.name = name
        self.address = address
        self.key = Key()
        self.agree_key = Key()
        self.credential_digest = os.urandom(credential.DIGEST_BYTES)
        self.boot = 1
        self.utc_ms: int | None = None  # when the next report closes, for a board that knows the time
        self.due_ms = 100
        self.backlog: dict[int, bytes] = {}
        self.taken: dict[int, bytes] = {}
        self.acknowledged = 0
        self._began_s: float | None = None
        self._closed_ms: dict[tuple[int, int], int] = {}  # by boot and sequence
        self.time: tuple[int, int, int] | None = None
        self.questions = 0
        self.enrolled = True
        self.silent = False
        self.sessions = BoardSessions(name, self.agree_key.secret, self.agree_key.public, address)
        self.orders = BoardOrders(self)
        self.updates = BoardUpdates()
        self.busy = 0  # so many questions are declined
        self.at_once = messages.MAX_REPORTS
        self.answer_with: Callable[[bytes | None], bytes | None] = lambda body: body
        self.arrange: Arrange = lambda bodies: bodies  # of an answer
        self.forgot = asyncio.Event()
        self._after: int | None = None
        self._room = report.MAX_REPORT_BYTES + 3
        self._sequence = 0
        self._segment = 1  # as on flash: the first number of the newest segment, of SEGMENT_REPORTS
        self._former = self.credential_digest
        self._gaps: list[list[int]] = []  # for the next report to state

    def entry(self) -> roster.Entry:
        return roster.Entry(self.name, self.key.public, self.agree_key.public, 0, self.credential_digest, None)

    def meet(self, authority: FakeAuthority) -> None:
        """As the enrolment does: from now on it believes this authority, if it did not believe one before."""
        self.sessions.trust = self.updates.trust = self.sessions.trust or authority.trust()

    def restart(self) -> None:
        """The power was gone for a moment: its sessions are lost."""
        self.boot += 1
        self._began_s = None
        self.sessions.restart()
        self.updates.restart()

    def receive(self, asked: Frame) -> Frame | None:
        """The answer to a frame for this board, or None."""
        if self.silent:
            return None
        if not self.enrolled:
            said = self._say(asked.payload) if asked.kind == frame.MESSAGE else None
            return None if said is None else Frame(frame.MESSAGE, asked.source, self.address, said)
        return self.sessions.receive(asked, asyncio.get_running_loop().time(), self._say)

    def _say(self, payload: bytes) -> bytes | None:
        return self.answer(messages.message_of(payload))

    def make(
        self,
        sequence: int,
        previous: bytes,
        *,
        board: str | None = None,
        gaps: list[list[int]] | None = None,
        readings: int = 4,
        key: Key | None = None,
        domain: str = "laterne/report/1",
    ) -> tuple[bytes, bytes]:
        """A signed report and its digest, true or false as asked for."""
        column = report.ColumnWriter(1)
        for index in range(readings):
            column.add(2150 + index % 7)
        columns = [report.Column(1, bytes(column.packed), column.quality)]
        times = report.times_of([1000 * (index + 1) for index in range(readings)], 1000 * readings + 5)
        clock = (report.NEVER_SET, None, 0) if self.utc_ms is None else (report.SET, self.utc_ms, 15)
        content = report.Report(
            board or self.name, sequence, previous, self.boot, self._closed(sequence), clock, times, columns, gaps or []
        )
        payload = content.to_payload()
        return (key or self.key).sign(domain, payload), report.digest(payload)

    def close_reports(self, count: int = 1, readings: int = 4) -> None:
        for _ in range(count):
            self._sequence += 1
            if self._sequence >= self._segment + SEGMENT_REPORTS:
                self._segment = self._sequence
            gaps, self._gaps = self._gaps, []
            body, self._former = self.make(self._sequence, self._former, readings=readings, gaps=gaps)
            self.backlog[self._sequence] = self.taken[self._sequence] = body

    def lose(self, count: int) -> None:
        """So many numbers are used and their reports lost; the next report says so."""
        first = self._sequence + 1
        self._sequence += count
        gaps = [[first, self._sequence, report.DAMAGED]]
        self._sequence += 1
        body, self._former = self.make(self._sequence, os.urandom(16), gaps=gaps)
        self.backlog[self._sequence] = self.taken[self._sequence] = body

    def clone(self) -> "FakeBoard":
        """Another board with this one's keys and memory."""
        other = FakeBoard(self.name, self.address)
        other.key, other.agree_key, other.credential_digest = self.key, self.agree_key, self.credential_digest
        other.sessions = BoardSessions(self.name, self.agree_key.secret, self.agree_key.public, self.address)
        other._sequence, other._former, other._segment = self._sequence, self._former, self._segment
        return other

    def ticks_ms(self) -> int:
        now_s = asyncio.get_running_loop().time()
        if self._began_s is None:
            self._began_s = now_s - FIRST_REPORTS_MS / 1000
        return int((now_s - self._began_s) * 1000)

    def _closed(self, sequence: int) -> int:
        """When the report was closed: once, however often it is made again."""
        try:
            now_ms = self.ticks_ms()
        except RuntimeError:  # before the test's loop runs: just before its first answer
            now_ms = FIRST_REPORTS_MS
        return self._closed_ms.setdefault((self.boot, sequence), now_ms)

    def answer(self, question: "messages.Message") -> bytes | None:
        if isinstance(question, messages.Data):
            self.updates.take(question)
            return None
        if isinstance(question, messages.Update):
            return None if self.updates.is_deaf else self.updates.answer(question).to_bytes()
        self.questions += 1
        if self.busy:
            self.busy -= 1
            return messages.Refusal(question.number, messages.NOT_READY).to_bytes()
        if isinstance(question, messages.Hello):
            name = self.name if self.enrolled else None
            held = self.sessions.held() if self.enrolled else None
            return messages.Identity(question.number, name, self.key.kid, self.boot, "0.1.0", "fake", held).to_bytes()
        if isinstance(question, messages.Enrolment) and question.step == messages.TRUST:
            return self.sessions.judge_trust(question).to_bytes()
        if isinstance(question, messages.Enrolment):
            return self.orders.answer(question)
        if not isinstance(question, messages.Poll):
            return None
        self.time = question.time or self.time
        if question.acknowledged is not None:
            for sequence in [one for one in self.backlog if one <= question.acknowledged]:
                del self.backlog[sequence]
            self.acknowledged = max(self.acknowledged, question.acknowledged)
            self.forgot.set()
            self._skip(question.acknowledged)
        after = question.after
        wanted = [] if after is None else [one for one in sorted(self.backlog) if one > after]
        found = [self.answer_with(self.backlog[one]) for one in wanted[: self.at_once]] or [self.answer_with(None)]
        bodies = [body for body in found if body is not None]
        # As a board (laterne_firmware.link).
        self._room = 0 if after == self._after else min(2 * self._room + 120, report.MAX_REPORT_BYTES + 3)
        self._after = after
        while len(bodies) > 1 and sum(len(body) + 3 for body in bodies) > self._room:
            del bodies[-1]
        return messages.ReportAnswer(
            question.number, self.boot, self.ticks_ms(), self.due_ms, len(self.backlog), self.arrange(bodies)
        ).to_bytes()

    def _skip(self, acknowledged: int) -> None:
        """As a board does (Backlog.skip) when the gateway has a report that it does not know."""
        bound = self._segment + SEGMENT_REPORTS
        if self._sequence < acknowledged < bound:
            self._gaps = [[acknowledged + 1, bound, report.OVERTAKEN]]
            self._sequence = bound

    async def forgets(self, sequence: int) -> None:
        """Waits until everything up to this sequence has been acknowledged."""
        while self.acknowledged < sequence:
            self.forgot.clear()
            await self.forgot.wait()


class FakeLine:
    """A PTY with boards at its far end; `path` is a link that survives unplugging, as /dev/serial/by-id does.

    lose: chance that a byte sent by a board is lost. damage: that a whole answer is replaced by noise.
    late_s: how long a board takes to answer, asked before each answer.
    to_boards, to_gateway: whoever sits between: what arrives of a frame there, itself by default.
    tapped: every byte so far, if somebody listens.
    """

    def __init__(self, path: Path, boards: list[FakeBoard], seed: int = 1) -> None:
        self.path = path
        self.boards = boards
        self.random = random.Random(seed)
        self.lose = 0.0
        self.damage = 0.0
        self.late_s: Callable[[], float] = lambda: 0.0
        self.to_boards: Callable[[Frame], list[Frame]] = lambda one: [one]
        self.to_gateway: Callable[[Frame], list[Frame]] = lambda one: [one]
        self.tapped: bytearray | None = None
        self._controller: int | None = None
        self._babble: asyncio.Task[None] | None = None
        self.plug_in()

    def plug_in(self) -> None:
        self._controller, terminal = os.openpty()
        tty.setraw(terminal)
        os.set_blocking(self._controller, False)
        self._terminal = terminal  # kept open: the other end may come and go
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(terminal))
        self._decoder = FrameDecoder()
        asyncio.get_running_loop().add_reader(self._controller, self._readable, self._controller)

    def unplug(self) -> None:
        if self._controller is not None:
            asyncio.get_running_loop().remove_reader(self._controller)
            os.close(self._controller)
            os.close(self._terminal)
            self.path.unlink(missing_ok=True)
            self._controller = None

    def babble(self) -> None:
        """From now on random bytes as fast as the line takes them."""
        self._babble = asyncio.create_task(self._noise())

    async def close(self) -> None:
        if self._babble is not None:
            self._babble.cancel()
            await asyncio.wait([self._babble])
        self.unplug()

    async def _noise(self) -> None:
        while self._controller is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(self._controller, self.random.randbytes(4096))
            await asyncio.sleep(0)

    def _readable(self, controller: int) -> None:
        try:
            data = os.read(controller, 65536)
        except OSError:  # nobody has the other end open
            return
        if self.tapped is not None:
            self.tapped += data
        for one in self._decoder.feed(data):
            for arriving in self.to_boards(one):
                self.reach_boards(arriving)

    def reach_boards(self, one: Frame) -> None:
        """A frame arrives at the boards; what they answer goes back."""
        for board in self.boards:
            if one.destination in (board.address, frame.ANY_BOARD):
                answer = board.receive(one)
                for arriving in [] if answer is None else self.to_gateway(answer):
                    self.reach_gateway(arriving)

    def reach_gateway(self, one: Frame) -> None:
        """A frame goes to the gateway as a board sends it (laterne_firmware.line), with the line's faults."""
        data = frame.DELIMITER + one.to_bytes()
        if self.random.random() < self.damage:
            data = self.random.randbytes(len(data))
        if self.lose:
            data = bytes(byte for byte in data if self.random.random() >= self.lose)
        late_s = self.late_s()
        if late_s:
            asyncio.get_running_loop().call_later(late_s, self._send, self._controller, data)
        else:
            self._send(self._controller, data)

    def _send(self, controller: int | None, data: bytes) -> None:
        if controller is None or controller != self._controller:
            return  # unplugged meanwhile
        if self.tapped is not None:
            self.tapped += data
        with contextlib.suppress(BlockingIOError):  # the other end does not read: the bytes are lost, as on a line
            os.write(controller, data)
