"""An update has what is left of a bus: 32 boards, one of which is updated, and no report waits longer than a burst.

In a loop whose time counts only what it waits for (laterne_emulator.fast_time): what is measured here are the line's
bytes and the order in which boards are asked, not this machine.
"""

import asyncio
from pathlib import Path

from tests.gateway.fake_board import FakeBoard
from tests.gateway.fake_releases import contents, release
from tests.gateway.parts import Parts, until
from tests.gateway.street import LoopClock, quick
from tests.gateway.wired import WiredLine

from laterne_emulator.fast_time import FastLoop
from laterne_gateway.bus import BURST_S, Bus
from laterne_gateway.contact import Contact

BOARDS = 32
TURN_S = 0.1  # the question after a burst, and its answer


class WatchedBus(Bus):
    """updates: when each began and how long it took. late: contacts that were due when one began.

    served: how often somebody was asked something else.
    """

    updates: list[tuple[float, float]]
    late: list[tuple[int, float]]
    served: int

    async def _serve(self, contact: Contact, now_s: float) -> None:
        self.served += 1
        await super()._serve(contact, now_s)

    async def _update(self, contact: Contact, began_s: float) -> None:
        self.late += [(one.address, began_s - one.next_s()) for one in self._contacts if one.next_s() <= began_s]
        await super()._update(contact, began_s)
        self.updates.append((began_s, self._clock.monotonic_s() - began_s))


def test_no_report_waits_longer_than_a_burst_because_another_board_is_updated(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        bus, updated_s = runner.run(street(tmp_path))
    while_updating = [took_s for began_s, took_s in bus.updates if took_s > TURN_S / 4]
    assert len(while_updating) > 8
    assert max(while_updating) <= BURST_S + TURN_S, "nobody waits longer than this for an update"
    assert bus.late == [], "none began while somebody was due"
    share = sum(took_s for _, took_s in bus.updates) / updated_s
    assert share <= 0.85, "others have their part of the time"


async def street(directory: Path) -> tuple[WatchedBus, float]:
    """Runs it until the update is staged. The bus, and how long the update took."""
    boards = [quick(FakeBoard(f"LE-{number:04}", number)) for number in range(1, BOARDS + 1)]
    for board in boards:
        board.due_ms = 1500
    line = WiredLine(directory / "line", boards, 1, paced=True)
    parts = Parts(directory, boards, clock=LoopClock())
    await parts.open()
    try:
        made = release(parts.authority, contents(files=14, size=4000))
        await parts.releases.add(made.to_bytes(), ())
        async with parts.asking(line, of=WatchedBus):
            bus = parts.buses[0]
            assert isinstance(bus, WatchedBus)
            bus.updates, bus.late, bus.served = [], [], 0
            await until(lambda: all(board.questions > 2 for board in boards))
            for board in boards:
                board.close_reports(1)
            boards[4].updates.stage(made)
            began_s = parts.clock.monotonic_s()
            bus.updates, bus.late, bus.served = [], [], 0
            bus._contacts[4].update_due_s = 0.0
            await until(lambda: boards[4].updates.staged is not None)
            updated_s = parts.clock.monotonic_s() - began_s
            assert bus.served >= BOARDS, "the others were asked meanwhile"
            await until(lambda: all(board.acknowledged == 1 for board in boards))
    finally:
        await line.close()
        await parts.buffer.close()
    return bus, updated_s
