"""The table of attacks on updates (README, 11.6) names every threat, and the tests that it names are there."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TABLE = (
    (REPOSITORY / "protocol" / "README.md").read_text(encoding="utf-8").split("### 11.6 Attacks")[1].split("\n## ")[0]
)
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| ")]
# Where a column's tests may stand; tests of the shared protocol code are both ends'.
GATEWAY, BOARD = ("tests/gateway", "tests/protocol", "tests/fuzz"), ("hil_tests", "tests/protocol", "tests/fuzz")
RFC_9124 = (
    "IMG.EXPIRED", "IMG.EXPIRED.OFFLINE", "IMG.INCOMPATIBLE", "IMG.FORMAT", "IMG.LOCATION", "NET.REDIRECT",
    "NET.ONPATH", "IMG.REPLACE", "IMG.NON_AUTH", "UPD.WRONG_PRECURSOR", "UPD.UNAPPROVED", "IMG.DISCLOSURE",
    "MFST.OVERRIDE", "MFST.EXPOSURE", "IMG.EXTRA", "KEY.EXPOSURE", "MFST.MODIFICATION", "MFST.TOCTOU",
)  # fmt: skip
TUF = (
    "arbitrary installation", "endless data", "extraneous dependencies", "fast-forward", "freeze", "malicious mirrors",
    "mix-and-match", "rollback", "key compromise", "wrong software",
)  # fmt: skip
UPTANE = ("eavesdrop", "drop-request", "slow retrieval", "partial bundle", "arbitrary software")  # beside those of TUF


def names_in(folders: tuple[str, ...]) -> set[str]:
    files = [file for folder in folders for file in (REPOSITORY / folder).glob("test_*.py")]
    return {
        name for file in files for name in re.findall(r"^(?:async )?def test_(\w+)", file.read_text(), re.MULTILINE)
    }


def test_every_threat_of_rfc_9124_of_tuf_and_of_uptane_is_in_the_table() -> None:
    attacks = {attack for row in ROWS for attack in re.split(r"[,;] ", re.sub(r" \(below\)", "", row[0]))}
    assert not {*RFC_9124, *TUF, *UPTANE} - attacks


def test_every_attack_has_its_test_at_the_gateway_and_at_the_board_or_the_reason_why_not() -> None:
    assert len(ROWS) > 20
    for column, folders in ((1, GATEWAY), (2, BOARD)):
        there = names_in(folders)
        for row in ROWS[1:]:
            assert row[column], row[0]
            for name in re.findall(r"`(\w+)`", row[column]):
                assert name in there, f"{row[0]}: {name}"
