"""What python-cwt, an implementation of others, says of signed objects (in the oracles' environment)."""

import base64
import json
import subprocess

from tests.protocol.oracles import oracles_python

WITHIN_S = 60.0

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
        {"object": _base64url(body), "x": _base64url(key[:32]), "y": _base64url(key[32:]), "domain": domain}
        for body, key, domain in cases
    ]
    done = subprocess.run(
        [oracles_python(), "-c", _ORACLE], input=json.dumps(given), capture_output=True, text=True, timeout=WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
