"""`laterne release`: built from a checkout, signed by k of n release keys, judged by whoever has the trust."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.provisioning.checkout import checkout, commit
from tests.provisioning.commands import Ended, laterne
from tests.provisioning.softhsm import Token

from laterne_protocol import cbor, manifest, manifest_writing, release_file
from laterne_protocol.release_file import Release, release_of


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    return checkout(tmp_path / "checkout")


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("built")
    return built(checkout(folder / "checkout"), folder / "r.laterne").read_bytes()


@pytest.fixture
def release(unsigned: bytes, tmp_path: Path) -> Path:
    """A release that nobody has signed."""
    path = tmp_path / "r.laterne"
    path.write_bytes(unsigned)
    return path


@pytest.fixture
def two_keys(tmp_path: Path) -> Path:
    """An authority with two release keys, both of which must sign."""
    directory = tmp_path / "authority"
    laterne("init", directory, "--no-passphrase", "--release-keys", 2, "--release-threshold", 2)
    return directory


def built(firmware: Path, out: Path, *more: object) -> Path:
    laterne("release", "build", "--firmware", firmware, "-o", out, *more)
    return out


def sign(release: Path, authority: Path, *more: object, code: int = 0) -> Ended:
    return laterne("release", "sign", release, "--authority", authority, *more, code=code)


def verify(release: Path, authority: Path, *more: object, code: int = 0) -> Ended:
    return laterne("release", "verify", release, "--authority", authority, *more, code=code)


# Building ------------------------------------------------------------------------------------------------------------


def test_the_same_sources_make_the_same_bytes_wherever_they_are(firmware: Path, release: Path, tmp_path: Path) -> None:
    shutil.copytree(firmware.parent, tmp_path / "elsewhere")
    again = built(tmp_path / "elsewhere" / "firmware", tmp_path / "again.laterne")
    assert again.read_bytes() == release.read_bytes()
    found = release_of(release.read_bytes())
    assert found.manifest.sequence == 1_790_000_000  # the commit's time
    assert (found.head.version, found.head.abi, found.head.entry) == ("0.1.0", 6, "app")
    assert found.manifest.class_id == manifest.CLASS_ID


def test_a_release_holds_what_boards_load_and_beside_it_what_is_written_at_flashing(release: Path) -> None:
    found = release_of(release.read_bytes())
    assert [path for path, _, _ in found.entries] == [
        "app.mpy",
        "part.mpy",
    ]
    assert sorted(found.base) == [
        "boot.py",
        "l/loader.mpy",
        "l/part.mpy",
        "main.py",
        "pins/esp32.mpy",
        "pins/pico.mpy",
        "self_test.py",
    ]
    part = found.contents[next(digest for path, _, digest in found.entries if path.endswith("part.mpy"))]
    assert found.base["l/part.mpy"] == part
    assert b"counted" not in part  # short names


def test_all_that_may_be_said_of_a_release_stands_in_it(firmware: Path, tmp_path: Path) -> None:
    said = ("--sequence", 7, "--version", "1.2.3-rc1", "--trial", 900, "--min-sequence", 5)
    out = built(firmware, tmp_path / "r", *said, "--interpreter", "1.28.0-1.29.9")
    shown = laterne("release", "show", out, "--json").json()
    assert (shown["sequence"], shown["version"], shown["trial_s"], shown["min_sequence"]) == (7, "1.2.3-rc1", 900, 5)
    assert shown["interpreters"] == ["1.28.0", "1.29.9"]
    assert [one["path"] for one in shown["files"]] == ["app.mpy", "part.mpy"]
    words = laterne("release", "show", out).out
    for part in (shown["release"], "1.2.3-rc1", "nobody yet", "MicroPython 1.28.0 to 1.29.9", "900 s", "below 5"):
        assert part in words
    bill = json.loads(laterne("release", "show", out, "--bill").out)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    (app,) = [one for one in bill["components"] if one["name"] == "app.mpy"]
    assert app["hashes"] == [{"alg": "SHA-256", "content": shown["files"][0]["sha256"]}]
    source = (firmware / "laterne_firmware" / "app.py").read_bytes()
    assert app["properties"][0]["value"] == hashlib.sha256(source).hexdigest()


def test_what_is_in_no_commit_gets_into_no_release_unless_somebody_says_so(firmware: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    (firmware / "laterne_firmware" / "new.py").write_text("x = 1\n")
    build = ("release", "build", "--firmware", firmware, "-o", out)
    said = laterne(*build, code=1).err
    assert "laterne_firmware/new.py: changes that are in no commit" in said
    assert "--uncommitted" in said
    assert not out.exists()
    laterne(*build, "--uncommitted")
    assert "with 1 files that are not in it" in release_of(out.read_bytes()).description
    commit(firmware.parent)
    laterne(*build)
    assert "not in it" not in release_of(out.read_bytes()).description


def test_sources_without_version_control_need_a_number(tmp_path: Path) -> None:
    firmware = checkout(tmp_path / "plain", with_git=False)
    build = ("release", "build", "--firmware", firmware, "-o", tmp_path / "r")
    assert "give --sequence NUMBER" in laterne(*build, code=2).err
    laterne(*build, "--sequence", 3)
    assert "without version control" in release_of((tmp_path / "r").read_bytes()).description


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--interpreter", "1.29"], 2, "is not FROM-TO"),
        (["--interpreter", "1.29.0-1.28.0"], 2, "runs backwards"),
        (["--version", "a\x1b[2J"], 1, "control character"),
        (["--mpy-cross", "/bin/false"], 2, "is no mpy-cross that runs here"),
        (["--firmware", "/nowhere"], 2, "name its folder with --firmware DIR"),
        (["-o", "/nowhere/r"], 2, "cannot be written"),
    ],
)
def test_what_is_wrong_with_a_build_is_said_and_nothing_is_written(
    firmware: Path, tmp_path: Path, more: list[str], code: int, says: str
) -> None:
    out = tmp_path / "r"
    assert says in laterne("release", "build", "--firmware", firmware, "-o", out, *more, code=code).err
    assert not out.exists()


def test_a_module_that_does_not_compile_is_named(firmware: Path, tmp_path: Path) -> None:
    (firmware / "laterne_firmware" / "part.py").write_text("def run(:\n")
    commit(firmware.parent)
    said = laterne("release", "build", "--firmware", firmware, "-o", tmp_path / "r", code=1).err
    assert "laterne_firmware.part" in said
    # What CPython takes and MicroPython does not.
    (firmware / "laterne_firmware" / "part.py").write_text("class Counter:\n    x: int = [*range(3), 4][*[0]]\n")
    commit(firmware.parent)
    said = laterne("release", "build", "--firmware", firmware, "-o", tmp_path / "r", code=1).err
    assert "part does not compile for a board: line 2 SyntaxError" in said


# Signing -------------------------------------------------------------------------------------------------------------


def test_a_signed_release_is_believed_by_whoever_has_the_trust(release: Path, authority: Path, tmp_path: Path) -> None:
    said = verify(release, authority, code=1)
    assert "0 of 1 signatures that are needed" in said.out
    assert "1 more of its release keys must sign" in said.err
    unsigned = release_of(release.read_bytes())
    signed = sign(release, authority, "--json").json()
    assert (signed["good"], len(signed["signed_by"]), signed["needed"]) == (True, 1, 1)
    verify(release, authority)
    laterne("trust", "export", "--authority", authority, "-o", tmp_path / "trust")
    assert laterne("release", "verify", release, "--trust", tmp_path / "trust", "--json").json()["good"]
    made = release_of(release.read_bytes())
    assert (made.digest, made.contents, made.base) == (unsigned.digest, unsigned.contents, unsigned.base)
    log = (authority / "audit.log").read_text()
    assert '"release sign"' in log
    assert made.digest.hex() in log
    assert laterne("audit", "verify", "--authority", authority).code == 0


def test_a_release_travels_from_one_release_key_to_the_next(release: Path, two_keys: Path, tmp_path: Path) -> None:
    """The second key is on another machine: a copy of the authority in which the first one is missing."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(two_keys, elsewhere)
    (two_keys / "keys" / "release-2.pem").unlink()
    (elsewhere / "keys" / "release.pem").unlink()
    first = sign(release, two_keys)
    assert "1 of 2 signatures" in first.out
    assert "holder of the next release key" in first.out
    assert "1 more of its release keys must sign" in verify(release, two_keys, code=1).err
    assert "cannot be read" in sign(release, two_keys, code=2).err
    sent = tmp_path / "stick.laterne"
    shutil.copy(release, sent)
    back = tmp_path / "back.laterne"
    assert "2 of 2 signatures" in sign(sent, elsewhere, "-o", back).out
    verify(back, two_keys)
    verify(sent, two_keys, code=1)  # it was left as it came
    assert "have signed this release" in sign(back, elsewhere, code=1).err


