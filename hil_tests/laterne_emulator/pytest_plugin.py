"""Fixtures for tests with emulated boards and seeded faults. pytest loads this file in every run: it imports nothing
heavy.

    async def test_a_board_answers(emulated_boards):
        bench = await emulated_boards(boards=2)              # with the firmware of this checkout, powered on
        bench = await emulated_boards(files={"main.py": b"print('hello')"}, powered=False)

The arguments are those of laterne_emulator.bench.Bench. The seed comes from --board-seed (default: a new one for each
run, printed when a test fails), so that a failure can be repeated. `fault_sweep` counts sweeps of faults (sweep.py);
at the end of the run their table is printed, also when pytest-xdist had several processes run the tests.
"""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.sweep import Sweep, Table

SEED = pytest.StashKey[int]()
TABLE = pytest.StashKey[Any]()


class Benches(Protocol):
    """Puts up a bench; it is taken down, and every process ended, when the test is over."""

    async def __call__(
        self, boards: int = 1, *, powered: bool = True, blank: bool = False, **settings: Any
    ) -> "Bench": ...


class FaultSweeps(Protocol):
    """The cases of a fault class. quick: how many a quick run has; None for a sweep that ends by itself."""

    def __call__(self, name: str, quick: int | None = None) -> "Sweep": ...


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("laterne")
    group.addoption("--board-seed", type=int, default=None, help="seed of the emulated boards' sensors and lines")
    group.addoption("--fault-seed", type=int, default=None, help="seed of the fault sweeps")
    group.addoption("--sweeps", action="store_true", help="of the tests that are named only the fault sweeps")
    group.addoption("--board", metavar="PORT", default=None, help="the USB port of a real board that is not enrolled")
    group.addoption("--board-line", metavar="PORT", default=None, help="with --board: the adapter on that board's UART")
    group.addoption("--fault-case", type=int, default=None, help="run only this case of each fault sweep")


def pytest_configure(config: pytest.Config) -> None:
    from laterne_emulator.sweep import Settings, Table

    if config.getoption("--board-line") is not None and config.getoption("--board") is None:
        raise pytest.UsageError("--board-line is the line of the board on --board PORT: name that, too")
    given = config.getoption("--board-seed")
    # A worker of pytest-xdist is told by the run that began it: one run has one seed.
    run = getattr(config, "workerinput", {})
    if given is None:
        given = run.get("board_seed", random.SystemRandom().randrange(1_000_000))
    config.stash[SEED] = given
    seed = run.get("fault_seed", config.getoption("--fault-seed"))
    config.stash[TABLE] = Table(Settings.found(seed, config.getoption("--fault-case")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """--sweeps: only what takes faults from a sweep, however the test is called."""
    if config.getoption("--sweeps"):
        wanted = [item for item in items if "fault_sweep" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
        items[:] = wanted


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist, in the run, for each worker: which seeds."""
    node.workerinput["board_seed"] = node.config.stash[SEED]
    node.workerinput["fault_seed"] = node.config.stash[TABLE].settings.seed


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """pytest-xdist, in the run, when a worker has ended: what it counted. One that crashed has counted nothing."""
    node.config.stash[TABLE].add(getattr(node, "workeroutput", {}).get("faults", []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = session.config.stash[TABLE].counted()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if table.lines:
        terminalreporter.section("faults")
        for line in table.text():
            terminalreporter.write_line(line)


@pytest.fixture
def fault_sweep(request: pytest.FixtureRequest) -> FaultSweeps:
    """Sweeps whose cases are counted in the table at the end of the run."""
    table: Table = request.config.stash[TABLE]

    def sweep(name: str, quick: int | None = None) -> "Sweep":
        return table.sweep(name, request.node.nodeid, quick)

    return sweep


@pytest.fixture
def board_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run. pytest shows what a fixture printed when its test fails."""
    seed = request.config.stash[SEED]
    print(f"emulated boards: --board-seed {seed}")
    return seed


@pytest.fixture
async def emulated_boards(tmp_path: Path, board_seed: int) -> AsyncIterator[Benches]:
    """A function that puts up benches: `await emulated_boards(boards=2)`. See the module's text."""
    from laterne_emulator.bench import Bench
    from laterne_emulator.image import find_firmware

    async with AsyncExitStack() as stack:
        made = 0

        async def put_up(boards: int = 1, *, powered: bool = True, blank: bool = False, **settings: Any) -> Bench:
            nonlocal made
            made += 1
            if not blank and "files" not in settings:
                settings.setdefault("firmware", find_firmware())
            settings.setdefault("seed", board_seed)
            bench = await stack.enter_async_context(Bench(tmp_path / f"bench-{made}", boards, **settings))
            if powered:
                await bench.power_on()
            return bench

        yield put_up
