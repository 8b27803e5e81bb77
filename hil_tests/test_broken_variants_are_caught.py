"""The sweeps can fail: deliberately broken variants of the code, each of which must be caught.

The tree is copied, one thing is broken in the copy, and the sweep that should notice runs there as a process of its
own. Without a break the same sweeps pass in this run.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from laterne_emulator.sweep import Settings

ROOT = Path(__file__).parent.parent
FOLDERS = ("firmware", "gateway", "hil_tests", "protocol", "provisioning", "tests")
WITHIN_S = 250.0


@dataclass(frozen=True)
class Variant:
    """What is broken: in `file` each good text becomes a bad one. test: what must fail, saying `caught` (a pattern).

    faults: so many times the quick sweep's cases are enough to see it. quick: tried in every run, not only in a soak.
    """

    file: str
    breaks: tuple[tuple[str, str], ...]
    test: str
    caught: str
    faults: float = 1.0
    quick: bool = True


DATABASE = "hil_tests/test_the_buffer_survives_a_power_cut_at_any_write.py"
BROKER = "hil_tests/test_broker_faults_lose_no_report.py"
BACKLOG = (
    "hil_tests/test_board_backlog_survives_a_power_cut_at_any_flash_operation.py"
    "::test_a_cut_at_any_flash_operation_loses_no_report"
)

LOST = "acknowledged up to|reports lost|no damage"  # a new start may have noticed, and states a gap

VARIANTS = {
    "acknowledged before the commit": Variant(
        "gateway/laterne_gateway/inbox.py",
        (
            (
                "return None if chain is None or chain.credential != entry.credential_digest else chain.sequence",
                "return self._intake(entry).received or None",
            ),
        ),
        DATABASE,
        LOST,
        0.2,
    ),
    "told before the commit": Variant(
        "gateway/laterne_gateway/writer.py",
        (
            (
                '            db.execute("commit")\n        except Exception as why:',
                "            self._settle(results)\n            time.sleep(0.005)\n"
                '            db.execute("commit")\n            results = []\n        except Exception as why:',
            ),
        ),
        DATABASE,
        LOST,
        0.2,
        quick=False,
    ),
    "a commit that is not synced": Variant(
        "gateway/laterne_gateway/database.py",
        (("pragma synchronous = full", "pragma synchronous = normal"),),
        DATABASE,
        LOST,
        0.2,
        quick=False,
    ),
    "the cursor before the PUBACK": Variant(
        "gateway/laterne_gateway/routes/delivery.py",
        (
            (
                "            self._sent.append(under_way)\n",
                "            self._sent.append(under_way)\n            self._buffer.delivered(self._lane, row.id)\n",
            ),
        ),
        BROKER,
        "reports lost|TimeoutError",
        0.2,
    ),
    "the newest first": Variant(
        "gateway/laterne_gateway/routes/mqtt.py",
        (("                    for row in rows:\n", "                    for row in reversed(rows):\n"),),
        BROKER,
        "out of order: ",
        0.2,
    ),
    "the newest first in what an outage left behind": Variant(
        "gateway/laterne_gateway/routes/mqtt.py",
        (
            (
                "                    for row in rows:\n",
                "                    for row in rows if pace is None else reversed(rows):\n",
            ),
        ),
        "hil_tests/test_a_day_without_broker_loses_no_report.py",
        "out of order in the backlog",
        quick=False,
    ),
    # Replaced in place instead, a file would be the old or the new one all the same: littlefs copies on write.
    "the rename missing": Variant(
        "firmware/laterne_firmware/store.py",
        (('    os.rename(path + ".n", path)\n', ""),),
        f"{BACKLOG}[1-clean]",
        "board, power cut: case",
    ),
    "the sequence from a counter in memory": Variant(
        "firmware/laterne_firmware/recovery.py",
        (
            (
                "    backlog.next_sequence = last + 1\n",
                "    backlog.next_sequence = report.FIRST_SEQUENCE\n",
            ),
        ),
        f"{BACKLOG}[1-clean]",
        "board, power cut: case",
    ),
    "the watchdog fed by a timer": Variant(
        "firmware/laterne_firmware/supervisor.py",
        (("            if self._all_alive():\n", "            if self._all_alive() or True:\n"),),
        "hil_tests/test_a_board_whose_task_stands_still_is_started_again.py",
        "TimeoutError",
    ),
    "ticks subtracted without their wrap": Variant(
        "firmware/laterne_firmware/clock.py",
        (("        passed = ticks_diff(ticks, self._ticks)\n", "        passed = ticks - self._ticks\n"),),
        "tests/firmware/test_clock.py",
        "wherever_ticks_begin_and_wrap",
    ),
}


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
