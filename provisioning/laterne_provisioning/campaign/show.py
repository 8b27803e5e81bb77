"""What people and programs see of a campaign: its course, its boards by wave and state, what failed, what it proves."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from laterne_provisioning.campaign import evidence
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.rows import Row
from laterne_provisioning.campaign.states import (
    BOARD_STATES,
    COMPLETED,
    CONFIRMED,
    DRAFT,
    ENDED,
    FAILED,
    HALTED,
    PAUSED,
    SKIPPED,
)

Shares = Mapping[str, float]  # how much of the release a board that fetches it has, 0..1

SHOWN = 12  # boards that are named, the newest; the others are counted
_COLOURS = {HALTED: "bold red", FAILED: "red", CONFIRMED: "green", COMPLETED: "bold green", PAUSED: "yellow"}


def document(engine: Engine, is_run: bool, shares: Shares | None = None) -> dict[str, object]:
    """A campaign for programs. shares: with each board, these the ones that fetch."""
    plan, course = engine.plan, engine.course
    failed, tried = engine.tried()
    found: dict[str, object] = {
        "id": plan.id,
        "state": course.state,
        "since": _moment(course.since),
        "reason": course.reason or None,
        "is_run": is_run,
        "release": {"version": plan.release.version, "sequence": plan.release.sequence, "digest": plan.release.digest},
        "plan": plan.digest,
        "wave": course.wave,
        "waves": [dict(_counts(engine, number)) | {"boards": len(wave)} for number, wave in enumerate(plan.waves)],
        "boards": dict(engine.counts()),
        "tried": tried,
        "failed": failed,
        "bound_percent": round(100 * evidence.bound(failed, tried), 3) if tried else None,
        "failures": [
            {"board": board, "why": row.why, "said": row.said, "at": _moment(row.since), "armed": row.stake}
            for board, row in _of_state(engine, FAILED)
        ],
    }
    return found if shares is None else found | {"of_boards": _board_documents(engine, shares)}


def _board_documents(engine: Engine, shares: Shares) -> list[dict[str, object]]:
    waves = {board: number for number, wave in enumerate(engine.plan.waves) for board in wave}
    return [
        {
            "board": board,
            "wave": waves[board],
            "state": row.state,
            "since": _moment(row.since),
            "why": row.why or None,
            "said": row.said or None,
            "share": shares.get(board),
            "reports_before": row.before.reports,
            "reports_after": row.after.reports,
            "soaked": row.soaked,
        }
        for board, row in sorted(engine.rows.items())
    ]


def picture(engine: Engine, now: int, shares: Shares) -> Group:
    """A campaign for a person: fits a screen, whatever its size."""
    plan, course = engine.plan, engine.course
    head = Text.assemble(
        (plan.id, "bold"),
        f"  release {plan.release.version} ({plan.release.sequence}, {plan.release.digest[:8]})  ",
        (course.state, _COLOURS.get(course.state, "bold")),
        f" for {_span(now - course.since)}",
        f": {course.reason}" if course.reason else "",
    )
    parts: list[Text | Table] = [head, _waves(engine)]
    failed, tried = engine.tried()
    parts.append(Text(evidence.sentence(failed, tried)))
    if engine.plan.windows:
        parts.append(Text("Boards are started anew in: " + "; ".join(window.text for window in engine.plan.windows)))
    named = _of_state(engine, FAILED)
    if named:
        kinds = Counter(row.why for _, row in named)
        parts.append(Text("Failed: " + ", ".join(f"{count} {why}" for why, count in kinds.most_common())))
        parts.append(_table(("failed", "why", "what", "for"), named, now))
    under_way = [one for one in _under_way(engine) if one[1].state != CONFIRMED]
    if under_way:
        parts.append(_table(("under way", "state", "what", "for"), under_way, now, engine, shares))
    if course.state == DRAFT:
        parts.append(Text(f"It waits for a second person: laterne campaign approve {plan.id} --key FILE"))
    return Group(*parts)


def _waves(engine: Engine) -> Table:
    states = [state for state in BOARD_STATES if engine.counts()[state]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("wave")
    table.add_column("boards", justify="right")
    for state in states:
        table.add_column(state, justify="right", style=_COLOURS.get(state))
    table.add_column("well through the soak", justify="right")
    for number, wave in enumerate(engine.plan.waves):
        counts = _counts(engine, number)
        name = "canary" if not number else str(number)
        soaked = sum(engine.rows[board].soaked for board in wave)
        table.add_row(
            f"> {name}" if number == engine.course.wave else f"  {name}",
            str(len(wave)),
            *[str(counts[state]) if counts[state] else "" for state in states],
            str(soaked) if soaked else "",
        )
    return table


def _table(
    columns: tuple[str, ...],
    boards: list[tuple[str, Row]],
    now: int,
    engine: Engine | None = None,
    shares: Shares | None = None,
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for board, row in boards[:SHOWN]:
        what = row.said if engine is None else _progress(engine.plan.gates.reports, row, (shares or {}).get(board))
        table.add_row(board, row.why if engine is None else row.state, what, _span(now - row.since))
    if len(boards) > SHOWN:
        table.add_row(f"and {len(boards) - SHOWN} more")
    return table


def _progress(wanted: int, row: Row, share: float | None) -> str:
    if row.state == "SENDING":
        return "ordered to fetch it" if share is None else f"{100 * share:.0f} % has arrived"
    if row.state == "STAGED" and row.before.reports < wanted:
        return f"{row.before.reports} of {wanted} reports to compare with"
    if row.state == "STAGED":
        return "waits for its turn"
    if row.state == "WAITING_WINDOW":
        return "waits for its window"
    if row.state == "ARMED":
        return "ordered to try it"
    if row.state == "TRIAL":
        healthy = f"{min(row.after.reports, wanted)} of {wanted} healthy reports"
        return healthy if row.proven else f"{healthy}, its gateway has not confirmed it yet"
    return row.said


def _counts(engine: Engine, wave: int) -> Counter[str]:
    return Counter(engine.rows[board].state for board in engine.plan.waves[wave])


def _of_state(engine: Engine, state: str) -> list[tuple[str, Row]]:
    found = [(board, row) for board, row in engine.rows.items() if row.state == state]
    return sorted(found, key=lambda one: (-one[1].since, one[0]))


def _under_way(engine: Engine) -> list[tuple[str, Row]]:
    found = [(b, row) for b, row in engine.rows.items() if row.state not in (*ENDED, "QUEUED", SKIPPED)]
    return sorted(found, key=lambda one: (-one[1].since, one[0]))


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(seconds: int) -> str:
    if seconds < 120:
        return f"{max(0, seconds)} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
