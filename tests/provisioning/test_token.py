"""Role keys in a hardware security module: SoftHSM2 signs credentials and rosters, and never tells a key."""

from pathlib import Path

import pytest
from tests.provisioning.commands import Ended, enrol, laterne
from tests.provisioning.fake_board import FakeBoard
from tests.provisioning.softhsm import PIN, Token
from tests.provisioning.test_roster_export import read

from laterne_protocol import cose, credential, trust
from laterne_provisioning.authority import open_authority
from laterne_provisioning.primitives import is_signature


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    made = Token(tmp_path / "token")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def in_token(token: Token, tmp_path: Path) -> Path:
    """An authority whose enrolment and roster keys are in the token."""
    directory = tmp_path / "authority"
    keys = [f"--key=enrolment={token.make_key(1)}", f"--key=roster={token.make_key(2)}"]
    laterne("init", directory, "--no-passphrase", *keys, "--pin-file", token.pin_file)
    return directory


def export(authority: Path, out: Path, *more: object, code: int | None = 0) -> Ended:
    return laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", out, *more, code=code)


def test_a_credential_and_a_roster_are_signed_by_the_token(
    token: Token, in_token: Path, board: FakeBoard, tmp_path: Path
) -> None:
    assert sorted(path.stem for path in (in_token / "keys").iterdir()) == [
        "order",
        "release",
        "root-1",
        "root-2",
        "root-3",
    ]
    enrol(board, "LE-0001", in_token, "--pin-file", token.pin_file)
    assert board.credential is not None
    (public,) = open_authority(in_token).trusted.keys[trust.ENROLMENT]
    signed = cose.parse(board.credential, credential.MAX_CREDENTIAL_BYTES)
    cose.verify(signed, cose.CREDENTIAL, lambda message, signature: is_signature(public, message, signature))
    export(in_token, tmp_path / "r", "--pin-file", token.pin_file)
    found, _ = read(tmp_path / "r", in_token)
    assert [entry.board for entry in found.entries] == ["LE-0001"]


def test_what_is_wrong_with_a_token_is_said_before_anything_is_begun(
    token: Token, in_token: Path, board: FakeBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"
    wrong = tmp_path / "wrong"
    wrong.write_text("000000")
    assert "give --pin-file FILE" in export(in_token, out, code=2).err
    assert "The PIN file cannot be read" in export(in_token, out, "--pin-file", tmp_path / "gone", code=2).err
    said = export(in_token, out, "--pin-file", wrong, code=1).err
    assert "the PIN is wrong. Tokens count wrong PINs" in said
    assert "the PIN is wrong" in enrol(board, "LE-0001", in_token, "--pin-file", wrong, code=1).err
    assert board.asked == []
    path = in_token / "authority.toml"
    text = path.read_text()
    for swapped, says in (
        ("hsm:1?", "it is not the key"),
        ("hsm:9?", "could not find"),
        ("hsm:x?", "cannot be opened"),
    ):
        path.write_text(text.replace("hsm:2?", swapped))
        done = export(in_token, out, "--pin-file", token.pin_file, code=None)
        assert (done.code in (1, 2), says in done.err) == (True, True), done.err
    path.write_text(text.replace("label=laterne-test", "label=other"))
    assert "No PKCS#11 token found for label other" in export(in_token, out, "--pin-file", token.pin_file, code=1).err
    path.write_text(text)
    monkeypatch.setenv("PYKCS11LIB", str(tmp_path / "none.so"))
    assert "did not sign" in export(in_token, out, "--pin-file", token.pin_file, code=1).err
    monkeypatch.delenv("PYKCS11LIB")
    assert "PYKCS11LIB is not set" in export(in_token, out, "--pin-file", token.pin_file, code=1).err
    assert not out.exists()
    with open_authority(in_token).registry() as registry:
        assert registry.newest_roster("gw") is None


def test_the_pin_is_in_no_file_and_in_no_message(
    token: Token, in_token: Path, board: FakeBoard, tmp_path: Path
) -> None:
    done = enrol(board, "LE-0001", in_token, "--pin-file", token.pin_file)
    assert PIN not in done.out + done.err
    assert all(PIN.encode() not in path.read_bytes() for path in in_token.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["enrolment=hsm:7?label=laterne-test"], "There is no usable P-256 key"),
        (["enrolment=hsm:3?label=laterne-test"], "There is no usable P-256 key"),  # a P-384 key
        (["enrolment=hsm:a"], "write it as hsm:KEYID?label=TOKEN"),
        (["enrolment=hsm:1?label=laterne-test", "roster=hsm:1?label=laterne-test"], "has another role, too"),
        (["order=hsm:1?label=laterne-test", "order=hsm:1?label=laterne-test"], "given too often"),
        (["boss=hsm:1"], "is not ROLE=URI"),
        (["order=file2:keys/x.pem"], "from the slash on"),
        (["order=ftp:x"], "is no place where a key"),
    ],
)
def test_a_key_that_will_not_do_makes_no_authority(token: Token, tmp_path: Path, given: list[str], says: str) -> None:
    token.make_key(1)
    token.make_key(3, "secp384r1")
    keys = [f"--key={one}" for one in given]
    done = laterne("init", tmp_path / "a", "--no-passphrase", *keys, "--pin-file", token.pin_file, code=2)
    assert says in done.err
    assert not (tmp_path / "a").exists()
    assert not list(tmp_path.glob(".a*"))
