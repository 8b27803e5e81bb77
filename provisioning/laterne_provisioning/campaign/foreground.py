"""A campaign in the foreground of a command: begun, gone on with, stopped by a person, asked by another command."""

import asyncio
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import keys, output
from laterne_provisioning.access import Access
from laterne_provisioning.authority import Authority
from laterne_provisioning.campaign import approval, choosing, health, screen, show, store
from laterne_provisioning.campaign.desk import Desk
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.plan import Plan, Release
from laterne_provisioning.campaign.runner import POSSIBLE, Runner, keep, obey
from laterne_provisioning.campaign.states import ABORTED, APPROVED, COMPLETED, DRAFT, HALTED, OVER
from laterne_provisioning.errors import STOPPED, OperatorError


def now() -> int:
    """Unix seconds."""
    return int(time.time())


def name_of(release: Release, at: int) -> str:
    """A campaign's id: in the order of time, and with the beginning of the release's name."""
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%d-%H%M%S}-{release.digest[:8]}"


def begin(opened: Authority, plan: Plan, data: bytes, access: Access, as_json: bool, past: Sequence[Path] = ()) -> None:
    """A new campaign. data: the release file. past: files with reports of the days before."""
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
    if past:
        _remember(opened, made, past)
    if plan.approver:
        output.message(
            f"It waits for the second person: laterne campaign approve {plan.id} --key FILE; then resume it."
        )
        return
    go_on(opened, made, access, "resume", as_json)


def _remember(opened: Authority, made: store.Store, past: Sequence[Path]) -> None:
    with made.writing(), opened.registry() as registry:
        desk, engine = Desk(opened, registry, opened.signing_key("order", keys.Secrets()), now), made.engine()
        for board, heard in desk.past(past):
            engine.remembered(board, heard, now())
        keep(made, engine, desk, output.message)
    known = sum(row.before.reports > 0 for row in engine.rows.values())
    output.message(f"{known} of {len(engine.rows)} boards have a past of the last {health.DAYS} days in these files.")


def told(authority: Path, campaign: str | None, access: Access, what: str, as_json: bool) -> None:
    """Resume or abort it: here, or by the command that runs it."""
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    if chosen.is_run():
        _request(chosen, what)
    else:
        go_on(opened, chosen, access, what, as_json)


def go_on(opened: Authority, chosen: store.Store, access: Access, what: str, as_json: bool) -> None:
    """Run it until nothing goes on by itself, then show what has become of it."""
    engine = run(opened, chosen, access, what)
    if as_json:
        output.print_json(show.document(engine, False))
    else:
        screen.print_once(engine, engine.shares())
    if engine.course.state == HALTED:
        output.message(
            f"It has halted: {engine.course.reason}. Look at the boards, then `laterne campaign resume {chosen.id}`, "
            f"`abort`, or `revert`."
        )
    if engine.course.state != (ABORTED if what == "abort" else COMPLETED):
        raise typer.Exit(1)


def run(opened: Authority, chosen: store.Store, access: Access, what: str) -> Engine:
    """Until nothing goes on by itself. Raises typer.Exit: stopped by a person."""
    with chosen.writing(), opened.registry() as registry:
        desk = Desk(opened, registry, opened.signing_key("order", access.secrets), now)
        desk.open()
        engine = chosen.engine()
        _enter(chosen, engine, what)
        keep(chosen, engine, desk, output.message)
        with screen.live(stderr=True) as shown:
            runner = Runner(chosen, engine, desk, access.broker, shown, output.message)
            try:
                asyncio.run(_until_stopped(runner))
            except KeyboardInterrupt:
                output.message(f"Stopped. Boards keep what they have; `laterne campaign resume {chosen.id}` goes on.")
                raise typer.Exit(STOPPED) from None
    return engine


def pause(authority: Path, campaign: str | None) -> None:
    """By the command that runs it, or here: no broker is needed for that."""
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    if chosen.is_run():
        _request(chosen, "pause")
        return
    with chosen.writing(), opened.registry() as registry:
        engine = chosen.engine()
        if not obey(engine, "pause", now()):
            raise OperatorError(f"{chosen.id} is {engine.course.state}: it cannot be told to pause.")
        desk = Desk(opened, registry, opened.signing_key("order", keys.Secrets()), now)
        keep(chosen, engine, desk, output.message)


def _enter(chosen: store.Store, engine: Engine, what: str) -> None:
    state = engine.course.state
    if state in OVER:
        raise OperatorError(f"{chosen.id} is {state}: begin another with `laterne campaign start`.")
    if what == "resume" and state in (DRAFT, APPROVED):
        approval.require(engine.plan, chosen.approval())
        if state == DRAFT:
            engine.approve(now())
        engine.start(now())
        return
    engine.watched_again(now())
    obey(engine, what, now())  # RUNNING and resumed: it was only stopped


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


def _request(chosen: store.Store, what: str) -> None:
    """Leave it to the command that runs the campaign; it looks each second."""
    state = chosen.engine().course.state
    if (state, what) not in POSSIBLE:
        raise OperatorError(f"{chosen.id} is {state}: it cannot be told to {what}.")
    chosen.ask(what)
    typer.echo(f"The command that runs {chosen.id} is told to {what}.")
