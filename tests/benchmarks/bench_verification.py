"""How many signed objects a gateway checks in a second, beside raw `cryptography` and python-cwt in the same run.

Ours takes a COSE_Sign1 apart with the strict decoder, builds what was signed and verifies; raw verifies a DER signature
of the same bytes with a loaded key and does nothing else, so it is what no implementation can beat. cwt runs in the
oracles' environment with its own `cryptography`; its key is loaded once, too. Rounds take turns, so that all three see
the same machine; figures are medians over the rounds of the ratios within one.
"""

import random
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from tests.gateway.fake_authority import Key
from tests.gateway.fake_board import FakeBoard
from tests.protocol.oracles import Oracle

from laterne_gateway import primitives
from laterne_gateway.examination import examine
from laterne_protocol import cose

PAYLOAD_BYTES = (64, 300, 900)
OBJECTS = 300
ROUNDS = 9


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def of_size(oracle: Oracle, size: int) -> tuple[str, str, str]:
    """The row of one size of payload."""
    key, draw = Key(), random.Random(size)
    objects = [key.sign(cose.REPORT, draw.randbytes(size)) for _ in range(OBJECTS)]
    signed = [cose.parse(one, 1000) for one in objects]
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.public)
    plain = [(der(one.signature), cose.to_be_signed(cose.REPORT, one.protected, one.payload)) for one in signed]
    algorithm = ec.ECDSA(SHA256())
    question = {
        "key": key.public.hex(),
        "kid": key.kid.hex(),
        "domain": cose.REPORT,
        "objects": [one.hex() for one in objects],
    }

    def raw() -> None:
        for signature, message in plain:
            public.verify(signature, message, algorithm)

    def ours() -> None:
        for one in objects:
            cose.verify(cose.parse(one, 1000), cose.REPORT, partial(primitives.valid, key.public))

    rounds = [(seconds(raw), seconds(ours), oracle.ask(question)) for _ in range(ROUNDS)]
    return (
        f"{size} B payload: parsed and verified",
        f"{OBJECTS / median(mine for _, mine, _ in rounds):,.0f}/s, "
        f"{median(bare / mine for bare, mine, _ in rounds):.2f} of raw, "
        f"{median(theirs / mine for _, mine, theirs in rounds):.2f} x cwt",
        f"raw {OBJECTS / median(bare for bare, _, _ in rounds):,.0f}/s, "
        f"cwt {OBJECTS / median(theirs for _, _, theirs in rounds):,.0f}/s",
    )


def der(signature: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


def of_reports() -> tuple[str, str, str]:
    """What the inbox does with a report before its chain: signature, kid, board, every field."""
    board = FakeBoard()
    bodies = [board.make(number + 1, bytes(16), readings=96)[0] for number in range(OBJECTS)]
    entry = board.entry()

    def check() -> None:
        for body in bodies:
            examine(body, entry)

    rate = OBJECTS / median(seconds(check) for _ in range(ROUNDS))
    # A core's share for 1,000 boards that each send a report a minute.
    return (
        f"reports of 96 readings ({len(bodies[0])} B): examined by the inbox",
        f"{rate:,.0f}/s",
        f"1,000 boards, a report a minute: {1000 / 60 / rate:.1%} of a core",
    )


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, peers), all measured now; takes about three seconds."""
    with Oracle("cwt_rate.py") as oracle:
        return [*(of_size(oracle, size) for size in PAYLOAD_BYTES), of_reports()]


if __name__ == "__main__":
    for what, figure, peers in rows():
        print(f"{what:66}  {figure:44}  {peers}")
