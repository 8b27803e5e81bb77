"""Parts of a gateway put together for a test, with real files and a real database; and the gateway as a process."""

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard
from tests.servers import Mosquitto

from laterne_emulator.proxy import Proxy
from laterne_gateway import identity, status
from laterne_gateway.buffer import Buffer
from laterne_gateway.bus import Bus
from laterne_gateway.clock import Clock, SystemClock
from laterne_gateway.config import BufferSettings, GatewaySettings, LineSettings
from laterne_gateway.dates import Dates
from laterne_gateway.handshakes import Pace
from laterne_gateway.health import Health
from laterne_gateway.inbox import Inbox
from laterne_gateway.orders import Orders
from laterne_gateway.releases import Releases
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.serial_line import SerialLine
from laterne_gateway.sessions import Sessions
from laterne_gateway.trusts import TrustKeeper
from laterne_gateway.updates import Updates
from laterne_protocol import roster

GATEWAY = "gw-1"
TENANT = "testingen"


async def until(happened: Callable[[], bool], look_every_s: float = 0.01) -> None:
    """Waits for what only a log or a counter tells: there is no event to await in another process."""
    while not happened():  # noqa: ASYNC110 - see above
        await asyncio.sleep(look_every_s)


# Handshakes as quick as tests are; boards of the tests think for no time unless told to.
QUICK = Pace(repeat_s=0.1, give_up_s=3.0, introduce_s=0.4, again_s=0.1, rest_s=0.2, rest_cap_s=0.5)


def settings(directory: Path) -> GatewaySettings:
    state = directory / "state"
    return GatewaySettings(
        GATEWAY,
        TENANT,
        state,
        directory / "trust.cbor",
        directory / "roster.cbor",
        directory / "gateway.cbor",
        state / "agree.key",
    )


def write_identity(directory: Path, authority: FakeAuthority) -> Key:
    """The gateway's key and credential, as `laterne-gateway key` and `laterne gateway enrol` write them."""
    key = Key()
    (directory / "state").mkdir(exist_ok=True)
    (directory / "state" / "agree.key").write_bytes(key.pem())
    (directory / "state" / "agree.key").chmod(0o600)
    (directory / "gateway.cbor").write_bytes(authority.gateway_file(key.public))
    return key


async def limit_pages(buffer: Buffer, more: int | None) -> None:
    """From now on the database may grow by so many pages, as on a disk that is nearly full; None: as it likes."""
    pages = await buffer._writer.read(lambda db, _: db.execute("pragma page_count").fetchone()[0])
    assert isinstance(pages, int)
    limit = 1_000_000 if more is None else pages + more
    await buffer._writer.read(lambda db, _: db.execute(f"pragma max_page_count = {limit}").fetchone())


class ServedBoard(Protocol):
    """What a gateway is told of a board: of the tests, or with the real firmware (tests/firmware/enrolled.py)."""

    address: int

    def entry(self) -> roster.Entry: ...
    def meet(self, authority: FakeAuthority) -> None: ...


class ServedLine(Protocol):
    @property
    def path(self) -> Path: ...
    @property
    def boards(self) -> Sequence[ServedBoard]: ...


