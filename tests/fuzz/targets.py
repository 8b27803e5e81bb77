"""What is fuzzed: plain functions of bytes that raise a WireError, or nothing.

Each holds more than "no other error": what it takes it gives back byte for byte, an independent library takes it too,
a signature or a tag that was not made with the key is never taken. A broken promise is an AssertionError.
"""

import functools
import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import cbor2
from tests.fuzz import handshakes, releases
from tests.fuzz.corpus import good, of_vectors, vectors

from laterne_gateway import primitives
from laterne_protocol import (
    cbor,
    cose,
    credential,
    frame,
    grant,
    messages,
    order,
    receipt,
    report_reading,
    roster,
    trust,
)
from laterne_protocol.errors import MessageError, WireError
from laterne_protocol.gateway_credential import gateway_credential_of

Target = Callable[[bytes], None]
MAX_INPUT_BYTES = 4096  # as long as the longest seed
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2
OUR_TAGS = (18, 99)


# The decoder, and cbor2 as strict as it can be ---------------------------------------------------------------------


def read_cbor(data: bytes) -> None:
    value = cbor.decode(data, tags=OUR_TAGS)
    assert cbor.encode(value) == data
    assert_same(value, theirs(data))
    first, end = cbor.decode_first(data, 0, tags=OUR_TAGS)
    assert (first, end) == (value, len(data))


def theirs(data: bytes) -> Any:
    """cbor2's value of these bytes, all of them. What it calls a tag's meaning is left unread."""
    source = io.BytesIO(data)
    value = cbor2.CBORDecoder(
        source,
        max_depth=9,  # eight levels, and the value in the innermost
        allow_indefinite=False,
        allow_duplicate_keys=False,
        read_size=1,
    ).decode()
    assert source.read() == b""
    return value


def assert_same(ours: Any, other: Any) -> None:
    """Equal in value and in type: in Python 1 == True, and b"" is not "" only because of its type."""
    if isinstance(ours, cbor.Tag):
        assert isinstance(other, cbor2.CBORTag)
        assert ours.number == other.tag
        assert_same(ours.value, other.value)
    elif isinstance(ours, list):
        assert isinstance(other, (list, tuple))
        assert len(ours) == len(other)
        for one, another in zip(ours, other, strict=True):
            assert_same(one, another)
    elif isinstance(ours, dict):
        assert isinstance(other, Mapping)
        assert ours.keys() == other.keys()
        for key in ours:
            assert_same(ours[key], other[key])
    else:
        assert type(ours) is type(other)
        assert ours == other


# Frames ------------------------------------------------------------------------------------------------------------


def read_frames(data: bytes) -> None:
    """However the bytes are split, the same frames and the same counts; what was found gives itself again."""
    whole, split = frame.FrameDecoder(), frame.FrameDecoder()
    found = whole.feed(data)
    step = 1 + data[0] % 7 if data else 1
    pieces = []
    for at in range(0, len(data), step):
        pieces += split.feed(data[at : at + step])
        assert len(split._pending) <= frame.MAX_FRAME_BYTES
    assert [vars(one) for one in pieces] == [vars(one) for one in found]
    for count in ("damaged", "overlong", "unknown"):
        assert getattr(split, count) == getattr(whole, count)
    for one in found:
        (again,) = frame.FrameDecoder().feed(one.to_bytes())
        assert vars(again) == vars(one)
        assert one.to_bytes() in data


# Objects -----------------------------------------------------------------------------------------------------------


def read_message(data: bytes) -> None:
    try:
        found: Any = messages.message_of(data)
    except MessageError:
        raise
    except WireError as why:
        raise AssertionError("a message is refused with a MessageError") from why
    assert found.to_bytes() == data


def read_report(data: bytes) -> None:
    found = report_reading.report_of(data)
    assert found.to_payload() == data
    for _ in report_reading.readings_of(found):
        pass


def read_credential(data: bytes) -> None:
    assert credential.credential_of(data).to_payload() == data


def read_possession(data: bytes) -> None:
    assert credential.possession_of(data).to_payload() == data


def read_roster(data: bytes) -> None:
    found = roster.roster_of(data)
    assert found.to_payload() == data
    assert len({entry.board for entry in found.entries}) == len(found.entries)


def read_order(data: bytes) -> None:
    assert order.order_of(data).to_payload() == data


def read_receipt(data: bytes) -> None:
    assert receipt.receipt_of(data).to_payload() == data


