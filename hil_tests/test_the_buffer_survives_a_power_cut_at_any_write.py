"""P1 on the gateway's disk: whatever a power cut leaves of the database files, nothing that was promised is missing.

A whole gateway works in fast time while all its writes and syncs are recorded, together with what boards and the
broker were told: board B was acknowledged up to N, the broker has acknowledged report R. Then its files are rebuilt as
a power cut at any moment may leave them, with what was not synced there, dropped, reordered or torn, and a new gateway
opens them. Each report must be where somebody still delivers it from: on its board, in the buffer above the cursor, or
at the broker. Nothing may be doubled or out of order, and the new gateway must be able to go on.

A record depends on the machine's timing. That of a failed case is kept, and LATERNE_RECORD=FILE plays it again.
"""

import asyncio
import os
import pickle
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GATEWAY
from tests.gateway.street import Platform, quick, street
from tests.servers import Mosquitto

from laterne_emulator import coordinator
from laterne_emulator.crash_states import Loss, Playback
from laterne_emulator.fast_time import FastLoop
from laterne_emulator.proxy import PUBACK, PUBLISH, Do, Packet, packet_identifier, topic_and_payload
from laterne_emulator.recorded_disk import Mark, Operation, RecordedDisk, Sync
from laterne_gateway import salvage
from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import SystemClock
from laterne_gateway.config import BufferSettings
from laterne_gateway.database import FILE_NAME
from laterne_gateway.dates import Dates
from laterne_gateway.health import Health
from laterne_gateway.inbox import Inbox
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.trusts import TrustKeeper
from laterne_protocol import roster

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps
    from laterne_emulator.sweep import Case

RECORDS = 4
CASES = 3600  # crash states, of all records together
ROUNDS = 160  # of reports in a record: the log is carried over into the database once in about 1000 pages
SENT_AGAIN = 3  # reports that each board offers to the gateway that starts after the cut
RECORD_VARIABLE = "LATERNE_RECORD"
WITHIN_S = 600.0


@dataclass(frozen=True)
class Acknowledged:
    """The board has read that everything up to this sequence is on disk: it forgets it now."""

    board: str
    sequence: int


@dataclass(frozen=True)
class Delivered:
    """The broker has sent the PUBACK of this report."""

    board: str
    body: bytes


@dataclass
class Record:
    """operations: of the disk, with marks of what others were told. closed: board -> sequence -> signed bytes."""

    operations: list[Operation]
    entries: dict[str, roster.Entry]
    closed: dict[str, dict[int, bytes]] = field(default_factory=dict)

    @cached_property
    def marks(self) -> list[tuple[int, Mark]]:
        """With their places among the operations."""
        return [(at, one) for at, one in enumerate(self.operations) if isinstance(one, Mark)]


class TellingBoard(FakeBoard):
    """A board that says what it is told."""

    log: list[Operation]

    def answer(self, question: object) -> bytes | None:
        before = self.acknowledged
        said = super().answer(question)  # type: ignore[arg-type]  # handed on as it came
        if self.acknowledged > before:
            self.log.append(Mark(Acknowledged(self.name, self.acknowledged)))
        return said


class Pubacks:
    """The proxy's rule: everything passes, and each PUBACK of a report is marked."""

    def __init__(self, log: list[Operation]) -> None:
        self._log = log
        self._under_way: dict[tuple[int, int], Packet] = {}

    def __call__(self, packet: Packet) -> Do:
        if packet.kind == PUBLISH and packet.way == "up":
            self._under_way[packet.connection, packet_identifier(packet)] = packet
        elif packet.kind == PUBACK and packet.way == "down":
            topic, payload = topic_and_payload(self._under_way[packet.connection, packet_identifier(packet)])
            if topic.endswith("/report"):
                self._log.append(Mark(Delivered(topic.split("/")[4], payload)))
        return Do.PASS


async def _record(directory: Path, broker: Mosquitto, disk: RecordedDisk, dice: random.Random) -> Record:
    """A gateway's first minutes: boards with a backlog, then a few reports at a time, then it is stopped."""
    boards = [quick(TellingBoard(f"{directory.name}-{number}", number)) for number in (1, 2, 3)]
    state = directory / "state"
    with disk.record(state) as log:
        for board in boards:
            board.log = log
            board.close_reports(dice.randrange(10, 40))
        async with Platform(broker) as platform, street(directory, broker, boards) as place:
            place.proxy.rule = Pubacks(log)
            async with asyncio.timeout(WITHIN_S), place.running():
                for _ in range(ROUNDS):
                    for board in boards:
                        board.close_reports(dice.randrange(3))
                    await asyncio.sleep(dice.uniform(0.1, 0.8))
                await platform.until(lambda: platform.has_all(list(boards)))
    entries = {board.name: board.entry() for board in boards}
    return Record(list(log), entries, {board.name: dict(board.taken) for board in boards})


