"""A box of boards, flashed and enrolled one after the other as they are plugged in.

Which boards there are to be says a table, or a first id and a number. A row is done when the registry says that its
board has confirmed its credential: so the command is stopped anywhere and given again, with the same box. Which row a
board becomes:

    it was begun before (its key stands in the registry)      that row
    it is enrolled, by a row of this box                      that row; nothing is to be done
    it is enrolled, otherwise                                 none: it is left as it is
    it is new                                                 the first row that is open, in the table's order

A board that fails is told, and takes no row away: the next one gets it.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from laterne_protocol import credential
from laterne_protocol.release_file import Release
from laterne_provisioning import enrol, interpreters, keys
from laterne_provisioning.authority import Authority
from laterne_provisioning.batch import ALREADY, ENROLLED, FAILED, MAX_ROWS, Row
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import steps
from laterne_provisioning.flashing.repl import NoRepl
from laterne_provisioning.line import Line
from laterne_provisioning.registry import ENDED, Board, Registry

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What a board on a USB port has come to: ENROLLED, ALREADY or FAILED. board: as what, None: as nothing of ours.

    said: the reason, or its key in words. written: how many files.
    """

    port: str
    result: str
    board: Board | None
    said: str
    written: int = 0


@dataclass(frozen=True)
class Way:
    """How a board is flashed: as the options of `laterne flash` say."""

    release: Release
    model: str | None
    settings: dict[str, int] | None
    decision: bool


def counted(first: str, number: int) -> list[Row]:
    """Rows from this id on: LE-0007, LE-0008, ... Raises UsageError."""
    found = re.fullmatch(r"(.*?)([0-9]+)", first)
    if found is None:
        raise UsageError(f"{first} ends in no number: it cannot be counted on. Give such an --id, or --csv.")
    if not 0 < number <= MAX_ROWS:
        raise UsageError(f"--count is 1 to {MAX_ROWS}.")
    name, begin = found[1], int(found[2])
    rows = [Row(0, f"{name}{begin + at:0{len(found[2])}}", None, None) for at in range(number)]
    for row in rows:
        enrol.check_ids(row.board, None)
    return rows


class Box:
    """The rows, the registry that says which are done, and the lines on which boards are enrolled.

    key: the enrolment key, opened. line_of: the line that belongs to a USB port. Raises UsageError: a row cannot become
    a board any more.
    """

    def __init__(
        self,
        authority: Authority,
        registry: Registry,
        key: keys.SigningKey,
        rows: Sequence[Row],
        line_of: Callable[[str], str],
    ) -> None:
        self._authority = authority
        self._registry = registry
        self._key = key
        self._rows = list(rows)
        self._line_of = line_of
        for row in self._rows:
            board = registry.board(row.board)
            if board is not None and board.state in ENDED:
                raise UsageError(f"{row.board} is {board.state}: its id is used up. Take it out. Nothing was done.")

    def open(self) -> list[Row]:
        """Rows whose board has not confirmed its credential yet."""
        return [row for row in self._rows if self._delivered(row.board) is None]

    def boards(self) -> list[Board]:
        """Those that are done, in the order of the rows."""
        return [board for row in self._rows if (board := self._delivered(row.board)) is not None]

    def take(self, port: str, way: Way, say: Say) -> Result:
        """Flash and enrol the board on this USB port."""
        written, version = 0, None
        try:
            try:
                flashed = steps.flashed(port, way.release, way.model, way.settings, say)
                written, hardware, version = flashed.written.written, flashed.hardware, flashed.found.dotted
            except NoRepl:
                hardware = None  # it runs already, and is enrolled: the line says as what
            done = replace(self._enrolled(port, way, hardware, say), written=written)
            if version is not None and done.board is not None:
                interpreters.note(self._authority.log, done.board.id, version)
            return done
        except OperatorError as why:
            return Result(port, FAILED, None, str(why), written)

    def _enrolled(self, port: str, way: Way, hardware: bytes | None, say: Say) -> Result:
        with Line(self._line_of(port)) as line:
            found = enrol.identity(line)
            row = self._row_of(line, None if found is None else found.kid)
            if row is None:
                if found is None:
                    return Result(port, ALREADY, None, "It is enrolled, and not by this box: it was left as it is.")
                return Result(port, FAILED, None, "No row is left for it: the box is done. It has its release.")
            board_id = row.board
            done = enrol.enrol(
                line,
                self._authority,
                self._registry,
                self._key,
                board_id,
                row.place,
                int(time.time()),
                say,
                way.decision,
            )
        steps.require_same(hardware, done.board.hardware, board_id, port, line.port)
        words = enrol.fingerprint(credential.kid(done.board.sign_key))
        return Result(port, ALREADY if done.already else ENROLLED, done.board, words)

    def _row_of(self, line: Line, kid: bytes | None) -> Row | None:
        rows = {row.board: row for row in self._rows}
        begun = [board for board in self._registry.boards() if board.id in rows]
        if kid is None:
            board = enrol.whose(line, begun)
        else:
            board = next((board for board in begun if credential.kid(board.sign_key) == kid), None)
        if board is not None:
            return rows[board.id]
        if kid is None:
            return None
        taken = {board.id for board in begun}
        return next((row for row in self._rows if row.board not in taken), None)

    def _delivered(self, board_id: str) -> Board | None:
        board = self._registry.board(board_id)
        return board if board is not None and board.delivered is not None else None


def lines_for(usb: str | None, line: str) -> Callable[[str], str]:
    """Which line belongs to a USB port: always the same one; or, where both have one *, what the * stands for.

    Raises UsageError.
    """
    if "*" not in line:
        return lambda port: line
    if usb is None or usb.count("*") != 1 or line.count("*") != 1:
        raise UsageError("A --line with a * needs one --port-from with one *: what it stands for is put into both.")
    before, _, after = usb.partition("*")

    def of(port: str) -> str:
        return line.replace("*", port[len(before) : len(port) - len(after)])

    return of
