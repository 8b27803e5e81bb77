"""`laterne demo`: the whole system on one machine, its real parts as separate processes.

A broker, an authority, emulated boards that are enrolled one after the other, a gateway, and a subscriber that verifies
every report with public data only. What was taken is counted in the boards' sensors, what arrived at the subscriber:
the gateway is not asked (design.md, 9).
"""

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from laterne_emulator.broker import reach_broker, start_broker
from laterne_emulator.control import Control, ControlRefused
from laterne_emulator.demo_platform import NAMES, Platform
from laterne_emulator.demo_update import Campaigns
from laterne_emulator.demo_view import View
from laterne_emulator.figures import Figures
from laterne_emulator.processes import Child, Children, ProcessFailed, console_script

GATEWAY = "GW-0001"
TENANT = "demo"
REPORT_SECONDS = 5  # of use in half a minute; a real board closes reports every 60 s
SAMPLE_MS = 1000
SUBSCRIBES_WITHIN_S = 15.0
BOARDS_READY_WITHIN_S = 60.0  # 32 boards on two cores make their keys in about 20 s
QUIET_S = 2.0  # the sensors have not been read for so long: sampling has stopped
NOTHING_NEW_S = 20.0  # nothing more has arrived for so long: what is missing is lost
RESTART_AFTER_S = 1.0  # as the systemd unit does
SERVICE_PIN = 22  # firmware/boards/emulated.py

# Where the demo's lamp posts stand: Unter den Linden, Berlin, from the Schlossbruecke towards Pariser Platz (WGS 84).
STREET, EAST_END, WEST_END = "Linden", (52.51750, 13.39650), (52.51650, 13.38100)
MAX_BOARDS = 32  # one each 34 m


def demo(
    boards: Annotated[int, typer.Option(min=1, max=MAX_BOARDS, help="How many boards.")] = 3,
    seconds: Annotated[float | None, typer.Option(min=1.0, help="Sample for so long; default: until Ctrl-C.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document with the figures as last line.")] = False,
    directory: Annotated[
        Path | None, typer.Option(help="Where everything is kept; must be new or empty. Default: a temporary one.")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="mqtt://host:port of a broker; default: one of our own.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Send a good release to all boards, then a bad one.")
    ] = False,
    platform: Annotated[
        str | None, typer.Option(help=f"Start a platform and deliver there, too: {', '.join(NAMES)}.")
    ] = None,
) -> None:
    """Signed readings from emulated boards through a gateway to a broker, verified on the other side."""
    if platform is not None and platform not in NAMES:
        print(f"demo: no platform {platform}: name one of {', '.join(NAMES)}", file=sys.stderr)
        raise typer.Exit(2)
    place = _place(directory)
    try:
        city = None if platform is None else Platform(place / "platform")
    except ProcessFailed as why:
        print(f"demo: {why}", file=sys.stderr)
        raise typer.Exit(1) from None
    run = _Demo(boards, seconds, json_, place, broker, update, city)
    try:
        asyncio.run(run.run())
    except ProcessFailed as why:
        print(f"demo: {why}\nEverything is kept in {place}.", file=sys.stderr)
        raise typer.Exit(1) from None
    except asyncio.CancelledError:  # Ctrl-C before the boards were served, or a second one
        print(f"demo: stopped at once. Everything is kept in {place}.", file=sys.stderr)
        raise typer.Exit(130) from None
    figures = run.figures
    if json_:
        print(json.dumps(run.summary()), flush=True)
    else:
        run.view.finish(run.summary(), place)
    if run.campaigns is not None and not run.campaigns.is_as_it_should_be:
        print("demo: the good release should be everywhere and the bad one stopped: see campaign.log", file=sys.stderr)
        raise typer.Exit(1)
    if platform is not None and run.summary()["observations_stored"] != figures.readings_delivered:
        print("demo: the platform does not hold what was delivered: see gateway.log", file=sys.stderr)
        raise typer.Exit(1)
    # Who tries a release starts anew, and says how many readings went with that: none is lost unsaid.
    if figures.refused or (figures.readings_lost and run.campaigns is None):
        for refusal in figures.refusals[:10]:
            print(f"refused: {refusal}", file=sys.stderr)
        raise typer.Exit(1)