def read_trust(data: bytes) -> None:
    assert trust.trust_payload_of(data).to_payload() == data


def read_bundle(data: bytes) -> None:
    """What boards are brought: as many signatures of one payload as it holds, none of them lost or invented."""
    found = trust.unpack(data)
    assert trust.pack(trust.trust_file([signed_bytes(one) for one in found])) == data
    assert len({one.payload for one in found}) == 1


def signed_bytes(signed: cose.Sign1) -> bytes:
    return cose.assemble(signed.protected, signed.payload, signed.signature)


def read_gateway(data: bytes) -> None:
    assert gateway_credential_of(data).to_payload() == data


def read_grant(data: bytes) -> None:
    """What it allows is for the bounds that stand in it."""
    found = grant.grant_of(data)
    assert found.to_payload() == data
    begin, end = found.valid
    assert found.why_not("LE-1", begin - 1) is not None
    assert found.why_not("LE-1", end + 1) is not None
    for pattern in (*found.ids, *found.posts):
        named = pattern[:-1] if pattern[-1] == "*" else pattern.partition(":")[2] or pattern
        assert grant.covers(pattern, named)
        assert pattern[-1] == "*" or not grant.covers(pattern, "a" + named)


# Every domain string of ours, so that an object added today is fuzzed today.
DOMAINS = tuple(one for one in vars(cose).values() if isinstance(one, str) and one.startswith("laterne/"))


@functools.cache
def signed_trusts() -> list[cose.Sign1]:
    """What roots have signed in the vectors, also in files that are refused for another reason."""
    files = [cbor.decode(bytes.fromhex(one["hex"])) for one in vectors("trust") if one["kind"] == "trust file"]
    return [cose.parse(data, trust.MAX_TRUST_BYTES) for file in files if isinstance(file, list) for data in file]


@functools.cache
def known_keys() -> frozenset[bytes]:
    """The public keys of the vectors' board and authority, those of its later and stranger trusts too."""
    board = credential.credential_of(good("credential")[0])
    trusts = [trust.trust_payload_of(signed.payload) for signed in signed_trusts()]
    roles = (key for one in trusts for keys in one.keys.values() for key in keys)
    return frozenset((board.sign_key, *roles, *(root for one in trusts for root in one.roots)))


@functools.cache
def known_payloads(domain: str) -> frozenset[bytes]:
    """What was truly signed under this domain string: all of it stands in the vectors."""
    signed = [cose.parse(data, cbor.MAX_BYTES) for data in good("sign1")] + signed_trusts()
    return frozenset(one.payload for one in signed if any(is_by(key, one, domain) for key in known_keys()))


def is_by(key: bytes, signed: cose.Sign1, domain: str) -> bool:
    try:
        cose.verify(signed, domain, partial(primitives.valid, key))
    except WireError:
        return False
    return True


def read_signed(data: bytes) -> None:
    """No changed object is believed, under any domain string and any key."""
    signed = cose.parse(data, cbor.MAX_BYTES)
    assert signed_bytes(signed) == data
    keys = [key for key in known_keys() if credential.kid(key) == signed.kid]
    for domain in DOMAINS:
        if any(is_by(key, signed, domain) for key in keys):
            assert signed.payload in known_payloads(domain), f"forged for {domain}"
            # One form of each signature: the vectors hold the other one, too.
            assert int.from_bytes(signed.signature[32:], "big") <= ORDER // 2


@functools.cache
def former_trust() -> trust.Trust:
    return trust.trust_payload_of(good("trust")[0])


def read_trust_file(data: bytes) -> None:
    """With the vectors' signatures checked in earnest: as the beginning of trust, and on top of one."""
    found = trust.trust_of(data, primitives.valid)
    assert found.to_payload() in known_payloads(cose.TRUST)
    after = trust.trust_of(data, primitives.valid, former_trust())
    assert after.version >= former_trust().version


TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = (
    {
        name: (target, partial(of_vectors, name))
        for name, target in {
            "cbor": read_cbor,
            "frame": read_frames,
            "message": read_message,
            "cose": read_signed,
            "report": read_report,
            "credential": read_credential,
            "possession": read_possession,
            "order": read_order,
            "receipt": read_receipt,
            "grant": read_grant,
            "roster": read_roster,
            "trust": read_trust,
            "trust-file": read_trust_file,
            "bundle": read_bundle,
            "gateway": read_gateway,
        }.items()
    }
    | handshakes.TARGETS
    | releases.TARGETS
)
