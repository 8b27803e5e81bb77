"""A new authority: whole or not there, private files for their owner only."""

import os
import pty
import stat
import subprocess
import sys
import termios
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.provisioning.commands import WITHIN_S, enrol, killed_at, laterne, running
from tests.provisioning.fake_board import FakeBoard

from laterne_protocol import trust
from laterne_provisioning.authority import open_authority
from laterne_provisioning.files import write_private
from laterne_provisioning.pkcs8 import ROUNDS
from laterne_provisioning.primitives import is_signature

NAMES = ["enrolment", "order", "release", "root-1", "root-2", "root-3", "roster"]


@pytest.mark.parametrize("trap", ["a link to what is ours", "a directory for everybody"])
def test_what_others_have_put_in_the_way_is_neither_emptied_nor_filled(tmp_path: Path, trap: str) -> None:
    """In /tmp anybody can guess where an authority is made: beside its place, under a name of its own."""
    home, beside = tmp_path / "home", tmp_path / ".authority.unfinished"
    home.mkdir()
    (home / "thesis").write_text("done")
    if trap == "a link to what is ours":
        beside.symlink_to(home)
    else:
        home.rename(beside)
        beside.chmod(0o777)
    done = laterne("init", tmp_path / "authority", "--no-passphrase", code=2)
    assert "No authority can be made at" in done.err or "others can get at it" in done.err
    assert (beside / "thesis").read_text() == "done"
    assert [path.name for path in beside.iterdir()] == ["thesis"]
    assert not (tmp_path / "authority").exists()