def _place(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="laterne-demo-"))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        print(f"demo: {directory} is not empty. Name a new directory, or remove it first.", file=sys.stderr)
        raise typer.Exit(2)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "boards").mkdir()
    except OSError as why:
        print(f"demo: {directory} cannot be used ({why.strerror}). Name a directory you may write to.", file=sys.stderr)
        raise typer.Exit(2) from None
    return directory.resolve()


class _Demo:
    """One run. What must not be lost decides who ends when: sampling, gateway, subscriber, boards."""

    def __init__(
        self,
        boards: int,
        seconds: float | None,
        quiet: bool,
        place: Path,
        broker: str | None,
        update: bool,
        platform: Platform | None,
    ) -> None:
        self._platform = platform
        self.campaigns: Campaigns | None = None
        self._update = update
        self.figures = Figures()
        self.view = View(quiet)
        self._seconds = seconds
        self._place = place
        self._broker = broker
        self._ids = {f"board-{number:02d}": f"LE-{number:04d}" for number in range(1, boards + 1)}
        self._stop_sampling: asyncio.Event | None = None  # there once the boards are being served
        self._arrived_at = 0.0
        self._enrolment_bytes = 0  # on the lines before the gateway came

    def summary(self) -> dict[str, object]:
        """The last line (design.md, 9)."""
        found = self.figures.summary(len(self._ids))
        if self._platform is not None:
            found["observations_stored"] = self._platform.stored
        return found if self.campaigns is None else found | {"campaigns": self.campaigns.results}

    async def run(self) -> None:
        """From nothing to the figures. Raises ProcessFailed; asyncio.CancelledError when told to stop at once."""
        work = asyncio.create_task(self._work())
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, self._told_to_stop, work)
        try:
            await work
        except BaseExceptionGroup as group:
            why = _first(group)
            if isinstance(why, asyncio.CancelledError):
                raise why from None
            raise ProcessFailed(str(why) or type(why).__name__) from group
        except (OSError, ControlRefused) as why:
            raise ProcessFailed(str(why)) from why

    def _told_to_stop(self, work: asyncio.Task[None]) -> None:
        # 1 - boards are being served: stop sampling, deliver what waits.
        # 2 - told again, or still setting up: end the processes, now.
        if self._stop_sampling is None or self._stop_sampling.is_set():
            work.cancel()
        else:
            self._stop_sampling.set()

    async def _work(self) -> None:
        async with Children() as children, self._started_platform():
            if self._broker is None:
                broker = await start_broker(children, self._place / "broker")
            else:
                broker = await reach_broker(self._broker)
            await self._make_authority(children)
            async with await self._start_boards(children) as control:
                await self._enrol(children)
                await self._set_up_gateway(children, broker)
                await self._count(control)
                self._enrolment_bytes = self.figures.line_bytes
                async with asyncio.TaskGroup() as group:
                    subscriber = await self._start_subscriber(children, broker, group)
                    gateway = group.create_task(self._keep_gateway_running(children))
                    updated = group.create_task(self._send_releases(children, broker))
                    await self._serve(control, updated)
                    updated.cancel()  # stopped by a person: the campaign is, too
                    await self._deliver(control)
                    if self._platform is not None:
                        self.view.step("reading back from the platform")
                        await self._platform.read_back(self.figures.readings_taken)
                    gateway.cancel()
                    await subscriber.end(signal.SIGINT)

    @contextlib.asynccontextmanager
    async def _started_platform(self) -> AsyncIterator[None]:
        if self._platform is None:
            yield
            return
        self.view.step("starting a SensorThings server")
        try:
            await self._platform.start()
            print(f"the platform is at {self._platform.url}/ while the demo runs", file=sys.stderr)
            yield
        finally:
            self._platform.stop()

    # --- set-up -----------------------------------------------------------------------------------------------------

    async def _make_authority(self, children: Children) -> None:
        self.view.step("making an authority")
        await self._laterne(children, "init", str(self._place / "authority"), "--no-passphrase", "--name", "demo")

    async def _start_boards(self, children: Children) -> Control:
        self.view.step(f"starting {len(self._ids)} boards")
        place = self._place / "boards"
        child = await children.start(
            "emulate",
            [console_script("laterne"), "emulate", str(place), "--boards", str(len(self._ids)),
             "--report-seconds", str(REPORT_SECONDS), "--sample-ms", str(SAMPLE_MS)],
            log=self._place / "emulate.log",
        )  # fmt: skip
        deadline = time.monotonic() + BOARDS_READY_WITHIN_S
        while True:
            try:
                return await Control.connect(place / "control")
            except OSError as why:
                if child.ended or time.monotonic() > deadline:
                    raise ProcessFailed(f"the emulated boards did not start ({why}): {child.last_words()}") from why
            await asyncio.sleep(0.05)

    async def _enrol(self, children: Children) -> None:
        for number, (name, board) in enumerate(self._ids.items()):
            self.view.step(f"enrolling {board}")
            port = self._place / "boards" / name / "uart"
            await self._laterne(
                children, "board", "enrol", "--port", str(port), "--id", board, "--authority", str(self._authority),
                *_post(number),
            )  # fmt: skip
        await self._laterne(
            children, "roster", "export", "--gateway", GATEWAY, "--authority", str(self._authority),
            "-o", str(self._place / "roster.cbor"),
        )  # fmt: skip

    async def _set_up_gateway(self, children: Children, broker: str) -> None:
        self.view.step("making the gateway's key")
        lines = "".join(f'\n[[line]]\nname = "{name}"\npath = "boards/{name}/uart"\n' for name in self._ids)
        (self._place / "gateway").mkdir()
        (self._place / "gateway.toml").write_text(
            f"""\
[gateway]
id = "{GATEWAY}"
tenant = "{TENANT}"
directory = "gateway"
trust = "authority/trust.cbor"
roster = "roster.cbor"
credential = "gateway.cbor"

[mqtt]
url = "{broker}"
{lines}{"" if self._platform is None else self._platform.settings}"""
        )
        command = [console_script("laterne-gateway"), "key", "--config", str(self._place / "gateway.toml")]
        public = self._place / "gateway.jwk"
        public.write_bytes(await children.run("laterne-gateway key", command, log=self._place / "set-up.log"))
        await self._laterne(
            children, "gateway", "enrol", "--id", GATEWAY, "--key", str(public), "--authority", str(self._authority),
            "-o", str(self._place / "gateway.cbor"),
        )  # fmt: skip

    async def _start_subscriber(self, children: Children, broker: str, group: asyncio.TaskGroup) -> Child:
        self.view.step("subscribing")
        child = await children.start(
            "verify",
            [
                console_script("laterne"),
                "verify",
                "--broker",
                broker,
                "--json-lines",
                "--authority",
                str(self._authority),
            ],
            log=self._place / "verify.log",
            piped=True,
        )
        subscribed = asyncio.Event()
        group.create_task(self._read_subscriber(child, subscribed))
        try:
            async with asyncio.timeout(SUBSCRIBES_WITHIN_S):
                await subscribed.wait()
        except TimeoutError:
            raise ProcessFailed(f"the subscriber did not reach {broker}: {child.last_words()}") from None
        return child

    # --- running ----------------------------------------------------------------------------------------------------

    async def _read_subscriber(self, child: Child, subscribed: asyncio.Event) -> None:
        assert child.process.stdout is not None  # piped
        async for text in child.process.stdout:
            line = json.loads(text)
            if line.get("event") == "subscribed":
                subscribed.set()
            elif line.get("event") == "report":
                self._arrived_at = time.monotonic()
                self.figures.take(line)
        if not subscribed.is_set():
            raise ProcessFailed(f"the subscriber ended: {child.last_words()}")

    async def _keep_gateway_running(self, children: Children) -> None:
        """As a service manager would: a gateway that dies is started again."""
        command = [console_script("laterne-gateway"), "run", "--config", str(self._place / "gateway.toml")]
        log = self._place / "gateway.log"
        while True:
            child = await children.start("gateway", command, log=log)
            try:
                status = await child.process.wait()
            except asyncio.CancelledError:
                await child.end()
                return
            if status == 2:  # it says that its configuration is wrong: starting it again cannot help
                raise ProcessFailed(f"the gateway refuses its configuration: {child.last_words()}")
            self.figures.gateway_restarts += 1
            await asyncio.sleep(RESTART_AFTER_S)

    async def _send_releases(self, children: Children, broker: str) -> None:
        if not self._update:
            return

        async def laterne(*arguments: str) -> None:
            await self._laterne(children, *arguments)

        boards = list(self._ids.values())
        self.campaigns = Campaigns(
            self._place, broker, TENANT, boards, laterne, self.view.note, self.view.show_campaign
        )
        await self.campaigns.run(children)

    async def _serve(self, control: Control, updated: "asyncio.Task[None]") -> None:
        self._stop_sampling = asyncio.Event()
        began = time.monotonic()
        with self.view:
            while not self._stop_sampling.is_set():
                self.figures.seconds = time.monotonic() - began
                wanted = 0.0 if self._update and self._seconds is None else self._seconds
                if wanted is not None and self.figures.seconds >= wanted and updated.done():
                    self._stop_sampling.set()
                await self._count(control)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await self._stop_sampling.wait()

    async def _deliver(self, control: Control) -> None:
        """Close every board's service switch, then wait for what is on the way."""
        self.view.step("boards stopped, delivering what waits")
        for name in self._ids:
            await control.ask({"do": "pin", "board": name, "pin": SERVICE_PIN, "value": 0})
        taken, changed_at = -1, time.monotonic()
        self._arrived_at = changed_at
        while True:
            await self._count(control)
            now = time.monotonic()
            if self.figures.readings_taken != taken:
                taken, changed_at = self.figures.readings_taken, now
            nothing_new = now - self._arrived_at >= NOTHING_NEW_S
            if now - changed_at >= QUIET_S and (self.figures.readings_lost == 0 or nothing_new):
                return
            await asyncio.sleep(0.2)

    async def _count(self, control: Control) -> None:
        status = await control.ask({"do": "status"})
        boards = status["boards"]
        self.figures.readings_taken = sum(board["readings_served"] for board in boards.values())
        on_lines = sum(board["bytes_to_board"] + board["bytes_from_board"] for board in boards.values())
        self.figures.line_bytes = on_lines - self._enrolment_bytes
        self.view.show(self.figures, {self._ids[name]: board for name, board in boards.items()})

    # --- small things -----------------------------------------------------------------------------------------------

    @property
    def _authority(self) -> Path:
        return self._place / "authority"

    async def _laterne(self, children: Children, *arguments: str) -> None:
        log = self._place / "set-up.log"
        await children.run(f"laterne {' '.join(arguments[:2])}", [console_script("laterne"), *arguments], log=log)


def _post(number: int) -> list[str]:
    """The options for the post of a board, counted from 0: its name and where it stands."""
    share = number / (MAX_BOARDS - 1)
    latitude, longitude = (east + (west - east) * share for east, west in zip(EAST_END, WEST_END, strict=True))
    return ["--post", f"{STREET}-{number + 1}", "--latitude", f"{latitude:.6f}", "--longitude", f"{longitude:.6f}"]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first, out of all that TaskGroups wrap around it."""
    why: BaseException = group
    while isinstance(why, BaseExceptionGroup):
        why = why.exceptions[0]
    return why
