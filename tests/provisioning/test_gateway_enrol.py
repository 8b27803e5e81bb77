"""A gateway's credential: what its key printed goes in, what boards believe comes out."""

import json
from pathlib import Path

import pytest
from tests.provisioning.commands import laterne
from tests.provisioning.fake_board import Key

from laterne_protocol import cose, trust
from laterne_protocol.gateway_credential import gateway_credential_of
from laterne_provisioning.authority import open_authority
from laterne_provisioning.output import jwk
from laterne_provisioning.primitives import is_signature


def test_a_gateway_s_credential_is_signed_by_the_roster_key_and_written_down(authority: Path, tmp_path: Path) -> None:
    key = Key()
    public = tmp_path / "gateway.jwk"
    public.write_text(json.dumps(jwk(key.public)) + "\n")
    out = tmp_path / "gateway.cbor"
    done = laterne("gateway", "enrol", "--id", "gw-1", "--key", public, "--authority", authority, "-o", out)
    assert "The credential of gw-1" in done.out
    (roster_key,) = open_authority(authority).trusted.keys[trust.ROSTER]
    signed = cose.parse(out.read_bytes(), 512)
    payload = cose.verify(signed, cose.GATEWAY, lambda message, one: is_signature(roster_key, message, one))
    found = gateway_credential_of(payload)
    assert (found.gateway, found.agree_key) == ("gw-1", key.public)
    assert found.is_valid_under(1)
    assert not found.is_valid_under(11)
    laterne("audit", "export", "--authority", authority, "-o", tmp_path / "log")
    assert "enrol gateway" in (tmp_path / "log").read_text()
    laterne("audit", "verify", "--authority", authority)


def test_a_roster_for_a_gateway_without_credential_says_what_comes_next(authority: Path, tmp_path: Path) -> None:
    public = tmp_path / "gateway.jwk"
    public.write_text(json.dumps(jwk(Key().public)))
    more = ("--authority", authority, "-o", tmp_path / "out")
    laterne("gateway", "enrol", "--id", "gw-1", "--key", public, *more)
    assert laterne("roster", "export", "--gateway", "gw-1", *more).err == ""
    assert "`laterne gateway enrol` comes next" in laterne("roster", "export", "--gateway", "gw-l", *more).err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not JSON"),
        ("[]", "not a JWK"),
        ('{"kty": "OKP", "crv": "Ed25519", "x": "AA"}', "not a JWK of P-256"),
        pytest.param(json.dumps(jwk(bytes(64))), "no point of the curve", id="no point"),
        pytest.param(json.dumps(jwk(Key().public) | {"d": "AA"}), "holds a private key", id="private"),
        pytest.param(json.dumps(jwk(Key().public) | {"x": "!"}), "what RFC 7518 wants", id="no base64"),
        pytest.param(json.dumps(jwk(Key().public) | {"x": 7}), "what RFC 7518 wants", id="a number"),
    ],
)
def test_what_is_no_public_key_of_a_gateway_is_refused(authority: Path, tmp_path: Path, text: str, words: str) -> None:
    public = tmp_path / "gateway.jwk"
    public.write_text(text)
    out = tmp_path / "gateway.cbor"
    done = laterne("gateway", "enrol", "--id", "gw-1", "--key", public, "--authority", authority, "-o", out, code=2)
    assert words in done.err
    assert not out.exists()