def test_an_authority_has_three_roots_and_a_key_for_each_role_all_private(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "authority"
    made = laterne("init", directory, "--no-passphrase", "--json").json()
    assert made["name"] == "authority"
    assert [key["role"] for key in made["keys"]] == ["root"] * 3 + ["enrolment", "release", "order", "roster"]
    assert sorted(path.stem for path in (directory / "keys").iterdir()) == NAMES
    for path in [directory, *directory.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = 0o700 if path.is_dir() else 0o644 if path.name == "trust.cbor" else 0o600
        assert mode == wanted, path
    found = trust.trust_of((directory / "trust.cbor").read_bytes(), is_signature)
    assert (found.version, found.authority, found.threshold, len(found.roots)) == (1, "authority", 2, 3)


def test_a_directory_that_is_not_empty_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    assert "is not empty" in laterne("init", tmp_path / "full", "--no-passphrase", code=2).err
    assert "is not empty" in laterne("init", tmp_path / "full", code=2).err, "before it asks for a passphrase"
    assert "is a file" in laterne("init", tmp_path / "full" / "letter", "--no-passphrase", code=2).err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_the_same_command_again_says_that_there_is_an_authority_and_leaves_it(tmp_path: Path) -> None:
    laterne("init", tmp_path / "a", "--no-passphrase")
    made = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert "there is an authority in it already" in laterne("init", tmp_path / "a", "--no-passphrase", code=2).err
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == made


def test_an_empty_directory_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    laterne("init", tmp_path / "empty", "--no-passphrase")
    assert open_authority(tmp_path / "empty").name == "empty"


def test_killed_anywhere_there_is_no_authority_or_a_whole_one_and_the_same_command_makes_one(tmp_path: Path) -> None:
    cuts = 0
    for cut in range(1, 1000):
        directory = tmp_path / f"authority-{cut}"
        finished = killed_at(cut, "init", directory, "--no-passphrase")
        if directory.exists():
            open_authority(directory)
        else:
            laterne("init", directory, "--no-passphrase")
            open_authority(directory)
        assert not list(tmp_path.glob(".*")), "something unfinished was left"
        if finished:
            break
        cuts += 1
    assert cuts > 20, "the sweep must have cut at the making of each file"


def test_without_a_terminal_a_missing_passphrase_names_the_options(tmp_path: Path) -> None:
    done = laterne("init", tmp_path / "a", code=2)
    assert "--passphrase-file" in done.err
    assert "--no-passphrase" in done.err
    assert list(tmp_path.iterdir()) == []


def test_keys_are_encrypted_with_the_passphrase_of_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("Kandelaber 7\n")
    directory = tmp_path / "a"
    laterne("init", directory, "--passphrase-file", secret)
    for path in (directory / "keys").iterdir():
        content = path.read_bytes()
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
        key = load_pem_private_key(content, b"Kandelaber 7")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert ROUNDS.to_bytes(3, "big") in b64decode(b"".join(content.splitlines()[1:-1]))
    with FakeBoard() as board:
        assert "--passphrase-file" in enrol(board, "A", directory, code=2).err
        secret.write_text("wrong")
        assert (
            "does not open the enrolment key" in enrol(board, "A", directory, "--passphrase-file", secret, code=2).err
        )
        secret.write_text("")
        assert "holds no passphrase" in enrol(board, "A", directory, "--passphrase-file", secret, code=2).err
        gone = tmp_path / "gone"
        assert "cannot be read" in enrol(board, "A", directory, "--passphrase-file", gone, code=2).err
        assert board.asked == []
        secret.write_text("Kandelaber 7")
        enrol(board, "A", directory, "--passphrase-file", secret)
    assert (
        "--passphrase-file"
        in laterne("roster", "export", "--gateway", "gw", "--authority", directory, "-o", tmp_path / "r", code=2).err
    )


def test_at_a_terminal_the_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with running("init", tmp_path / "a", terminal=slave) as command:
        os.close(slave)
        shown = b""
        for asked in (b"Passphrase of the new keys", b"Repeat"):
            while asked not in shown:
                shown += os.read(master, 1000)
            while termios.tcgetattr(master)[3] & termios.ECHO:
                os.sched_yield()  # what is typed before the echo is off would be thrown away
            os.write(master, b"Kandelaber 7\n")
        try:
            while more := os.read(master, 1000):
                shown += more
        except OSError:
            pass  # the terminal is closed: the command has ended
        os.close(master)
        assert command.wait(WITHIN_S) == 0, shown
    assert b"Kandelaber" not in shown
    load_pem_private_key((tmp_path / "a" / "keys" / "roster.pem").read_bytes(), b"Kandelaber 7")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace("file2:keys/enrolment.pem", "file2:keys/roster.pem"), "is another key than"),
        (lambda text: text.replace("file2:keys/enrolment.pem", "file2:keys/gone.pem"), "cannot be read"),
        (lambda text: text.replace("file2:keys/enrolment.pem", "hms:2"), "cannot be opened"),
        (lambda text: text.replace('role = "enrolment"', 'role = "boss"'), "the role 'boss' is none of"),
        (lambda text: text.replace('role = "enrolment"', 'role = "order"'), "names a order key"),
        (lambda text: text + "\n[extra]\n", "and nothing else"),
        (lambda text: text + "=", "is no TOML"),
        (lambda text: text.replace("public = ", "public = 1 #"), "is not the 128 hexadecimal digits"),
    ],
)
def test_a_wrong_configuration_is_said_before_anything_is_done(
    authority: Path, board: FakeBoard, damage: "object", says: str
) -> None:
    path = authority / "authority.toml"
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    assert says in enrol(board, "LE-0001", authority, code=2).err
    assert board.asked == []


def test_a_trust_file_with_one_flipped_bit_is_not_believed(authority: Path) -> None:
    path = authority / "trust.cbor"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert "no trust file that can be believed" in laterne("board", "list", "--authority", authority, code=2).err


def test_a_damaged_registry_is_said(authority: Path) -> None:
    path = authority / "registry.db"
    path.write_bytes(b"this is no database, and it is longer than a header of SQLite's, which has 100 bytes" * 3)
    assert "Bring it back from a backup" in laterne("board", "list", "--authority", authority, code=1).err
    path.unlink()
    assert "The registry is missing" in laterne("board", "list", "--authority", authority, code=2).err


def test_a_command_of_a_package_that_is_not_installed_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['laterne_emulator'] = None; sys.argv = ['laterne', 'demo', '--boards', '3']\n"
        "from laterne_provisioning.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 2
    assert "pip install 'laterne[emulator]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_private_file_is_never_overwritten(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"first")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "key", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("key", b"first")]
