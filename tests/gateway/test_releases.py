"""The store of releases: only what is whole and signed is stored, whole on disk before it is found, and bounded."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from tests.gateway.disk import Disk
from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_releases import contents, release, signed, unsigned
from tests.gateway.parts import GatewayProcess
from tests.servers import Mosquitto

from laterne_gateway import releases
from laterne_gateway.health import Health
from laterne_gateway.releases import MAX_RELEASES, ReleaseError, Releases
from laterne_protocol import cbor
from laterne_protocol.release_file import MAX_RELEASE_FILE_BYTES


class Store:
    """A store and the authority whose trust it has; `trusted` may be replaced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = FakeAuthority()
        self.trusted = self.authority.trust()
        self.health = Health()
        self.releases = Releases(directory, lambda: self.trusted, self.health)

    @property
    def folder(self) -> Path:
        return self.directory / "releases"

    def add(self, sequence: int = 2, keep: set[bytes] | None = None) -> bytes:
        return self.releases.add_file(release(self.authority, sequence=sequence).to_bytes(), keep)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


async def test_a_release_that_was_added_is_found_with_all_that_boards_need(store: Store) -> None:
    made = release(store.authority)
    digest = await store.releases.add(made.to_bytes(), ())
    found = await store.releases.release(digest)
    assert found is not None
    assert found.items[0] == made.severed
    assert found.items[1] == made.manifest.index
    assert list(found.items[2:]) == [contents()[path] for path in sorted(contents())]
    assert store.releases.stored() == [digest] == [made.digest]


@pytest.mark.parametrize("keys", ["none", "a stranger's", "one of two", "one twice"])
async def test_a_release_that_not_enough_release_keys_have_signed_is_refused(store: Store, keys: str) -> None:
    authority = store.authority
    authority.release_keys.append(Key())
    authority.release_threshold = 2
    store.trusted = authority.trust()
    first, second = authority.release_keys
    signers = {"none": [], "a stranger's": [Key(), first], "one of two": [first], "one twice": [first, first]}[keys]
    with pytest.raises(ReleaseError, match="release keys have signed, 2 are needed"):
        store.releases.add_file(signed(unsigned(), *signers).to_bytes())
    assert not store.folder.exists()
    store.releases.add_file(release(authority, keys=[first, second]).to_bytes())


@pytest.mark.parametrize("role", ["roots", "order_key", "roster_key", "enrolment_key"])
async def test_a_key_of_another_role_signs_no_release(store: Store, role: str) -> None:
    key = store.authority.roots[0] if role == "roots" else getattr(store.authority, role)
    with pytest.raises(ReleaseError, match="0 of 1 release keys"):
        store.releases.add_file(release(store.authority, keys=[key]).to_bytes())


async def test_any_changed_byte_is_refused(store: Store) -> None:
    whole = release(store.authority).to_bytes()
    for at in range(0, len(whole), 37):
        damaged = whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1 :]
        with pytest.raises(ReleaseError):
            store.releases.add_file(damaged)
    assert not store.folder.exists()
    store.releases.add_file(whole)


async def test_a_file_too_many_one_too_few_and_endless_data_are_refused(store: Store) -> None:
    made = release(store.authority)
    parts = cbor.decode(made.to_bytes(), MAX_RELEASE_FILE_BYTES)
    assert isinstance(parts, list)
    fewer, more = [*parts], [*parts]
    fewer[2] = parts[2][1:]
    more[2] = [[0, b"x"], *parts[2]]
    for wrong in (cbor.encode(fewer), cbor.encode(more), made.to_bytes() + b"\0", bytes(MAX_RELEASE_FILE_BYTES + 1)):
        with pytest.raises(ReleaseError, match="refused"):
            store.releases.add_file(wrong)


async def test_the_number_of_releases_is_bounded_and_those_in_use_make_no_room(store: Store) -> None:
    digests = [store.add(sequence) for sequence in range(1, MAX_RELEASES + 1)]
    with pytest.raises(ReleaseError, match="remove one"):
        store.add(100)
    with pytest.raises(ReleaseError, match="remove one"):
        store.add(100, keep=set(digests))
    newest = store.add(100, keep={digests[0]})
    assert set(store.releases.stored()) == {newest, *digests} - {digests[1]}
    assert store.add(1, keep=set(digests)) == digests[0], "what is there already needs no room"


async def test_what_the_card_has_changed_is_not_sent_and_is_repaired_by_the_same_release(store: Store) -> None:
    digest = store.add()
    file = store.folder / f"{digest.hex()}.laterne"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3] + b"abc")
    assert await store.releases.release(digest) is None
    assert "is not sent to boards" in str(store.health.snapshot()["releases"]["alarms"])
    await store.releases.add(whole, ())
    assert await store.releases.release(digest) is not None
    assert store.health.snapshot()["releases"]["alarms"] == []


async def test_a_release_under_the_name_of_another_is_not_sent(store: Store) -> None:
    older, newer = store.add(1), store.add(2)
    (store.folder / f"{newer.hex()}.laterne").write_bytes((store.folder / f"{older.hex()}.laterne").read_bytes())
    assert await store.releases.release(newer) is None
    assert store.health.counted("releases", "refused when read") == 1
    assert await store.releases.release(older) is not None


