"""New keys for an authority: believed by whoever holds the former trust file, and former keys are not any more."""

import shutil
from pathlib import Path

import pytest
from tests.provisioning.commands import Ended, enrol, killed_at, laterne
from tests.provisioning.fake_board import FakeBoard, Key

from laterne_gateway.roster import verified_roster
from laterne_protocol import cose, credential, roster, trust
from laterne_protocol.errors import ObjectError, SignatureError
from laterne_provisioning.authority import open_authority, sign_object
from laterne_provisioning.keys import Secrets
from laterne_provisioning.primitives import is_signature


def rotate(authority: Path, *arguments: object, code: int = 0) -> Ended:
    return laterne("trust", "rotate", "--authority", authority, "--no-passphrase", *arguments, code=code)


def export(authority: Path, out: Path) -> bytes:
    laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", out)
    return out.read_bytes()


def trust_of(authority: Path) -> trust.Trust:
    return trust.trust_of((authority / "trust.cbor").read_bytes(), is_signature)


def signed_by(authority: Path, role: str, domain: str, payload: bytes) -> bytes:
    return sign_object(open_authority(authority).signing_key(role, Secrets()), domain, payload)


def test_a_gateway_follows_to_the_new_roster_key_and_refuses_the_former_one(authority: Path, tmp_path: Path) -> None:
    former, thief = trust_of(authority), tmp_path / "thief"
    shutil.copytree(authority, thief)  # whoever has copied the keys goes on signing with them
    old = export(authority, tmp_path / "r")
    done = rotate(authority, "--role", "roster", "--json").json()
    assert (done["version"], len(done["signed_by"]), done["retired"]) == (2, 3, ["file2:keys/roster.pem"])
    now = trust.trust_of((authority / "trust.cbor").read_bytes(), is_signature, former)
    assert (now.version, now.roots, now.keys["order"]) == (2, former.roots, former.keys["order"])
    assert now.keys["roster"] != former.keys["roster"]
    fresh = export(authority, tmp_path / "r")
    assert verified_roster(fresh, now, "gw").version == 2
    stolen = export(thief, tmp_path / "stolen")
    for refused in (old, stolen):
        with pytest.raises(SignatureError, match="is not a roster key"):
            verified_roster(refused, now, "gw")
    with pytest.raises(SignatureError, match="is not a roster key"):
        verified_roster(fresh, former, "gw")
    assert laterne("audit", "verify", "--authority", authority).code == 0


def test_former_keys_stay_valid_when_the_operator_says_so(authority: Path, tmp_path: Path) -> None:
    old = export(authority, tmp_path / "r")
    rotate(authority, "--role", "roster", "--keep", "roster")
    assert verified_roster(old, trust_of(authority), "gw").version == 1
    assert verified_roster(export(authority, tmp_path / "r"), trust_of(authority), "gw").version == 2
    assert cose.parse((tmp_path / "r").read_bytes(), 65536).kid == credential.kid(trust_of(authority).keys["roster"][0])


def test_boards_of_a_former_enrolment_key_stay_what_they_are_while_there_are_any(
    authority: Path, board: FakeBoard, tmp_path: Path
) -> None:
    (first,) = trust_of(authority).keys["enrolment"]
    rotate(authority, "--role", "enrolment")
    assert first not in trust_of(authority).keys["enrolment"]  # it has signed nothing that counts
    enrol(board, "LE-0001", authority)
    (second,) = trust_of(authority).keys["enrolment"]
    rotate(authority, "--role", "enrolment")
    new, kept = trust_of(authority).keys["enrolment"]
    assert (kept, new != second) == (second, True)
    (tmp_path / "reports").write_bytes(board.next_report())
    assert laterne("verify", tmp_path / "reports", "--authority", authority).code == 0
    with FakeBoard() as other:
        enrol(other, "LE-0002", authority)
        assert other.credential is not None
        assert cose.parse(other.credential, 512).kid == credential.kid(new)
    enrol(board, "LE-0001", authority)


