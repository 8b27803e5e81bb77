"""What a person sees of a demo: the steps of the set-up, a live table of the boards, the figures at the end.

Everything but the figures goes to stderr, and nothing at all when stderr is no terminal.
"""

import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from laterne_emulator.figures import BoardFigures, Figures

RATE_OVER_S = 5.0  # one report of the demo
# How a board stands in a campaign, for people; the rest is said as it comes.
_STANDS = {
    "QUEUED": "waits for its wave",
    "SENDING": "fetches it",
    "STAGED": "has it, not yet tried",
    "ARMED": "is ordered to try it",
    "TRIAL": "tries it",
    "CONFIRMED": "runs it",
    "FAILED": "went back",
    "SKIPPED": "left out",
}
_COLOURS = {"CONFIRMED": "green", "FAILED": "red", "TRIAL": "yellow", "HALTED": "bold red", "COMPLETED": "bold green"}


class View:
    """quiet: even on a terminal show no table (the caller wants JSON)."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._out = Console()
        self._shown = self._console.is_terminal and not quiet
        self._live: Live | None = None
        self._bytes: deque[tuple[float, dict[str, int]]] = deque()
        self._campaign: dict[str, Any] | None = None

    def step(self, what: str) -> None:
        """One thing that begins now."""
        if self._shown:
            self._console.print(f"[dim]{what} …[/dim]")

    def note(self, what: str) -> None:
        """Something that has happened to a release: above the table, once."""
        if self._shown:
            (self._console if self._live is None else self._live.console).print(what, style="bold", highlight=False)

    def show_campaign(self, found: dict[str, Any]) -> None:
        """What `laterne campaign status --json --boards` says of the campaign that runs: shown with the next table."""
        self._campaign = found

    def __enter__(self) -> "View":
        if self._shown:
            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, figures: Figures, boards: dict[str, dict[str, int]]) -> None:
        """Bring the table up to date. boards: for each id its `readings_served` and its bytes on the line."""
        if self._live is None:
            return
        rates = self._rates(
            {name: board["bytes_to_board"] + board["bytes_from_board"] for name, board in boards.items()}
        )
        table = Table(
            title=f"{figures.reports_verified} reports verified, {figures.refused} refused, "
            f"{figures.readings_delivered} of {figures.readings_taken} readings delivered, {figures.seconds:.0f} s",
            title_justify="left",
        )
        for heading in ("board", "last values"):
            table.add_column(heading)
        for heading in ("reports", "readings waiting", "line B/s"):
            table.add_column(heading, justify="right")
        campaign = self._campaign
        if campaign is not None:
            table.add_column(campaign["release"]["version"], min_width=_widest())
        stands = (
            {} if campaign is None else {one["board"]: _stands(one, campaign["state"]) for one in campaign["of_boards"]}
        )
        for name, board in sorted(boards.items()):
            seen = figures.boards.get(name, BoardFigures())
            table.add_row(
                name,
                "  ".join(seen.values.values()) or "…",
                str(seen.reports),
                str(board["readings_served"] - seen.readings),
                f"{rates[name]:.0f}",
                *([stands.get(name, Text(""))] if campaign is not None else []),
            )
        self._live.update(table if campaign is None else Group(table, _line_of(campaign)))

    def _rates(self, now_bytes: dict[str, int]) -> dict[str, float]:
        now = time.monotonic()
        self._bytes.append((now, now_bytes))
        while now - self._bytes[0][0] > RATE_OVER_S and len(self._bytes) > 2:
            self._bytes.popleft()
        then, then_bytes = self._bytes[0]
        span = max(now - then, 0.1)
        return {name: (count - then_bytes.get(name, count)) / span for name, count in now_bytes.items()}

    def finish(self, summary: dict[str, object], place: Path) -> None:
        """The figures, for people, and where everything is kept."""
        for name, value in summary.items():
            if name == "campaigns":
                continue
            said = ", ".join(f"{part} {one}" for part, one in value.items()) if isinstance(value, dict) else value
            self._out.print(f"{name.replace('_', ' '):20} {said}", highlight=False)
        campaigns = summary.get("campaigns")
        for one in campaigns if isinstance(campaigns, list) else ():
            boards = ", ".join(f"{count} {state}" for state, count in one["boards"].items())
            self._out.print(f"{'campaign':20} {one['release']} {one['state']}: {boards}", highlight=False)
        self._out.print(f"everything is kept in {place}", highlight=False, soft_wrap=True)


def _stands(board: dict[str, Any], campaign: str) -> Text:
    state, share = board["state"], board["share"]
    words = _STANDS.get(state, state.lower())
    if state == "QUEUED" and campaign == "HALTED":
        words = "never gets it"
    elif state == "SENDING" and share is not None:
        words = f"{words}, {100 * share:.0f} %"
    elif state == "TRIAL" and board["reports_after"]:
        words = f"{words}, good reports: {board['reports_after']}"
    return Text(words, style=_COLOURS.get(state, ""))


def _widest() -> int:
    # So that the table does not change its shape each second.
    return max(len(words) for words in _STANDS.values()) + len(", 100 %")


def _line_of(campaign: dict[str, Any]) -> Text:
    """The waves, the one under way marked, and how the campaign stands."""
    line = Text(f"campaign of {campaign['release']['version']}: ")
    for number, wave in enumerate(campaign["waves"]):
        name = "canary" if not number else f"wave {number}"
        words = f"{name} {wave.get('CONFIRMED', 0)}/{wave['boards']}"
        line.append(words, style="bold" if number == campaign["wave"] else "dim")
        line.append("  ")
    line.append(campaign["state"], style=_COLOURS.get(campaign["state"], ""))
    if campaign["reason"]:
        line.append(f": {campaign['reason']}")
    return line
