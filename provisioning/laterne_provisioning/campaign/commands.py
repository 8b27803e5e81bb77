"""`laterne campaign …`: what is typed for runner.py, store.py and show.py."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from laterne_provisioning import authority as authorities
from laterne_provisioning import downlink, gateways, keys, out_file, output, subscriber
from laterne_provisioning.authority import Authority
from laterne_provisioning.campaign import approval, choosing, reverting, show, store, wire
from laterne_provisioning.campaign.desk import Desk
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.plan import Gates, Pace, Plan, Release, canaries
from laterne_provisioning.campaign.runner import POSSIBLE, Runner, keep, obey
from laterne_provisioning.campaign.states import ABORTED, APPROVED, COMPLETED, DRAFT, HALTED, OVER
from laterne_provisioning.campaign.windows import window_of
from laterne_provisioning.errors import STOPPED, OperatorError, UsageError
from laterne_provisioning.order_commands import (
    AuthorityOption,
    BrokerOption,
    CaOption,
    CertificateOption,
    JsonOption,
    KeyOption,
    PassphraseOption,
    PasswordOption,
    PinOption,
    TenantOption,
    UserOption,
)

app = typer.Typer(no_args_is_help=True, help="Bring a release to boards in waves that halt by themselves.")

NameArgument = Annotated[str | None, typer.Argument(metavar="[ID]", help="[default: the newest campaign]")]
WATCH_S = 1.0
MOST_RELEASE_BYTES = 1 << 20


@dataclass(frozen=True)
class Way:
    """How to get at keys and broker."""

    broker: subscriber.Broker
    secrets: keys.Secrets


@app.command()
def start(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="A signed release file.")],
    authority: AuthorityOption,
    broker: BrokerOption,
    boards: Annotated[
        list[str] | None,
        typer.Option(metavar="FILTER", help="Ids or globs: 'LE-01*', post:…, gateway:…, model:…. [default: all]"),
    ] = None,
    canary: Annotated[str, typer.Option(metavar="IDS", help="Boards that go first, with commas.")] = "",
    waves: Annotated[str, typer.Option(metavar="PERCENTS", help="Of all boards, after the canaries.")] = "5,25,50,100",
    soak: Annotated[str, typer.Option(metavar="TIME", help="Each board must be well for so long.")] = "30m",
    success: Annotated[float, typer.Option(min=0, max=100, help="Percent of a wave that must be confirmed.")] = 95.0,
    max_failures: Annotated[
        str, typer.Option(metavar="N,PERCENT", help="More boards than both that fail once armed: halt.")
    ] = "1,0.5",
    reports: Annotated[int, typer.Option(min=1, help="Of each board, before and after, that are compared.")] = 5,
    window: Annotated[
        list[str] | None, typer.Option(metavar="WHEN", help='When boards may start anew: "Mo-Fr 02:00-04:00 Zone".')
    ] = None,
    approve_by: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The second person's public key: `laterne grant key`.")
    ] = None,
    tenant: TenantOption = None,
    ca_file: CaOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring RELEASE to boards. Stop it with Ctrl-C at any time; `campaign resume` goes on, here or elsewhere."""
    opened = authorities.open_authority(authority)
    way = Way(
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        keys.Secrets(passphrase_file, pin_file),
    )
    most, percent = choosing.failures_of(max_failures)
    gates = Gates(success_percent=success, failures=most, failures_percent=percent, reports=reports)
    data = _release(release)
    wanted = choosing.release_of(data, opened)
    downlink.checked(tenant, None)
    opened.signing_key("order", way.secrets).open()  # better to know now that it is there
    with opened.registry() as registry:
        chosen = choosing.boards_of(registry, boards or [])
    used = sorted({gateway for _, gateway in chosen})
    tenants = dict.fromkeys(used, tenant) if tenant else asyncio.run(wire.tenants_of(way.broker, used))
    now = _now()
    name = _name(now, wanted)
    whom = choosing.targets(chosen, {gateway: found for gateway, found in tenants.items() if found})
    plan = Plan(
        name,
        wanted,
        whom,
        canaries(name, whom, [board for board in canary.split(",") if board]),
        choosing.waves_of(waves),
        gates,
        Pace(soak=choosing.span_of(soak, "--soak")),
        tuple(window_of(text) for text in window or []),
        "" if approve_by is None else gateways.key_in(approve_by, "approver", "laterne grant key").hex(),
        now,
    )
    _begin(opened, plan, data, way, as_json)