def test_a_key_is_chosen_by_the_beginning_of_its_name(release: Path, two_keys: Path) -> None:
    said = sign(release, two_keys, "--key", "zz", code=2).err
    known = said.split("which are ")[1].split(": name one")[0].split(", ")
    assert len(known) == 2
    for kid in reversed(known):
        sign(release, two_keys, "--key", kid[:6])
    assert laterne("release", "show", release, "--json").json()["signatures"] == sorted(known)
    assert "have signed" in sign(release, two_keys, "--key", known[0], code=1).err


def test_a_lower_number_than_was_signed_before_is_refused(firmware: Path, authority: Path, tmp_path: Path) -> None:
    sign(built(firmware, tmp_path / "new", "--sequence", 10), authority)
    for sequence in (9, 10):
        old = built(firmware, tmp_path / "old", "--sequence", sequence, "--version", "0.0.9")
        assert "Build it with --sequence 11 or higher" in sign(old, authority, code=1).err
    assert release_of(old.read_bytes()).manifest.signatures == []
    sign(old, authority, "--again")
    sign(built(firmware, tmp_path / "newer", "--sequence", 11), authority)


def test_an_authority_without_release_keys_says_so(release: Path, authority: Path) -> None:
    path = authority / "authority.toml"
    tables = path.read_text().split("\n[[key]]")
    path.write_text("\n[[key]]".join(one for one in tables if 'role = "release"' not in one))
    assert "names no release key" in sign(release, authority, code=2).err


