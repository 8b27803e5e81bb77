"""`laterne campaign …`: what is typed, for foreground.py, store.py and show.py."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import downlink, gateways, interpreters, keys, out_file, output
from laterne_provisioning.access import Access, TenantOption, with_access
from laterne_provisioning.campaign import approval, choosing, foreground, reverting, screen, show, store, wire
from laterne_provisioning.campaign.plan import Gates, Pace, Plan, canaries
from laterne_provisioning.campaign.states import OVER
from laterne_provisioning.campaign.windows import window_of
from laterne_provisioning.errors import UsageError
from laterne_provisioning.options import AuthorityOption, JsonOption, PassphraseOption

app = typer.Typer(no_args_is_help=True, help="Bring a release to boards in waves that halt by themselves.")

NameArgument = Annotated[str | None, typer.Argument(metavar="[ID]", help="[default: the newest campaign]")]
WATCH_S = 1.0


@app.command()
@with_access
def start(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="A signed release file.")],
    authority: AuthorityOption,
    access: Access,
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
    past: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Reports of the last 7 days to compare with: `laterne verify --save`."),
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option(metavar="WHEN", help='When boards may start anew: "Mo-Fr 02:00-04:00 Zone".')
    ] = None,
    approve_by: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The second person's public key: `laterne grant key`.")
    ] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring RELEASE to boards. Stop it with Ctrl-C at any time; `campaign resume` goes on, here or elsewhere."""
    for path in past or []:
        if not path.is_file():
            raise UsageError(f"{path} is no file with reports: `laterne verify --save` makes one.")
    opened = authorities.open_authority(authority)
    most, percent = choosing.failures_of(max_failures)
    gates = Gates(success_percent=success, failures=most, failures_percent=percent, reports=reports)
    data = choosing.file_of(release)
    wanted = choosing.release_of(data, opened)
    downlink.checked(tenant, None)
    opened.signing_key("order", access.secrets).open()  # better to know now that it is there
    with opened.registry() as registry:
        chosen = choosing.boards_of(registry, boards or [])
    used = sorted({gateway for _, gateway in chosen})
    tenants = dict.fromkeys(used, tenant) if tenant else asyncio.run(wire.tenants_of(access.broker, used))
    now = foreground.now()
    name = foreground.name_of(wanted, now)
    found = {gateway: tenant for gateway, tenant in tenants.items() if tenant}
    whom = choosing.targets(chosen, found, interpreters.newest(opened.log))
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
    foreground.begin(opened, plan, data, access, as_json, past or [])


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
@with_access
def resume(
    authority: AuthorityOption,
    access: Access,
    campaign: NameArgument = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a campaign that was stopped, paused, approved, or has halted (then your decision is in the log)."""
    foreground.told(authority, campaign, access, "resume", as_json)


@app.command()
def pause(authority: AuthorityOption, campaign: NameArgument = None) -> None:
    """No board is asked for anything new; what boards have begun they finish."""
    foreground.pause(authority, campaign)


@app.command()
@with_access
def abort(
    authority: AuthorityOption,
    access: Access,
    campaign: NameArgument = None,
    as_json: JsonOption = False,
) -> None:
    """End it: boards that try the release are ordered back, boards that have confirmed it keep it. For good."""
    foreground.told(authority, campaign, access, "abort", as_json)


@app.command()
@with_access
def revert(
    authority: AuthorityOption,
    access: Access,
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
    as_json: JsonOption = False,
) -> None:
    """Bring the boards of a campaign back to the release before: its files, signed under a higher sequence."""
    opened = authorities.open_authority(authority)
    chosen = store.store_of(opened.directory, campaign)
    engine = chosen.engine()
    if release is None:
        older = reverting.former(opened, engine, to)
        out = out or chosen.folder / "revert.laterne"
        out_file.require_writable(out)
        reverting.renewed(opened, older, out, access.secrets, chosen.id)
        release = out
    data = choosing.file_of(release)
    wanted = choosing.release_of(data, opened)
    if engine.course.state not in OVER:
        engine = foreground.run(opened, chosen, access, "abort")
    now = foreground.now()
    plan = reverting.plan(engine, wanted, foreground.name_of(wanted, now), now)
    foreground.begin(opened, plan, data, access, as_json)


@app.command()
def status(
    authority: AuthorityOption,
    campaign: NameArgument = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Until it is over, or Ctrl-C. With --json: a line at each change.")
    ] = False,
    boards: Annotated[bool, typer.Option("--boards", help="With --json: each board, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How far a campaign is, what failed, and what it proves."""
    chosen = store.store_of(authority.resolve(), campaign)
    said = None
    with screen.live(stderr=False, wanted=watch and not as_json) as shown:
        while True:
            engine, is_run = chosen.engine(), chosen.is_run()
            shares = chosen.shares() if is_run else {}
            found = show.document(engine, is_run, shares if boards else None)
            if as_json and found != said:
                (output.print_line if watch else output.print_json)(found)
            shown(engine, shares)
            if not watch or engine.course.state in OVER:
                break
            said = found
            time.sleep(WATCH_S)
    if as_json:
        return
    screen.print_once(engine, shares)
    if not is_run and engine.course.state not in OVER:
        output.message(f"No command runs it now: `laterne campaign resume {chosen.id}` goes on.")
