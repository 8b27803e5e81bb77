"""A campaign on a terminal: once, or again and again in the same place. In a pipe what repeats is quiet."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from laterne_provisioning.campaign import show
from laterne_provisioning.campaign.engine import Engine

PIPED_COLUMNS = 160  # whoever reads a table out of a pipe wants no line folded


def print_once(engine: Engine, shares: show.Shares) -> None:
    """The picture, on stdout."""
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPED_COLUMNS)
    console.print(show.picture(engine, int(time.time()), shares))


@contextmanager
def live(stderr: bool, wanted: bool = True) -> Iterator[Callable[[Engine, show.Shares], None]]:
    """A function that shows a campaign, if it is wanted, each time in the same place. stderr: there, else on stdout."""
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not wanted or not console.is_terminal:
        yield lambda *_: None
        return
    with Live(console=console, auto_refresh=False) as place:
        yield lambda engine, shares: place.update(show.picture(engine, int(time.time()), shares), refresh=True)
