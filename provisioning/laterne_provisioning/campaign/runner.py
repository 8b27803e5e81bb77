"""A campaign that runs: the machine between the disk and the broker.

In which order, each time something has happened: the machine moves; what it did is in the audit log; it is in the
journal; then the broker may forget what came, and orders go out. Whoever goes on after a kill has missed nothing, knows
each order that a board can have got, and gives those anew that were not answered. Outages of the broker are waited out.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence

import aiomqtt

from laterne_protocol import order
from laterne_provisioning.campaign import wire
from laterne_provisioning.campaign.desk import Desk
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.holder import Holder
from laterne_provisioning.campaign.states import ENDED, HALTED, PAUSED, RUNNING
from laterne_provisioning.campaign.store import Store
from laterne_provisioning.downlink import Client, Way
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.subscriber import FIRST_PAUSE_S, LONGEST_PAUSE_S, Broker, unreachable

TICK_S = 1.0
Shares = Mapping[str, float]


class Runner:
    """Use it within store.writing(). show: called after each tick. say: told what a person should know."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        desk: Desk,
        broker: Broker,
        show: Callable[[Engine, Shares], None],
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._engine = engine
        self._desk = desk
        self._broker = broker
        self._show = show
        self._say = say
        self._holder = Holder(engine.plan.targets[0].tenant, engine.plan.id)
        self._published = False
        self._shares: Shares = {}
        self._at_broker: set[str] = set()  # boards that have an order of ours there
        self._unacknowledged: list[aiomqtt.Message] = []
        self._came = asyncio.Event()
        self._taken: set[str] = set()  # whose receipt came: their order is to be taken away

    async def run(self) -> None:
        """Until nothing goes on by itself any more. Raises OperatorError; cancel it to stop."""
        pause_s, reached = FIRST_PAUSE_S, False
        while True:
            try:
                async with (
                    self._holder.held(self._broker) as holding,
                    wire.connected(self._broker, self._engine.plan.id) as client,
                ):
                    reached, pause_s = True, FIRST_PAUSE_S
                    await self._connected(client, holding)
                    return
            except aiomqtt.MqttError as why:
                if not reached:
                    raise unreachable(self._broker, why) from why
                self._say(f"{self._broker} is away ({why}): trying again")
            # Time goes on: what boards do meanwhile is found at the broker afterwards.
            self._step()
            await asyncio.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connected(self, client: Client, holding: "asyncio.Task[None]") -> None:
        self._unacknowledged = []  # of a former connection: they come again
        plan = self._engine.plan
        tenants = sorted({one.tenant for one in plan.targets})
        if not self._published:
            await wire.publish_release(client, self._broker, tenants, plan.release.digest, self._store.release())
            self._published = True
        await wire.listen_to(client, self._broker, tenants)
        reading = asyncio.create_task(self._read(client))
        try:
            due_s = 0.0
            while True:
                if asyncio.get_running_loop().time() >= due_s:
                    self._step()
                    self._show(self._engine, self._shares)
                    due_s = asyncio.get_running_loop().time() + TICK_S
                await self._settle(client)
                if self._engine.is_over():
                    return
                await self._wait(reading, holding, due_s)
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await reading

    async def _wait(self, reading: "asyncio.Task[None]", holding: "asyncio.Task[None]", until_s: float) -> None:
        """For messages, the next tick, or the end of the connection, which is raised."""
        self._came.clear()
        if self._unacknowledged:
            return
        coming = asyncio.create_task(self._came.wait())
        within_s = max(0.0, until_s - asyncio.get_running_loop().time())
        await asyncio.wait((reading, holding, coming), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        coming.cancel()
        if holding.done():
            holding.result()
        if reading.done():
            self._raise(reading)

    def _raise(self, reading: "asyncio.Task[None]") -> None:
        try:
            reading.result()
        except aiomqtt.MqttCodeError as why:
            if getattr(why.rc, "value", why.rc) == wire.TAKEN_OVER:
                raise OperatorError(f"{self._engine.plan.id} is being run elsewhere, too: one is enough.") from why
            raise

    async def _read(self, client: Client) -> None:
        async for message in client.messages:
            came = wire.came(message)
            if came is not None and came.board in self._engine.targets:
                self._take(came)
            self._unacknowledged.append(message)
            self._came.set()

    def _take(self, came: wire.Came) -> None:
        now = self._desk.now()
        if came.what == wire.UPDATE:
            # Nobody signs it. A broker lets a gateway write below its own name, and there of any board: only the one
            # that has the board is heard. Reports and receipts are the board's word, by whatever way they come.
            target = self._engine.targets[came.board]
            told = wire.told_of(came.body) if (came.tenant, came.gateway) == (target.tenant, target.gateway) else None
            if told is not None:
                self._engine.hinted(came.board, told, now)
        elif came.what == wire.REPORT:
            heard = self._desk.heard(came.board, came.body)
            if heard is not None:
                self._engine.heard(came.board, heard, now)
        else:
            asked = self._engine.rows[came.board].asked
            said = None if asked is None else self._desk.receipt(came.board, asked[2], came.body)
            if asked is not None and said is not None:
                self._engine.answered(came.board, asked[0], bytes.fromhex(asked[1]), said, now)
                self._taken.add(came.board)

    def _step(self) -> None:
        now = self._desk.now()
        request = self._store.request()
        if request is not None:
            obey(self._engine, request, now)
        self._engine.hold(self._desk.held(self._engine.targets), now)
        self._engine.tick(now)
        self._keep()
        shares = self._engine.shares()
        if shares != self._shares:
            self._shares = shares
            self._store.note_shares(shares)

    def _keep(self) -> None:
        keep(self._store, self._engine, self._desk, self._say)

    async def _settle(self, client: Client) -> None:
        """What has come is on the disk, then the broker may forget it; then orders go out."""
        done, self._unacknowledged = self._unacknowledged, []
        self._keep()
        for message in done:
            client.acknowledge(message)
        await self._send(client)

    async def _send(self, client: Client) -> None:
        sequence, ready = self._engine.plan.release.sequence, []
        for wanted in list(self._engine.wanted(self._desk.now())):
            body = self._desk.order(wanted, sequence)
            if body is not None:
                self._engine.ordered(wanted, order.digest(body).hex())
                ready.append((wanted.board, body))
        self._keep()
        for board, body in ready:
            await wire.publish(client, self._broker, self._way(board).order, body)
            self._at_broker.add(board)
            self._taken.discard(board)
        for board in self._at_broker:
            row = self._engine.rows[board]
            if row.state in ENDED and row.asked is not None and row.asked[0] != order.ABANDON:
                self._taken.add(board)  # nobody waits for what comes of it
        for board in sorted(self._taken):
            await wire.publish(client, self._broker, self._way(board).order, b"")
            await wire.publish(client, self._broker, self._way(board).receipt, b"")
            self._at_broker.discard(board)
        self._taken.clear()

    def _way(self, board: str) -> Way:
        target = self._engine.targets[board]
        return Way(target.tenant, target.gateway, board)


def keep(store: Store, engine: Engine, desk: Desk, say: Callable[[str], None]) -> None:
    """Bring what has happened to the audit log and to the disk."""
    changes, rows = engine.take()
    if changes:
        desk.write_down(engine.plan.id, changes)
        for change in changes:
            if not change.board:
                say(f"{engine.plan.id}: {change.event}: {change.state}{': ' if change.said else ''}{change.said}")
            elif change.state == "FAILED":
                say(f"{change.board}: {change.former} -> FAILED: {engine.rows[change.board].said}")
    if changes or rows:
        store.commit(engine.course, rows, desk.now())


# (state of the campaign, what a person asks) -> what is done. Whatever else is asked is refused by whoever is asked.
POSSIBLE: Sequence[tuple[str, str]] = (
    (RUNNING, "pause"),
    (PAUSED, "resume"),
    (HALTED, "resume"),
    *((state, "abort") for state in ("DRAFT", "APPROVED", RUNNING, PAUSED, HALTED)),
)


def obey(engine: Engine, request: str, now: int) -> bool:
    """Do what a person asks; False: not in this state."""
    if (engine.course.state, request) not in POSSIBLE:
        return False
    {"pause": engine.pause, "resume": engine.resume, "abort": engine.abort}[request](now)
    return True