def test_a_release_of_another_authority_is_not_believed(release: Path, authority: Path, tmp_path: Path) -> None:
    laterne("init", tmp_path / "other", "--no-passphrase")
    sign(release, tmp_path / "other")
    said = verify(release, authority, code=1).err
    assert "No board of Stadtwerke takes it" in said
    assert "Signatures of others: " in said
    assert "Whom to believe?" in laterne("release", "verify", release, code=2).err


def test_a_release_for_boards_of_another_class_is_not_signed(release: Path, authority: Path, tmp_path: Path) -> None:
    found = release_of(release.read_bytes())
    assert found.manifest.index is not None
    envelope = manifest_writing.envelope_bytes(7, found.manifest.index, found.manifest.text, class_id=bytes(16))
    other = tmp_path / "other"
    other.write_bytes(Release(envelope, found.contents, found.bill, found.base).to_bytes())
    assert "another vendor or class" in sign(other, authority, code=1).err
    assert "another vendor or class" in verify(other, authority, code=1).err


def test_a_release_that_was_changed_on_its_way_is_refused(release: Path, authority: Path, tmp_path: Path) -> None:
    sign(release, authority)
    parts: Any = cbor.decode(release.read_bytes(), release_file.MAX_RELEASE_FILE_BYTES)
    changed = tmp_path / "changed"
    for at in (2, 3, 4):  # contents, bill of materials, base: what is not in the envelope itself
        other = [*parts]
        other[at] = parts[2][:-1] if at == 2 else release_file.deflated(b"\xa0", 15)
        changed.write_bytes(cbor.encode(other))
        assert "is no release that can be used" in verify(changed, authority, code=1).err
    data = release.read_bytes()
    changed.write_bytes(data[: len(data) // 2])
    assert "is no release that can be used" in verify(changed, authority, code=1).err
    assert "cannot be read" in verify(tmp_path / "gone", authority, code=2).err


def test_new_release_keys_replace_all_former_ones(release: Path, two_keys: Path) -> None:
    sign(release, two_keys)
    sign(release, two_keys)
    laterne("trust", "rotate", "--authority", two_keys, "--role", "release", "--no-passphrase")
    said = verify(release, two_keys, code=1).err
    assert "2 more of its release keys must sign" in said
    assert sorted(path.name for path in (two_keys / "keys").glob("release*v2*")) == [
        "release-2-v2.pem",
        "release-v2.pem",
    ]


def test_a_release_is_signed_by_a_key_in_a_token(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = Token(tmp_path / "token")
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "authority"
    key = f"--key=release={token.make_key(1)}"
    laterne("init", directory, "--no-passphrase", key, "--pin-file", token.pin_file)
    assert not (directory / "keys" / "release.pem").exists()
    assert "give --pin-file FILE" in sign(release, directory, code=2).err
    sign(release, directory, "--pin-file", token.pin_file)
    verify(release, directory)


def test_more_signatures_than_keys_cannot_be_asked_for(tmp_path: Path) -> None:
    done = laterne("init", tmp_path / "a", "--no-passphrase", "--release-threshold", 2, code=2)
    assert "give --release-keys" in done.err
