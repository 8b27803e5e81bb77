"""Boards for benchmarks: a process that answers on many lines as fast as it can, so that the gateway is the limit.

Reports are made, signed and encoded before anything is measured. What is done live is what only a session can do: each
question is opened and each answer is sealed, by the real Session with the real ciphers, after a real handshake. A line
is a PTY that is not paced. The process is forked: it inherits boards, reports and lines, and shares nothing back.
"""

import multiprocessing
import os
import selectors
import time
import tty
from ctypes import Array, c_int
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard

from laterne_protocol import cbor, frame, messages
from laterne_protocol.board_messages import POLL, REPORT
from laterne_protocol.channels import HUMIDITY, ILLUMINANCE, PRESSURE, TEMPERATURE
from laterne_protocol.cose import REPORT as REPORT_DOMAIN
from laterne_protocol.frame import FrameDecoder
from laterne_protocol.report import MAX_REPORT_BYTES, SET, Column, ColumnWriter, Report, digest, times_of
from laterne_protocol.update_messages import IDLE, Progress

CHANNELS = (TEMPERATURE, HUMIDITY, PRESSURE, ILLUMINANCE)
REPORT_MS = 60_000
DUE_MS = 500  # without a report: ask again so soon
BOOT = 3


class QuickBoard:
    """A board with a backlog of signed reports. It gives as many of them as are released."""

    def __init__(self, name: str, address: int, number: int) -> None:
        self.number = number
        self.whole = FakeBoard(name, address)
        self.whole.sessions.bucket.refill_s = 0.01  # a run is short, and its gateway a friend
        self.address = address
        self.reports: list[bytes] = []  # the last item of an answer: the signed bytes as a CBOR byte string

    def close_reports(self, count: int, readings: int) -> None:
        """count reports of `readings` readings, a minute apart, the newest closed now; four channels on one grid."""
        key, former = self.whole.key, self.whole.credential_digest
        each = readings // len(CHANNELS)
        now_ms = int(time.time() * 1000)
        for sequence in range(1, count + 1):
            closed_ms = sequence * REPORT_MS
            times = times_of([closed_ms - REPORT_MS * (each - index) // each for index in range(each)], closed_ms)
            columns = []
            for channel in CHANNELS:
                writer = ColumnWriter(channel)
                for index in range(each):
                    writer.add(2150 + channel * 100 + (sequence * 7 + index * 3) % 11)
                columns.append(Column(channel, writer.packed, []))
            utc_ms = now_ms - (count - sequence) * REPORT_MS
            made = Report(
                self.whole.name, sequence, former, BOOT, closed_ms, (SET, utc_ms, 15), times, columns, []
            ).to_payload()
            former = digest(made)
            self.reports.append(cbor.encode(key.sign(REPORT_DOMAIN, made)))

    def answer(self, question: bytes, released: int) -> bytes:
        """The answer to a message of the session, 19 us instead of 60 by leaving out what only a board must check."""
        items = cbor.decode(question)
        assert isinstance(items, list)
        kind, number = items[:2]
        if kind == messages.Hello(0).to_bytes()[1]:
            return messages.Identity(number, self.whole.name, self.whole.key.kid, BOOT, "0.1.0", "quick").to_bytes()
        if kind != POLL:  # how far its update is: there is none
            return Progress(number, IDLE, None, 0, None, 0, 0, bytes(8)).to_bytes()
        after = items[3]
        waiting = max(0, released - after)
        head = [REPORT, number, BOOT, int(time.monotonic() * 1000) & 0x3FFFFFFF, 0 if waiting else DUE_MS, waiting]
        bodies, room = [], MAX_REPORT_BYTES + 3  # as many as a board hands over (firmware's link.py)
        for one in self.reports[after : max(after, released)]:
            room -= len(one)
            if room < 0:
                break
            bodies.append(one)
        return b"\x87" + b"".join(map(cbor.encode, head)) + bytes((0x80 + len(bodies),)) + b"".join(bodies)


class Line:
    """A PTY with boards at its far end. path: a link to it."""

    def __init__(self, path: Path, boards: list[QuickBoard]) -> None:
        self.path = path
        self.boards = boards
        self._decoder = FrameDecoder()
        self.controller, self._terminal = os.openpty()
        tty.setraw(self._terminal)
        os.set_blocking(self.controller, False)
        path.symlink_to(os.ttyname(self._terminal))

    def close(self) -> None:
        os.close(self.controller)
        os.close(self._terminal)
        self.path.unlink()

    def readable(self, released: "Array[c_int]") -> None:
        for asked in self._decoder.feed(os.read(self.controller, 65536)):
            for board in self.boards:
                if asked.destination in (board.address, frame.ANY_BOARD):
                    say = partial(board.answer, released=released[board.number])
                    answer = board.whole.sessions.receive(asked, time.monotonic(), say)
                    if answer is not None:
                        os.write(self.controller, answer.to_bytes())


class Street:
    """So many lines with so many boards on each, and the process that speaks for them."""

    def __init__(self, lines: int, boards_a_line: int, reports_a_board: int, readings: int) -> None:
        self.readings = readings
        self.reports_a_board = reports_a_board
        self._lines_of_boards = [
            [
                QuickBoard(f"LE-{line:02}{address:02}", address, (line - 1) * boards_a_line + address - 1)
                for address in range(1, boards_a_line + 1)
            ]
            for line in range(1, lines + 1)
        ]
        for board in self.boards:
            board.close_reports(reports_a_board, readings)
        self.lines: list[Line] = []
        self._released = RawArray(c_int, len(self.boards))  # shared with the process
        self._process: multiprocessing.process.BaseProcess | None = None

    @property
    def boards(self) -> list[QuickBoard]:
        return [board for line in self._lines_of_boards for board in line]

    @property
    def reports(self) -> int:
        return len(self.boards) * self.reports_a_board

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    def begin(self, folder: Path, url: str) -> Path:
        """In this folder, new: lines, all files of a gateway that serves them; and a process for the boards.

        The gateway's configuration, for the broker at this URL. Nothing is released yet.
        """
        authority = FakeAuthority("gw-1")
        self._released[:] = [0] * len(self.boards)
        for board in self.boards:
            board.whole.sessions.restart()
            board.whole.sessions.trust = authority.trust()
        config = self._write(folder, authority, url)
        self.lines = [Line(folder / f"line{index}", boards) for index, boards in enumerate(self._lines_of_boards, 1)]
        self._process = multiprocessing.get_context("fork").Process(target=self._serve, daemon=True)
        self._process.start()
        return config

    def _write(self, folder: Path, authority: FakeAuthority, url: str) -> Path:
        key = Key()
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "agree.key").write_bytes(key.pem())
        (folder / "state" / "agree.key").chmod(0o600)
        (folder / "gateway.cbor").write_bytes(authority.gateway_file(key.public))
        (folder / "trust.cbor").write_bytes(authority.trust_file())
        (folder / "roster.cbor").write_bytes(authority.roster_file([board.whole.entry() for board in self.boards]))
        config = folder / "gateway.toml"
        config.write_text(
            '[gateway]\nid = "gw-1"\ntenant = "bench"\ndirectory = "state"\n'
            'trust = "trust.cbor"\nroster = "roster.cbor"\ncredential = "gateway.cbor"\n'
            f'[mqtt]\nurl = "{url}"\n'
            + "".join(
                f'[[line]]\nname = "line{index}"\npath = "line{index}"\n'
                f"boards = {[board.address for board in boards]}\n"
                for index, boards in enumerate(self._lines_of_boards, 1)
            )
        )
        return config

    def release(self) -> None:
        """From now on boards give their reports."""
        self._released[:] = [self.reports_a_board] * len(self.boards)

    def release_one(self, board: int) -> None:
        """The board closes one report more."""
        self._released[board] += 1

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.join()
        for line in self.lines:
            line.close()
        self.lines = []

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for line in self.lines:
                selector.register(line.controller, selectors.EVENT_READ, line)
            while True:
                for key, _ in selector.select():
                    key.data.readable(self._released)
