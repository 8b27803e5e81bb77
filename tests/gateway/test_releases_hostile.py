"""Where releases come from may be anybody's: a stick that gives something else the second time, a broker that lies."""

from pathlib import Path
from typing import Any

import pytest
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_releases import release, unsigned
from tests.gateway.parts import until
from tests.gateway.test_release_fetch import Broker

from laterne_gateway.health import Health
from laterne_gateway.release_commands import DONE, WRONG, run_add
from laterne_gateway.releases import MAX_RELEASES, ReleaseError, Releases
from laterne_protocol import release_parts


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def store(tmp_path: Path, authority: FakeAuthority) -> Releases:
    return Releases(tmp_path, authority.trust, Health())


def test_what_was_judged_is_what_is_stored_though_the_file_changes_as_soon_as_it_is_open(
    tmp_path: Path, store: Releases, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, other = release(authority).to_bytes(), unsigned().to_bytes()
    stick, swapped = tmp_path / "r.laterne", tmp_path / "other.laterne"
    stick.write_bytes(good)
    opened = 0
    really = Path.open

    def swapping(file: Path, *arguments: Any, **more: Any) -> Any:
        nonlocal opened
        found = really(file, *arguments, **more)
        if file == stick:
            opened += 1
            with really(swapped, "wb") as out:
                out.write(other)
            swapped.replace(stick)
        return found

    monkeypatch.setattr(Path, "open", swapping)
    assert run_add(store, stick, as_json=False) == DONE
    assert opened == 1
    (digest,) = store.stored()
    assert (tmp_path / "releases" / f"{digest.hex()}.laterne").read_bytes() == good
    assert run_add(store, stick, as_json=False) == WRONG, "what lies there now is another one"


def test_a_stick_that_never_ends_is_read_up_to_a_release_and_refused(
    store: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_add(store, Path("/dev/zero"), as_json=False) == WRONG
    assert "refused" in capsys.readouterr().err
    assert store.stored() == []


def test_another_good_release_than_the_one_that_was_asked_for_is_not_stored_and_displaces_none(
    store: Releases, authority: FakeAuthority
) -> None:
    made = [release(authority, sequence=sequence) for sequence in range(1, MAX_RELEASES + 2)]
    kept = [store.add_file(one.to_bytes()) for one in made[:-1]]
    with pytest.raises(ReleaseError, match="under this name"):
        store.add_file(made[-1].to_bytes(), keep=(), only=made[0].digest)
    assert set(store.stored()) == set(kept)
    assert store.add_file(made[-1].to_bytes(), keep=(), only=made[-1].digest) == made[-1].digest


async def test_a_broker_with_old_releases_of_ours_does_not_displace_what_came_by_a_stick(tmp_path: Path) -> None:
    """They are signed: each would pass for itself. Boards want one, and get that or none."""
    broker = Broker(tmp_path)
    sticks = [
        broker.releases.add_file(release(broker.authority, sequence=100 + number).to_bytes())
        for number in range(MAX_RELEASES)
    ]
    wanted = [release(broker.authority, sequence=number) for number in range(1, 4)]
    for number, one in enumerate(wanted):
        other = release(broker.authority, sequence=11 + number)
        broker.lay(one.digest, list(release_parts.parts_of(other.to_bytes())))
    async with broker.running():
        for number, one in enumerate(wanted):
            broker.fetch.want(f"LE-{number:04}", one.digest)
        await until(lambda: len(broker.left) == len(wanted))
    assert broker.health.counted("releases", "not fetched") == len(wanted)
    assert set(broker.releases.stored()) == set(sticks)
