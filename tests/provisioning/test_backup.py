"""A backup is proven by what its restore can do: enrol, export a roster, and never go back."""

import io
import json
import stat
import tarfile
from pathlib import Path

import pytest
from tests.provisioning.commands import enrol, killed_at, laterne
from tests.provisioning.fake_board import FakeBoard
from tests.provisioning.test_roster_export import read

from laterne_provisioning import audit
from laterne_provisioning.authority import open_authority


def contents(directory: Path) -> dict[str, bytes]:
    """All files of an authority but the registry and the log, whose bytes may differ for the same content."""
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in ("registry.db", audit.LOG)}


@pytest.fixture
def backup(authority: Path, boards: list[FakeBoard], tmp_path: Path) -> Path:
    """Of an authority with two boards and two rosters of gw."""
    for _ in range(2):
        laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", tmp_path / "r")
    laterne("backup", "--authority", authority, "-o", tmp_path / "backup.tar", "--include-plain-keys")
    return tmp_path / "backup.tar"


def test_a_restored_authority_enrols_boards_and_exports_rosters_that_gateways_take(
    backup: Path, authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    before = laterne("board", "list", "--authority", authority, "--json").json()
    # After the backup work went on: these versions were given out, and the backup knows nothing of them.
    for gateway in ("gw", "gw", "gw", "later"):
        laterne("roster", "export", "--gateway", gateway, "--authority", authority, "-o", tmp_path / gateway)
    former, _ = read(tmp_path / "gw", authority)
    assert former.version == 5
    back = tmp_path / "back"
    done = laterne("restore", backup, back, "--json").json()
    assert (done["name"], done["wrong"], done["roster_version_at_least"]) == ("Stadtwerke", [], 20_000)
    assert contents(back) == contents(authority)
    for path in [back, *back.rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o644 if path.name == "trust.cbor" else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert laterne("board", "list", "--authority", back, "--json").json() == before
    with FakeBoard() as third:
        enrol(third, "LE-0003", back)
    assert enrol(boards[0], "LE-0001", back, "--json").json()["already"] is True
    for gateway in ("gw", "later"):
        out = tmp_path / f"{gateway}-new"
        laterne("roster", "export", "--gateway", gateway, "--authority", back, "-o", out)
        found, _ = read(out, back)
        assert found.version == 20_000, "higher than every version given out, also of a gateway the backup knows not"
        assert [entry.board for entry in found.entries] == ["LE-0001", "LE-0002", "LE-0003"]
    laterne("roster", "export", "--gateway", "gw", "--authority", back, "-o", tmp_path / "gw-new")
    assert read(tmp_path / "gw-new", back)[0].version == 20_001
    laterne("audit", "verify", "--authority", back)


def test_a_restore_of_a_restore_jumps_again_and_a_version_that_is_known_can_be_given(
    backup: Path, tmp_path: Path
) -> None:
    laterne("restore", backup, tmp_path / "a", "--roster-version-at-least", 7)
    laterne("roster", "export", "--gateway", "gw", "--authority", tmp_path / "a", "-o", tmp_path / "r")
    assert read(tmp_path / "r", tmp_path / "a")[0].version == 7
    laterne("restore", backup, tmp_path / "b", "--roster-version-at-least", 1)
    laterne("roster", "export", "--gateway", "gw", "--authority", tmp_path / "b", "-o", tmp_path / "r")
    assert read(tmp_path / "r", tmp_path / "b")[0].version == 3, "what is in the backup counts, too"
    laterne("restore", backup, tmp_path / "c")
    laterne("backup", "--authority", tmp_path / "c", "-o", tmp_path / "second.tar", "--include-plain-keys")
    laterne("restore", tmp_path / "second.tar", tmp_path / "d", "--roster-version-at-least", 5)
    laterne("roster", "export", "--gateway", "gw", "--authority", tmp_path / "d", "-o", tmp_path / "r")
    assert read(tmp_path / "r", tmp_path / "d")[0].version == 20_000, "no restore lowers what an earlier one raised"


def test_keys_that_are_not_encrypted_go_in_only_when_that_is_said(authority: Path, tmp_path: Path) -> None:
    done = laterne("backup", "--authority", authority, "-o", tmp_path / "b", code=2)
    assert "keys/enrolment.pem" in done.err
    assert "--include-plain-keys" in done.err
    assert not (tmp_path / "b").exists()
    assert [record.act for record in [open_authority(authority).log.last()] if record] == ["sign"]


def test_encrypted_keys_stay_encrypted_and_missing_ones_are_named(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("Kandelaber 7\n")
    laterne("init", tmp_path / "a", "--passphrase-file", secret)
    (tmp_path / "a" / "keys" / "root-1.pem").rename(tmp_path / "safe.pem")
    done = laterne("backup", "--authority", tmp_path / "a", "-o", tmp_path / "b")
    assert "Not in it, because it is not in the directory: file2:keys/root-1.pem" in done.out
    body = (tmp_path / "b").read_bytes()
    assert body.count(b"BEGIN ENCRYPTED PRIVATE KEY") == 6
    assert b"BEGIN PRIVATE KEY" not in body
    assert b"Kandelaber" not in body
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert "is there already" in laterne("backup", "--authority", tmp_path / "a", "-o", tmp_path / "b", code=2).err
    inside = tmp_path / "a" / "b"
    assert "in the authority itself" in laterne("backup", "--authority", tmp_path / "a", "-o", inside, code=2).err
    assert (tmp_path / "b").read_bytes() == body
    laterne("restore", tmp_path / "b", tmp_path / "back")
    export = ["roster", "export", "--gateway", "gw", "--authority", tmp_path / "back", "-o", tmp_path / "r"]
    laterne(*export, "--passphrase-file", secret)
    assert read(tmp_path / "r", tmp_path / "back")[0].version == 20_000


def test_a_directory_that_is_not_empty_is_left_as_it_is(backup: Path, authority: Path) -> None:
    before = contents(authority)
    assert "is not empty" in laterne("restore", backup, authority, code=2).err
    assert contents(authority) == before


def test_a_damaged_backup_is_refused_and_leaves_nothing(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    place = tmp_path / "place"
    place.mkdir()
    damaged = place / "damaged.tar"
    cuts = [whole[:1000], whole[: len(whole) // 2], b"", b"no tar at all" * 100]
    flips = []
    for mark in (b"BEGIN PRIVATE KEY", b"SQLite format 3", b'"act":"init"', b'"sha256"', b"file2:keys/roster.pem"):
        changed = bytearray(whole)
        changed[whole.index(mark) + 2] ^= 1
        flips.append(bytes(changed))
    for body in cuts + flips:
        damaged.write_bytes(body)
        assert "backup" in laterne("restore", damaged, place / "new", code=1).err
        assert [path.name for path in place.iterdir()] == ["damaged.tar"]
    assert "cannot be read" in laterne("restore", place / "nowhere.tar", place / "new", code=2).err


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "keys/../../evil", "keys//evil"])
def test_a_member_that_would_leave_the_directory_is_refused(backup: Path, tmp_path: Path, name: str) -> None:
    with tarfile.open(backup) as whole, tarfile.open(tmp_path / "evil.tar", "w") as evil:
        for entry in whole.getmembers():
            file = whole.extractfile(entry)
            assert file is not None
            body = file.read().replace(b'"keys/roster.pem"', json.dumps(name).encode())
            entry.size = len(body)
            entry.name = name if entry.name == "keys/roster.pem" else entry.name
            evil.addfile(entry, io.BytesIO(body))
    done = laterne("restore", tmp_path / "evil.tar", tmp_path / "deep" / "new", code=1)
    assert "is no whole backup" in done.err
    assert "evil" in done.err
    assert not [path for path in tmp_path.rglob("*evil") if path.name == "evil"]


def test_a_member_that_would_be_larger_than_the_file_takes_no_memory(tmp_path: Path) -> None:
    """tar has members with holes: 10 KB that say they are a terabyte of zeros (GNU tar manual, "PAX 1")."""
    hole = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    entry = tarfile.TarInfo("backup.json")
    entry.size = len(hole)
    version = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    entry.pax_headers = {**version, "GNU.sparse.name": entry.name, "GNU.sparse.realsize": str(1 << 40)}
    with tarfile.open(tmp_path / "bomb.tar", "w", format=tarfile.PAX_FORMAT) as bomb:
        bomb.addfile(entry, io.BytesIO(hole))
    done = laterne("restore", tmp_path / "bomb.tar", tmp_path / "new", code=1)
    assert "is no whole backup (a member 'backup.json')" in done.err


def test_a_restore_killed_anywhere_leaves_no_authority_or_a_whole_one(backup: Path, tmp_path: Path) -> None:
    for cut in range(1, 200, 3):
        back = tmp_path / f"back-{cut}"
        finished = killed_at(cut, "restore", backup, back)
        if back.exists():
            with open_authority(back).registry() as registry:
                assert registry.roster_floor() == 20_000
        if finished:
            assert cut > 20
            return


def test_a_broken_audit_log_is_restored_as_it_was_and_said(authority: Path, tmp_path: Path) -> None:
    log = authority / audit.LOG
    log.write_bytes(log.read_bytes().replace(b'"act":"init"', b'"act":"idle"'))
    laterne("backup", "--authority", authority, "-o", tmp_path / "b", "--include-plain-keys")
    done = laterne("restore", tmp_path / "b", tmp_path / "back", code=1)
    assert "was changed" in done.err
    assert (tmp_path / "back" / audit.LOG).read_bytes().startswith(log.read_bytes())