@app.command()
def approve(
    authority: AuthorityOption,
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key that --approve-by has named.")],
    campaign: NameArgument = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Second person: sign the plan as `campaign status` shows it. It does not begin before."""
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    plan = chosen.plan()
    if not plan.approver:
        raise UsageError(f"{plan.id} needs no approval: it was made without --approve-by.")
    signed = approval.signed(plan, key, keys.Secrets(passphrase_file))
    opened.log.append("campaign approve", plan.id, {"plan": plan.digest, "key": plan.approver})
    chosen.approve(signed)
    typer.echo(f"{plan.id} is approved. Begin it with `laterne campaign resume {plan.id}`.")


@app.command()
def resume(
    authority: AuthorityOption,
    broker: BrokerOption,
    campaign: NameArgument = None,
    ca_file: CaOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a campaign that was stopped, paused, approved, or has halted (then your decision is in the log)."""
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    if chosen.is_run():
        _request(chosen, "resume")
        return
    way = Way(
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        keys.Secrets(passphrase_file, pin_file),
    )
    _go_on(opened, chosen, way, "resume", as_json)


@app.command()
def pause(authority: AuthorityOption, campaign: NameArgument = None) -> None:
    """No board is asked for anything new; what boards have begun they finish."""
    _ask(authority, campaign, "pause")


@app.command()
def abort(
    authority: AuthorityOption,
    broker: BrokerOption,
    campaign: NameArgument = None,
    ca_file: CaOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """End it: boards that try the release are ordered back, boards that have confirmed it keep it. For good."""
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    if chosen.is_run():
        _request(chosen, "abort")
        return
    way = Way(
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        keys.Secrets(passphrase_file, pin_file),
    )
    _go_on(opened, chosen, way, "abort", as_json)


@app.command()
def revert(
    authority: AuthorityOption,
    broker: BrokerOption,
    campaign: NameArgument = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to go back to. [default: of the last campaign completed]")
    ] = None,
    release: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead: it is signed under a higher sequence already.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where it goes. [default: beside the campaign]"),
    ] = None,
    ca_file: CaOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the boards of a campaign back to the release before: its files, signed under a higher sequence."""
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    way = Way(
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        keys.Secrets(passphrase_file, pin_file),
    )
    engine = chosen.engine()
    if release is None:
        older = reverting.former(opened, engine, to)
        out = out or chosen.folder / "revert.laterne"
        out_file.require_writable(out)
        reverting.renewed(opened, older, out, way.secrets, chosen.id)
        release = out
    data = _release(release)
    wanted = choosing.release_of(data, opened)
    if engine.course.state not in OVER:
        engine = _run(opened, chosen, way, "abort")
    now = _now()
    _begin(opened, reverting.plan(engine, wanted, _name(now, wanted), now), data, way, as_json)


@app.command()
def status(
    authority: AuthorityOption,
    campaign: NameArgument = None,
    watch: Annotated[bool, typer.Option("--watch", help="Until it is over, or Ctrl-C.")] = False,
    boards: Annotated[bool, typer.Option("--boards", help="With --json: each board, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How far a campaign is, what failed, and what it proves."""
    chosen = store.store_of(authority.resolve(), campaign)
    engine = chosen.engine()
    if as_json:
        found = show.document(engine, chosen.is_run())
        output.print_json(found | {"of_boards": show.board_documents(engine)} if boards else found)
        return
    with _live(sys.stdout if watch else None) as shown:
        while watch and engine.course.state not in OVER:
            shown(engine)
            time.sleep(WATCH_S)
            engine = chosen.engine()
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160).print(
        show.picture(engine, _now())
    )
    if not chosen.is_run() and engine.course.state not in OVER:
        output.message(f"No command runs it now: `laterne campaign resume {chosen.id}` goes on.")


def _begin(opened: Authority, plan: Plan, data: bytes, way: Way, as_json: bool) -> None:
    choosing.require_free(opened, plan)
    opened.log.append(
        "campaign start",
        plan.id,
        {
            "plan": plan.digest,
            "release": plan.release.digest,
            "sequence": plan.release.sequence,
            "boards": len(plan.targets),
            "canaries": list(plan.canaries[:100]),
        },
    )
    made = store.create(opened.directory, plan, data)
    output.message(f"The campaign {plan.id}: {len(plan.targets)} boards in {len(plan.waves)} waves.")
    if plan.approver:
        output.message(
            f"It waits for the second person: laterne campaign approve {plan.id} --key FILE; then resume it."
        )
        return
    _go_on(opened, made, way, "resume", as_json)