async def test_a_release_is_not_sent_any_more_when_the_key_that_signed_it_is_retired(store: Store) -> None:
    digest = store.add()
    assert await store.releases.release(digest) is not None
    store.authority.release_keys = [Key()]
    store.trusted = store.authority.trust(2)
    assert await store.releases.release(digest) is None
    assert store.health.counted("releases", "refused when read") == 1


async def test_a_nearly_full_disk_keeps_its_room_for_reports(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    try:
        store = Store(disk.place)
        (disk.place / "ballast").write_bytes(bytes(5 * 1024 * 1024))  # of 24 MiB
        with pytest.raises(ReleaseError, match="kept for reports"):
            store.add()
        assert store.releases.stored() == []
        (disk.place / "ballast").unlink()
        digest = store.add()
        assert store.releases.stored() == [digest]
    finally:
        disk.unmount()


async def test_a_disk_that_fails_leaves_nothing_that_would_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "LEAVE_FREE_BYTES", 0)
    disk = Disk(tmp_path)
    try:
        store = Store(disk.place)
        store.add(1)
        disk.fill()
        with pytest.raises(ReleaseError):
            store.add(2)
        assert len(store.releases.stored()) == 1
        assert not list(store.folder.glob("*.new"))
        disk.fail()
        with pytest.raises((ReleaseError, OSError)):
            store.add(3)
    finally:
        disk.unmount()


async def test_killed_at_any_operation_of_the_disk_a_release_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """The process is killed before each system call that changes the disk; then a new one looks."""
    store = Store(tmp_path)
    made = release(store.authority)
    (tmp_path / "in.laterne").write_bytes(made.to_bytes())
    (tmp_path / "trust.cbor").write_bytes(store.authority.trust_file())
    outcomes = set()
    for cut in range(1, 20):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, str(tmp_path), str(cut), stdout=asyncio.subprocess.PIPE
        )
        before = (await child.communicate())[0].decode()
        finished = child.returncode == 0
        found = await Releases(tmp_path, lambda: store.trusted, store.health).release(made.digest)
        outcomes.add((finished, found is not None))
        assert found is None or found.items[0] == made.severed
        assert found is not None or not finished
        assert found is None or before in ("", "open"), "not before it was renamed"
        if finished:
            break
        for file in store.folder.glob("*.laterne"):
            file.unlink()
    assert outcomes == {(False, False), (False, True), (True, True)}, "before the renaming, after it, and done"
    assert not list(store.folder.glob("*.new"))


KILLED = """
import os, signal, sys
from pathlib import Path
from laterne_gateway import primitives
from laterne_gateway.health import Health
from laterne_gateway.releases import Releases
from laterne_protocol import trust

directory, cut = Path(sys.argv[1]), int(sys.argv[2])
trusted = trust.trust_of((directory / "trust.cbor").read_bytes(), primitives.valid)
left = [cut]

def audit(event, arguments):
    changes = event in ("os.mkdir", "os.rename", "os.remove") or event == "open" and "releases" in str(arguments[0])
    if changes:
        left[0] -= 1
        if left[0] == 0:
            os.write(1, event.encode())
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
Releases(directory, lambda: trusted, Health()).add_file((directory / "in.laterne").read_bytes())
"""


async def test_releases_are_added_listed_and_removed_on_the_command_line(
    tmp_path: Path, mosquitto: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    from laterne_gateway.__main__ import run_command

    gateway = GatewayProcess(tmp_path, [], [], mosquitto)
    gateway.config.write_text(gateway.config.read_text() + '[[line]]\nname = "a"\npath = "a"\n')
    made = release(gateway.authority)
    file = tmp_path / "r.laterne"
    file.write_bytes(made.to_bytes())

    def run(*arguments: str) -> tuple[int, str]:
        code = run_command(["release", *arguments, "--config", str(gateway.config)])
        return code, capsys.readouterr().out

    assert run("add", str(file)) == (0, f"{made.digest.hex()}: stored\n")
    code, said = run("list", "--json")
    assert code == 0
    assert json.loads(said)[0]["digest"] == made.digest.hex()
    assert json.loads(said)[0]["signed_by"] == [gateway.authority.release_key.kid.hex()]
    assert "2.0.0, sequence 2, 8 files" in run("list")[1]
    file.write_bytes(unsigned().to_bytes())
    assert run("add", str(file))[0] == 1
    assert run("add", str(tmp_path / "absent"))[0] == 2
    assert run("remove", "abc")[0] == 2
    stored = tmp_path / "state" / "releases" / f"{made.digest.hex()}.laterne"
    os.truncate(stored, 1000)
    assert run("list") == (1, f"{made.digest.hex()}: WRONG: longer than the data: remove it, or add it again\n")
    assert run("remove", made.digest.hex()[:10])[0] == 0
    assert run("list") == (0, "")
    assert not stored.exists()