async def _judge(directory: Path, record: Record, playback: Playback, case: "Case") -> coordinator.Outcome:
    """Cuts the power at a moment of the case and lets a new gateway begin with what is left."""
    loss = case.dice.choice(list(Loss))
    moment = case.dice.randrange(len(record.operations) + 1)
    told, delivered = _promised(mark for at, mark in record.marks if at < moment)
    for former in directory.iterdir():
        former.unlink()
    for name, content in playback.crash(moment, loss, case.dice).items():
        (directory / name).write_bytes(content)
    if case.dice.random() < 0.5:
        (directory / f"{FILE_NAME}-shm").write_bytes(case.dice.randbytes(32768))  # it means nothing after a start
    health = Health()
    buffer = Buffer(directory, ("mqtt",), BufferSettings(), health)
    try:
        await buffer.opened()
        trusts = TrustKeeper(directory / "trust", buffer, health)
        keeper = RosterKeeper(GATEWAY, trusts, directory / "roster", buffer, health)
        inbox = Inbox(keeper, buffer, SystemClock(), health, Dates())
        for board, entry in record.entries.items():
            _send_again(inbox, entry, {n: body for n, body in record.closed[board].items() if n > told.get(board, 0)})
        await inbox.settle()
        rows = [row for lane in buffer.part("mqtt") for row in await buffer.oldest(lane.delivered, 100_000, lane.upto)]
        reached = {board: inbox.after(entry) for board, entry in record.entries.items()}
        tallies = await buffer.tallies()
    finally:
        await buffer.close()
    closed = {
        board: {n: body for n, body in bodies.items() if n <= max(reached[board], told.get(board, 0))}
        for board, bodies in record.closed.items()
    }
    outcome = coordinator.compare(closed, [*delivered, *(coordinator.Delivered(row.board, row.body) for row in rows)])
    for board, sequence in told.items():
        if reached[board] < sequence:
            outcome.problems.append(f"{board}: acknowledged up to {sequence}, the disk says {reached[board]}")
    if tallies["set aside"] or tallies["gaps to tell"] or salvage.set_aside_files(directory):
        outcome.problems.append(f"a power cut is no damage: {tallies}")
    return outcome


def _promised(marks: Iterable[Mark]) -> tuple[dict[str, int], list[coordinator.Delivered]]:
    """board -> acknowledged up to; and what the broker has, in order."""
    told: dict[str, int] = {}
    delivered: list[coordinator.Delivered] = []
    for mark in marks:
        match mark:
            case Mark(Acknowledged(board, sequence)):
                told[board] = sequence
            case Mark(Delivered(board, body)):
                delivered.append(coordinator.Delivered(board, body))
    return told, delivered


def _send_again(inbox: Inbox, entry: roster.Entry, held: dict[int, bytes]) -> None:
    for _ in range(SENT_AGAIN):
        wanted = [sequence for sequence in held if sequence > inbox.after(entry)]
        if wanted:
            inbox.take(entry, held[min(wanted)])


async def _records(directory: Path, broker: Mosquitto, seed: int) -> list[Record]:
    if given := os.environ.get(RECORD_VARIABLE):
        found: Record = pickle.loads(Path(given).read_bytes())  # noqa: S301 - a file that this test has written
        return [found]
    disk = RecordedDisk()
    return [
        await _record(directory / f"record-{number}", broker, disk, random.Random(f"{seed} record {number}"))
        for number in range(RECORDS)
    ]


def test_what_was_promised_is_there_after_a_power_cut_at_any_write(
    tmp_path: Path, broker: Mosquitto, memory: Path, fault_sweep: "FaultSweeps", request: pytest.FixtureRequest
) -> None:
    sweep = fault_sweep("database", quick=CASES)
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        records = runner.run(_records(tmp_path, broker, sweep.seed))
    for record in records:
        _says_much(record)
    playbacks = [Playback(record.operations) for record in records]
    with asyncio.Runner() as runner:
        for case in sweep:
            record = records[case.number % len(records)]
            with case:
                try:
                    outcome = runner.run(_judge(memory, record, playbacks[case.number % len(records)], case))
                    case.survived(**outcome.counts)
                    outcome.check()
                except Exception as why:
                    why.add_note(f"with {RECORD_VARIABLE}={_keep(record, case, request.config.rootpath)}")
                    raise


def _says_much(record: Record) -> None:
    """A record that would not show a mistake is no record."""
    log = record.operations
    synced = {operation.file for operation in log if isinstance(operation, Sync)}
    assert {FILE_NAME, f"{FILE_NAME}-wal"} <= synced
    carried_over = [operation for operation in log if isinstance(operation, Sync) and operation.file == FILE_NAME]
    assert len(carried_over) >= 2, "the log was never carried over into the database while it was in use"
    marks = [operation.what for operation in log if isinstance(operation, Mark)]
    assert sum(isinstance(what, Delivered) for what in marks) > ROUNDS
    assert sum(isinstance(what, Acknowledged) for what in marks) > ROUNDS


def _keep(record: Record, case: "Case", root: Path) -> Path:
    folder = root / "build" / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{case.name}.pickle"
    file.write_bytes(pickle.dumps(record))
    return file
