"""`make bench`: every benchmark of this folder as one table. ARGS names some of them: make bench ARGS="bytes p256".

A benchmark is a file bench_NAME.py with a function rows() that measures when it is called and returns
(what, figure, budget) for each thing measured; the budget is empty where there is none.
"""

import importlib.util
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

Row = tuple[str, str, str]


def _rows_of(path: Path) -> Callable[[], list[Row]]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows: Callable[[], list[Row]] = module.rows
    return rows


def main(names: list[str]) -> int:
    console = Console(width=None if sys.stdout.isatty() else 132)
    here = Path(__file__).parent
    sys.path[:0] = [str(here), str(here.parents[1])]  # benchmarks share files with one another and with tests
    found = {path.stem.removeprefix("bench_"): path for path in sorted(here.glob("bench_*.py"))}
    unknown = [name for name in names if name not in found]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    console.print(
        f"CPython {platform.python_version()} on {platform.machine()}, {platform.system()} {platform.release()}"
    )
    for name in names or found:
        table = Table(title=name, title_justify="left")
        table.add_column("what")
        table.add_column("figure", justify="right")
        table.add_column("budget or peer", justify="right")
        for what, figure, budget in _rows_of(found[name])():
            table.add_row(what, figure, budget)
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
