"""python-cwt, an implementation of others, believes the credentials, rosters and reports that we make.

Its pins clash with ours, so it runs in the environment of the oracles (tests/protocol/oracles.py).
"""

import json
import subprocess
from pathlib import Path

from laterne_protocol import cose, trust
from laterne_provisioning.authority import open_authority
from laterne_provisioning.output import base64url

from tests.protocol.oracles import oracles_python
from tests.provisioning.commands import WITHIN_S, laterne
from tests.provisioning.fake_board import FakeBoard

_ORACLE = """
import base64, json, sys
import cbor2
from cwt import COSE, COSEKey

def raw(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

for case in json.load(sys.stdin):
    tag = cbor2.loads(raw(case["object"]))
    kid = cbor2.loads(tag.value[0])[4]
    jwk = {"kty": "EC", "crv": "P-256", "x": case["x"], "y": case["y"], "alg": "ESP256"}
    key = COSEKey.new({1: 2, 3: -9, 2: kid, -1: 1, -2: raw(case["x"]), -3: raw(case["y"])})
    try:
        payload = COSE.new().decode(raw(case["object"]), key, external_aad=case["domain"].encode())
        print(json.dumps({"payload": payload.hex()}))
    except Exception as why:
        print(json.dumps({"error": str(why)}))
"""


def judged(cases: list[tuple[bytes, bytes, str]]) -> list[dict[str, str]]:
    """What cwt says of (object, key of 64 bytes, domain)."""
    given = [
        {"object": base64url(body), "x": base64url(key[:32]), "y": base64url(key[32:]), "domain": domain}
        for body, key, domain in cases
    ]
    done = subprocess.run(
        [oracles_python(), "-c", _ORACLE], input=json.dumps(given), capture_output=True, text=True, timeout=WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_cwt_believes_what_we_and_the_boards_sign_and_nothing_under_another_domain(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", tmp_path / "r")
    keys = open_authority(authority).trusted.keys
    assert boards[0].credential is not None
    good = [
        (boards[0].credential, keys[trust.ENROLMENT][0], cose.CREDENTIAL),
        ((tmp_path / "r").read_bytes(), keys[trust.ROSTER][0], cose.ROSTER),
        (boards[0].next_report(), boards[0].key.public, cose.REPORT),
    ]
    for (body, _, _), verdict in zip(good, judged(good), strict=True):
        assert verdict == {"payload": cose.parse(body, 65536).payload.hex()}
    wrong = [(body, key, cose.TRUST) for body, key, _ in good] + [(good[2][0], boards[1].key.public, cose.REPORT)]
    for verdict in judged(wrong):
        assert "error" in verdict
