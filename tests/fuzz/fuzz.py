"""Fuzzes for as long as one likes: `python tests/fuzz/fuzz.py TARGET|all --seconds N --corpus DIR` (make fuzz).

With atheris the inputs are led by coverage and the corpus grows in DIR/TARGET; without it the seeds are mutated by a
seeded source of random numbers. Either way an input that breaks a promise is written to DIR and named together with the
seed of the run and the command that shows it again:

    python tests/fuzz/fuzz.py TARGET --input FILE

Ends with 1 when a target failed, with 0 when none did, with 2 for bad usage.
"""

import argparse
import hashlib
import importlib
import importlib.util
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__)
REPOSITORY = HERE.parents[2]
MAX_INPUT_BYTES = 4096  # the longest seed
MAX_INPUT_S = 10  # an input that takes longer has found something: all of ours are read in milliseconds
MAX_RSS_MB = 1024


def load(name: str) -> Any:
    """A module of the fuzzers; what it imports of ours is watched by atheris, if that is there."""
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(0, str(REPOSITORY))
    atheris = atheris_or_none()
    watched = atheris.instrument_imports(include=["laterne_protocol", "laterne_gateway"]) if atheris else nullcontext()
    with watched:
        return importlib.import_module(f"tests.fuzz.{name}")


def atheris_or_none() -> Any:
    return importlib.import_module("atheris") if importlib.util.find_spec("atheris") else None


def judge(target: Callable[[bytes], None], data: bytes) -> None:
    """A WireError is what a target may raise; all else passes through."""
    from laterne_protocol.errors import WireError

    with suppress(WireError):
        target(data)


def watched(name: str, target: Callable[[bytes], None], folder: Path, seed: int) -> Callable[[bytes], None]:
    """The target, which writes down the input that breaks it and says how to have it again."""

    def one(data: bytes) -> None:
        try:
            judge(target, data)
        except BaseException:
            folder.mkdir(parents=True, exist_ok=True)
            failed = folder / f"{name}-failed-{hashlib.sha256(data).hexdigest()[:12]}"
            failed.write_bytes(data)
            print(f"{name} failed, seed {seed}: python {HERE.relative_to(REPOSITORY)} {name} --input {failed}")
            print(data[:256].hex(), flush=True)
            raise

    return one


def plain(name: str, seconds: float, folder: Path, seed: int) -> int:
    """Mutates the seeds for so many seconds; returns how many inputs were tried."""
    targets, mutate = load("targets"), load("mutate")
    target, seeds = targets.TARGETS[name]
    one = watched(name, target, folder, seed)
    until = time.monotonic() + seconds
    for count, data in enumerate(mutate.inputs(seeds(), random.Random(f"{name} {seed}"))):
        if time.monotonic() >= until:
            return count
        one(data[:MAX_INPUT_BYTES])
    raise AssertionError("inputs have no end")


def led_by_coverage(name: str, seconds: float, folder: Path, seed: int) -> None:
    """Never returns: libFuzzer ends the process."""
    target, seeds = load("targets").TARGETS[name]
    load("corpus").write(folder / name, seeds())
    options = {
        "max_total_time": max(1, round(seconds)),
        "max_len": MAX_INPUT_BYTES,
        "timeout": MAX_INPUT_S,
        "rss_limit_mb": MAX_RSS_MB,
        "seed": seed,
        "artifact_prefix": f"{folder}/{name}-",
    }
    atheris = atheris_or_none()
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([str(HERE), *arguments, str(folder / name)], watched(name, target, folder, seed))
    atheris.Fuzz()


def all_of_them(names: list[str], seconds: float, folder: Path, seed: int) -> int:
    """Each target in a process of its own; prints a line for each. Returns how many failed."""
    failed = 0
    for name in names:
        print(f"{name}: ", end="", flush=True)
        command = [sys.executable, str(HERE), name, "--seconds", str(seconds), "--corpus", str(folder)]
        done = subprocess.run([*command, "--seed", str(seed)], capture_output=True, text=True, check=False)
        if done.returncode:
            failed += 1
            print(f"FAILED ({done.returncode})\n{done.stdout[-3000:]}{done.stderr[-3000:]}", flush=True)
        else:
            said = done.stdout + done.stderr
            runs = re.search(r"Done (\d+) runs", said) or re.search(r"(\d+) inputs", said)
            print(f"{runs.group(1) if runs else 'no'} inputs in {seconds:g} s", flush=True)
    return failed


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="one of the targets, or all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default: 60)")
    parser.add_argument(
        "--corpus", type=Path, default=REPOSITORY / "build" / "fuzz", help="where inputs are kept (build/fuzz)"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31), help="of the run (default: a new one)")
    parser.add_argument("--input", type=Path, help="judge this one input instead")
    chosen = parser.parse_args(arguments)
    known = load("targets").TARGETS
    names = list(known) if chosen.target == "all" else [chosen.target]
    if names[0] not in known:
        parser.error(f"no target {names[0]}; there are: {', '.join(known)}")
    if chosen.input is not None:
        for name in names:
            judge(known[name][0], chosen.input.read_bytes())
        return 0
    if chosen.target == "all":
        return 1 if all_of_them(names, chosen.seconds, chosen.corpus, chosen.seed) else 0
    if atheris_or_none():
        led_by_coverage(names[0], chosen.seconds, chosen.corpus, chosen.seed)
    print(f"{plain(names[0], chosen.seconds, chosen.corpus, chosen.seed)} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