def test_new_roots_are_signed_by_enough_of_the_former_and_of_the_new_ones(authority: Path, tmp_path: Path) -> None:
    former = trust_of(authority)
    away = tmp_path / "stick"
    away.mkdir()
    for number in (1, 2, 3):
        (authority / "keys" / f"root-{number}.pem").rename(away / f"root-{number}.pem")
    at = [f"--root-at={number}=file2:{away}/root-{number}.pem" for number in (1, 2, 3)]
    before = sorted(path.name for path in authority.rglob("*"))
    assert "No root can sign" in rotate(authority, "--role", "order", code=1).err
    assert "1 of 3 roots have signed, 2 are needed" in rotate(authority, "--role", "order", at[0], code=1).err
    # Two new roots and one former: enough for the new trust, too few for those who hold the old one.
    assert "1 of 3 roots have signed" in rotate(authority, "--root", 1, "--root", 2, at[0], code=1).err
    assert sorted(path.name for path in authority.rglob("*")) == before
    done = rotate(authority, "--root", 2, "--root", 3, at[0], at[2], "--json").json()
    assert (done["version"], len(done["signed_by"])) == (2, 4)
    now = trust.trust_of((authority / "trust.cbor").read_bytes(), is_signature, former)
    assert now.roots[0] == former.roots[0]
    assert not set(now.roots[1:]) & set(former.roots)
    assert sorted(path.name for path in (authority / "keys").glob("root*")) == ["root-2-v2.pem", "root-3-v2.pem"]
    rotate(authority, "--role", "order")
    held = trust.trust_of((authority / "trust-1.cbor").read_bytes(), is_signature)
    for name in ("trust-2.cbor", "trust.cbor"):  # who has missed versions finds them beside the newest
        held = trust.trust_of((authority / name).read_bytes(), is_signature, held)
    assert held.version == 3
    with pytest.raises(SignatureError):
        # Who has missed nothing follows; who holds only a trust with other roots does not.
        trust.trust_of(
            (authority / "trust.cbor").read_bytes(),
            is_signature,
            trust.Trust(2, "Stadtwerke", 2, former.roots, former.keys),
        )


def test_an_older_trust_and_one_of_too_few_roots_are_not_followed(authority: Path) -> None:
    old = (authority / "trust.cbor").read_bytes()
    rotate(authority, "--role", "order")
    new = (authority / "trust.cbor").read_bytes()
    held = trust.trust_of(new, is_signature)
    with pytest.raises(ObjectError, match="is older than"):
        trust.trust_of(old, is_signature, held)
    from laterne_protocol import cbor

    signatures = cbor.decode(new, trust.MAX_TRUST_BYTES)
    assert isinstance(signatures, list)
    for few in (signatures[:1], [signatures[0]] * 3):
        with pytest.raises(SignatureError, match="1 of 3 roots have signed"):
            trust.trust_of(cbor.encode(few), is_signature)


def test_no_role_passes_for_another(authority: Path, tmp_path: Path) -> None:
    trusted = trust_of(authority)
    payload = roster.Roster("gw", 1, 1_790_000_000, [], [], None).to_payload()
    for role in ("enrolment", "order", "release", "root"):
        with pytest.raises(SignatureError, match="is not a roster key"):
            verified_roster(signed_by(authority, role, cose.ROSTER, payload), trusted, "gw")
    # The right key for another kind of object, and a stranger's key under the right name.
    for forged in (
        signed_by(authority, "roster", cose.CREDENTIAL, payload),
        Key().sign_object(cose.ROSTER, payload, credential.kid(trusted.keys["roster"][0])),
    ):
        with pytest.raises(SignatureError):
            verified_roster(forged, trusted, "gw")
    other = trust.Trust(2, trusted.authority, 1, [Key().public], trusted.keys).to_payload()
    forged = trust.trust_file([signed_by(authority, "roster", cose.TRUST, other)])
    with pytest.raises(SignatureError, match="0 of"):
        trust.trust_of(forged, is_signature, trusted)


def test_killed_anywhere_the_authority_is_the_former_or_the_new_one(authority: Path, tmp_path: Path) -> None:
    cuts = versions = 0
    for cut in range(1, 200):
        there = tmp_path / f"a{cut}"
        shutil.copytree(authority, there)
        arguments = ("trust", "rotate", "--authority", there, "--no-passphrase", "--role", "roster", "--root", "1")
        finished = killed_at(cut, *arguments)
        opened = open_authority(there)
        versions += opened.trusted.version == 1
        trust.trust_of(opened.trust_file, is_signature, trust_of(authority))
        export(there, tmp_path / "r")
        assert verified_roster((tmp_path / "r").read_bytes(), opened.trusted, "gw")
        if finished:
            break
        cuts += 1
    assert cuts > 10
    assert 0 < versions < cuts


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "What is to be new?"),
        (("--role", "boss"), "'boss' is none of"),
        (("--root", 4), "There is no root 4"),
        (("--root-at", "x"), "is not NUMBER=URI"),
        (("--role", "order", "--key", "roster=hsm:1"), "add --role roster"),
        (("--role", "order", "--key", "order=hsm:1", "--key", "order=hsm:2"), "more often than"),
    ],
)
def test_what_cannot_be_rotated_is_said(authority: Path, arguments: tuple[object, ...], says: str) -> None:
    assert says in rotate(authority, *arguments, code=2).err
    assert open_authority(authority).trusted.version == 1


def test_a_passphrase_is_asked_for_or_named(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("Kandelaber 7")
    laterne("init", tmp_path / "a", "--passphrase-file", secret)
    done = laterne("trust", "rotate", "--authority", tmp_path / "a", "--role", "order", code=2)
    assert "--passphrase-file" in done.err
    laterne("trust", "rotate", "--authority", tmp_path / "a", "--role", "order", "--passphrase-file", secret)
    assert b"ENCRYPTED" in (tmp_path / "a" / "keys" / "order-v2.pem").read_bytes()