def _go_on(opened: Authority, chosen: store.Store, way: Way, what: str, as_json: bool) -> None:
    """Run a campaign in the foreground, then show what has become of it."""
    engine = _run(opened, chosen, way, what)
    if as_json:
        output.print_json(show.document(engine, False))
    else:
        Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160).print(
            show.picture(engine, _now())
        )
    if engine.course.state == HALTED:
        output.message(
            f"It has halted: {engine.course.reason}. Look at the boards, then `laterne campaign resume {chosen.id}`, "
            f"`abort`, or `revert`."
        )
    if engine.course.state != (ABORTED if what == "abort" else COMPLETED):
        raise typer.Exit(1)


def _run(opened: Authority, chosen: store.Store, way: Way, what: str) -> Engine:
    """Until nothing goes on by itself. Raises typer.Exit: stopped by a person."""
    with chosen.writing(), opened.registry() as registry:
        desk = Desk(opened, registry, opened.signing_key("order", way.secrets), _now)
        desk.open()
        engine = chosen.engine()
        _enter(chosen, engine, what, _now())
        keep(chosen, engine, desk, output.message)
        with _live(sys.stderr) as shown:
            runner = Runner(chosen, engine, desk, way.broker, shown, output.message)
            try:
                asyncio.run(_until_stopped(runner))
            except KeyboardInterrupt:
                output.message(f"Stopped. Boards keep what they have; `laterne campaign resume {chosen.id}` goes on.")
                raise typer.Exit(STOPPED) from None
    return engine


def _enter(chosen: store.Store, engine: Engine, what: str, now: int) -> None:
    state = engine.course.state
    if state in OVER:
        raise OperatorError(f"{chosen.id} is {state}: begin another with `laterne campaign start`.")
    if what == "resume" and state in (DRAFT, APPROVED):
        approval.require(engine.plan, chosen.approval())
        if state == DRAFT:
            engine.approve(now)
        engine.start(now)
        return
    engine.watched_again(now)
    obey(engine, what, now)  # RUNNING and resumed: it was only stopped


async def _until_stopped(runner: Runner) -> None:
    loop, running = asyncio.get_running_loop(), asyncio.create_task(runner.run())
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        if not stopped:
            raise
        raise KeyboardInterrupt from None


def _ask(authority: Path, campaign: str | None, what: str) -> None:
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    if chosen.is_run():
        _request(chosen, what)
        return
    with chosen.writing(), opened.registry() as registry:
        engine = chosen.engine()
        if not obey(engine, what, _now()):
            raise OperatorError(f"{chosen.id} is {engine.course.state}: it cannot be told to {what}.")
        desk = Desk(opened, registry, opened.signing_key("order", keys.Secrets()), _now)
        keep(chosen, engine, desk, output.message)


def _request(chosen: store.Store, what: str) -> None:
    """Leave it to the command that runs the campaign; it looks each second."""
    state = chosen.engine().course.state
    if (state, what) not in POSSIBLE:
        raise OperatorError(f"{chosen.id} is {state}: it cannot be told to {what}.")
    chosen.ask(what)
    typer.echo(f"The command that runs {chosen.id} is told to {what}.")


def _name(now: int, wanted: Release) -> str:
    """In the order of time, and with the beginning of the release's name."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{wanted.digest[:8]}"


def _now() -> int:
    return int(time.time())


def _release(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_RELEASE_BYTES + 1)
    except OSError as why:
        raise UsageError(f"The release cannot be read: {why.strerror}: {path}") from why


@contextlib.contextmanager
def _live(stream: "os.PathLike[str] | object | None") -> Iterator[Callable[[Engine], None]]:
    """A function that shows a campaign, again and again in the same place, on a terminal; in a pipe it is quiet."""
    console = Console(stderr=stream is sys.stderr, highlight=False, markup=False)
    if stream is None or not console.is_terminal:
        yield lambda _: None
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda engine: live.update(show.picture(engine, _now()), refresh=True)
