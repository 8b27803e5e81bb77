"""Rosters: signed, for one gateway, one version higher each time."""

import stat
from pathlib import Path

from tests.provisioning.commands import enrol, killed_at, laterne
from tests.provisioning.fake_board import FakeBoard

from laterne_protocol import cose, credential, roster, trust
from laterne_provisioning import roster as export
from laterne_provisioning.authority import open_authority
from laterne_provisioning.primitives import is_signature


def read(path: Path, authority: Path) -> tuple[roster.Roster, bytes]:
    """The roster and its payload, checked as a gateway does with the trust file alone."""
    trusted = trust.trust_of((authority / "trust.cbor").read_bytes(), is_signature)
    (key,) = trusted.keys[trust.ROSTER]
    signed = cose.parse(path.read_bytes(), roster.MAX_ROSTER_BYTES)
    payload = cose.verify(signed, cose.ROSTER, lambda message, signature: is_signature(key, message, signature))
    return roster.roster_of(payload), payload


def test_a_roster_names_the_enrolled_boards_their_keys_and_their_posts(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    enrol(boards[1], "LE-0002", authority, "--post", "P-2", "--latitude", "48.1", "--longitude", "11.5")
    out = tmp_path / "gw.roster"
    done = laterne("roster", "export", "--gateway", "gw-1", "--authority", authority, "-o", out, "--json").json()
    assert (done["gateway"], done["version"], done["boards"]) == ("gw-1", 1, ["LE-0001", "LE-0002"])
    found, _ = read(out, authority)
    assert (found.gateway, found.version, found.former, found.revoked) == ("gw-1", 1, None, [])
    first, second = found.entries
    assert (first.board, first.sign_key, first.agree_key) == (
        "LE-0001",
        boards[0].key.public,
        boards[0].agree_key.public,
    )
    assert boards[0].credential is not None
    assert first.credential_digest == credential.digest(boards[0].credential)
    assert first.post is None
    assert second.post is not None
    assert (second.post.name, second.post.latitude, second.post.longitude) == ("P-2", 481000000, 115000000)
    assert stat.S_IMODE(out.stat().st_mode) == 0o644


def test_each_roster_of_a_gateway_is_one_version_higher_and_names_the_one_before(
    authority: Path, tmp_path: Path
) -> None:
    payloads: list[bytes] = []
    for version in (1, 2, 3):
        laterne("roster", "export", "--gateway", "gw-1", "--authority", authority, "-o", tmp_path / "r")
        found, payload = read(tmp_path / "r", authority)
        assert found.version == version
        assert found.former == (roster.digest(payloads[-1]) if payloads else None)
        payloads.append(payload)
    laterne("roster", "export", "--gateway", "gw-2", "--authority", authority, "-o", tmp_path / "r2")
    assert read(tmp_path / "r2", authority)[0].version == 1


def test_only_the_boards_that_are_named_and_enrolled_are_served(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    out = tmp_path / "r"
    export = ["roster", "export", "--gateway", "gw", "--authority", authority, "-o", out]
    laterne(*export, "--board", "LE-0002")
    assert [entry.board for entry in read(out, authority)[0].entries] == ["LE-0002"]
    before = out.read_bytes()
    assert "LE-0009 is not in the registry" in laterne(*export, "--board", "LE-0009", code=2).err
    with FakeBoard() as third:
        third.forget_digest = True
        enrol(third, "LE-0003", authority, code=1)
    assert "has not confirmed its credential" in laterne(*export, "--board", "LE-0003", code=1).err
    assert out.read_bytes() == before
    laterne(*export)
    found, _ = read(out, authority)
    assert ([entry.board for entry in found.entries], found.version) == (["LE-0001", "LE-0002"], 2)


def test_what_cannot_be_written_is_said_before_a_version_is_used_up(authority: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "nowhere" / "r", tmp_path):
        done = laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", out, code=2)
        assert "cannot be written" in done.err
    assert (
        "cannot be a gateway"
        in laterne("roster", "export", "--gateway", "a/b", "--authority", authority, "-o", tmp_path / "r", code=2).err
    )
    with open_authority(authority).registry() as registry:
        assert registry.newest_roster("gw") is None


def test_killed_anywhere_the_file_is_old_or_new_and_no_version_is_given_twice(authority: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    export = ["roster", "export", "--gateway", "gw", "--authority", authority, "-o", out]
    laterne(*export)
    seen = {read(out, authority)[0].version: out.read_bytes()}
    for cut in range(1, 100):
        finished = killed_at(cut, *export)
        found, _ = read(out, authority)
        assert seen.setdefault(found.version, out.read_bytes()) == out.read_bytes()
        if finished:
            assert cut > 2
            return


def test_the_trust_file_is_exported_as_it_was_signed(authority: Path, tmp_path: Path) -> None:
    laterne("trust", "export", "--authority", authority, "-o", tmp_path / "trust.cbor")
    assert (tmp_path / "trust.cbor").read_bytes() == (authority / "trust.cbor").read_bytes()


def test_former_keys_that_do_not_fit_are_left_out_and_no_board() -> None:
    def key(*number: int) -> bytes:
        return bytes(number).rjust(64, b"\x07")

    entries = [
        roster.Entry(
            f"LE-{number:029d}",
            key(1, number),
            key(2, number),
            0,
            bytes(16),
            roster.Post(f"P-{number:030d}", 480_000_000, 110_000_000),
            (roster.Former(key(3, number), bytes(16), 10**6), roster.Former(key(4, number), bytes(16), 10**7)),
        )
        for number in range(roster.MAX_BOARDS)
    ]
    payload = export._payload(roster.Roster("gw", 1, 1, entries, [], None))
    found = roster.roster_of(payload)
    assert len(payload) <= roster.MAX_ROSTER_BYTES - export.ENVELOPE_BYTES
    assert len(found.entries) == roster.MAX_BOARDS
    assert 0 < sum(len(entry.former) for entry in found.entries) < 2 * roster.MAX_BOARDS