class Parts:
    """Buffer, roster, inbox and sessions that know these boards."""

    def __init__(
        self, directory: Path, boards: Sequence[FakeBoard], pace: Pace = QUICK, clock: Clock | None = None
    ) -> None:
        self.pace = pace
        self.routes: tuple[str, ...] = ("mqtt",)
        self.clock = clock or SystemClock()
        self.directory = directory
        self.authority = FakeAuthority(GATEWAY)
        self.health = Health()
        self.trust_file = directory / "trust.cbor"
        self.roster_file = directory / "roster.cbor"
        self.trust_file.write_bytes(self.authority.trust_file())
        self.roster_file.write_bytes(self.authority.roster_file([board.entry() for board in boards]))
        self.settings = settings(directory)
        self.key = write_identity(directory, self.authority)
        self.trusts: TrustKeeper
        self.sessions: Sessions
        self.buffer: Buffer
        self.roster: RosterKeeper
        self.inbox: Inbox
        self.orders: Orders
        self.releases: Releases
        self.updates: Updates
        self.buses: list[Bus] = []
        self.dates = Dates()

    async def open(self) -> None:
        self.buffer = Buffer(self.directory / "state", self.routes, BufferSettings(), self.health)
        self.trusts = TrustKeeper(self.trust_file, self.buffer, self.health)
        self.roster = RosterKeeper(GATEWAY, self.trusts, self.roster_file, self.buffer, self.health)
        await self.roster.load()
        self.inbox = Inbox(self.roster, self.buffer, self.clock, self.health, self.dates)
        self.orders = Orders(self.roster, lambda: self.trusts.all, self.clock, self.health)
        self.releases = Releases(self.settings.directory, lambda: self.trusts.newest, self.health)
        self.updates = Updates(self.releases, self.inbox, self.roster, self.clock, self.health)
        self.sessions = Sessions(await self.identity(), self.roster, self.trusts, self.clock, self.health, self.pace)

    async def identity(self) -> identity.Identity:
        return await identity.load_and_keep(self.settings, self.trusts.all, self.buffer, self.health)

    async def reload(self) -> None:
        """As SIGHUP does."""
        await self.roster.reload()
        self.sessions.identity = await self.identity()
        for bus in self.buses:
            bus.wake()

    async def reopen(self) -> None:
        """As a new process would find it."""
        await self.buffer.close()
        await self.open()

    async def stored(self) -> dict[str, list[int]]:
        """The sequences in the buffer, by board, in order of arrival."""
        found: dict[str, list[int]] = {}
        for row in await self.buffer.oldest(0, 1_000_000):
            found.setdefault(row.board, []).append(row.sequence)
        return found

    @contextlib.asynccontextmanager
    async def asking(self, *lines: "ServedLine", of: type[Bus] = Bus) -> AsyncIterator[None]:
        """Asks the boards on these lines meanwhile. of: what kind of bus."""
        tasks = []
        self.buses.clear()
        for line in lines:
            addresses = tuple(board.address for board in line.boards) if len(line.boards) > 1 else ()
            for board in line.boards:
                board.meet(self.authority)
            port = SerialLine(LineSettings(line.path.name, line.path, 115_200, addresses), self.health)
            known = (self.roster, self.sessions, self.inbox, self.orders, self.updates)
            bus = of(port, addresses, *known, self.clock, self.health)
            self.buses.append(bus)
            tasks.append(asyncio.create_task(bus.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.inbox.settle()


@contextlib.asynccontextmanager
async def parts(
    directory: Path,
    *boards: FakeBoard,
    pace: Pace = QUICK,
    before: Callable[[Parts, FakeBoard], object] = lambda made, board: None,
) -> AsyncIterator[Parts]:
    """before: changes files before they are read, is given the first board."""
    made = Parts(directory, list(boards), pace)
    if boards:
        before(made, boards[0])
    await made.open()
    try:
        yield made
    finally:
        await made.buffer.close()


class GatewayProcess:
    """`laterne-gateway run` as a process of its own, with its directory, files and log."""

    def __init__(
        self,
        directory: Path,
        boards: Sequence[ServedBoard],
        lines: Sequence[ServedLine],
        broker: Mosquitto | Proxy,
        authority: FakeAuthority | None = None,
    ) -> None:
        self.directory = directory
        self.config = directory / "gateway.toml"
        self.log = directory / "gateway.log"
        self.authority = authority = authority or FakeAuthority(GATEWAY)
        (directory / "trust.cbor").write_bytes(authority.trust_file())
        (directory / "roster.cbor").write_bytes(authority.roster_file([board.entry() for board in boards]))
        self.config.write_text(
            f'[gateway]\nid = "{GATEWAY}"\ntenant = "{TENANT}"\ndirectory = "state"\n'
            f'trust = "trust.cbor"\nroster = "roster.cbor"\ncredential = "gateway.cbor"\n[mqtt]\nurl = "{broker.url}"\n'
            + "".join(
                f'[[line]]\nname = "{line.path.name}"\npath = "{line.path.name}"\n'
                + (f"boards = {[board.address for board in line.boards]}\n" if len(line.boards) > 1 else "")
                for line in lines
            )
        )
        self.key = write_identity(directory, authority)
        for line in lines:
            for board in line.boards:
                board.meet(authority)
        self.process: asyncio.subprocess.Process | None = None

    def set_backlog_a_second(self, count: int) -> None:
        """For the next start: so many of what an outage has left behind are sent in a second."""
        text = re.sub(r"backlog_a_second = .*\n", "", self.config.read_text())
        self.config.write_text(text.replace("[mqtt]\n", f"[mqtt]\nbacklog_a_second = {count}\n"))

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "laterne_gateway", "run", "--config", str(self.config), stdout=log, stderr=log
            )

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return await self.process.wait()

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def status(self) -> dict[str, object] | None:
        return status.read(self.directory / "state")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def says(self, words: str) -> None:
        """Waits until these words stand in its log."""
        await until(lambda: words in self.said())

    def said(self) -> str:
        return self.log.read_text()


@contextlib.asynccontextmanager
async def running(
    directory: Path, broker: Mosquitto, boards: Sequence[ServedBoard], *lines: ServedLine
) -> AsyncIterator[GatewayProcess]:
    """A gateway runs as a process meanwhile, and nothing of ours fails in it."""
    gateway = GatewayProcess(directory, boards, lines, broker)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.end()
    assert "Traceback" not in gateway.said(), gateway.said()
