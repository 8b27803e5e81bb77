"""The sweeps can fail: deliberately broken variants of the code, each of which must be caught.

The tree is copied, one thing is broken in the copy, and the sweep that should notice runs there as a process of its
own. Without a break the same sweeps pass in this run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.broken_variants import VARIANTS, Variant

from laterne_emulator.sweep import Settings

ROOT = Path(__file__).parent.parent
FOLDERS = ("firmware", "gateway", "hil_tests", "protocol", "provisioning", "tests")
WITHIN_S = 250.0


def _broken_tree(variant: Variant, place: Path) -> Path:
    tree = place / "tree"
    tree.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    file = tree / variant.file
    text = file.read_text()
    for good, bad in variant.breaks:
        assert text.count(good) == 1, f"{variant.file} has changed: say anew how to break it"
        text = text.replace(good, bad)
    file.write_text(text)
    return tree


def _tried() -> list[str]:
    everything = Settings.found(None, None).factor > 1
    return [name for name, variant in VARIANTS.items() if variant.quick or everything]


@pytest.mark.parametrize("name", _tried())
def test_a_broken_variant_is_caught(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    tree = _broken_tree(variant, tmp_path)
    paths = [tree, *(tree / folder for folder in ("protocol", "gateway", "provisioning", "hil_tests"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "LATERNE_FAULTS": str(variant.faults)}
    environment.setdefault("LATERNE_SENSORTHINGS_PYTHON", str(ROOT / ".sensorthings" / "bin" / "python"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--show-capture=no", variant.test],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 1, f"not caught by {variant.test}:\n{done.stdout[-2000:]}{done.stderr[-1000:]}"
    assert re.search(variant.caught, done.stdout), f"{variant.test} failed, but of something else:\n{done.stdout}"
