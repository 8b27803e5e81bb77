"""What our code reads in bytes, as JSON can hold it: how vectors are made, and compared on both interpreters.

    describe("message", b"...", {}) -> {"type": "Hello", "number": 5, "again": True}, or {"refused": "MessageError"}

`again` says whether the value, encoded again, gives the same bytes. Bytes are lower-case hex. CBOR values are
written as JSON, with {"bytes": hex}, {"map": [[key, value], ...]}, {"tag": [number, value]} and, where a text is not
ASCII, {"utf8": hex}. The file runs on MicroPython too, so each reader loads what it reads with, and no more.
"""

import hashlib
from io import BytesIO

from laterne_protocol import cbor
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator


def describe(kind: str, data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    """kind: a key of READERS. more: what the reader needs besides the bytes. Raises only what our code should not."""
    try:
        return READERS[kind](data, more)
    except WireError as refused:
        return {"refused": type(refused).__name__}


def notation(value: object) -> object:
    """A CBOR value of our subset as JSON."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, str):
        encoded = value.encode()
        return value if len(encoded) == len(value) else {"utf8": encoded.hex()}
    if isinstance(value, (list, tuple)):
        return [notation(item) for item in value]
    if isinstance(value, dict):
        pairs = [(cbor.encode(key), [notation(key), notation(value[key])]) for key in value]
        return {"map": [pair for _, pair in sorted(pairs, key=lambda pair: pair[0])]}
    if isinstance(value, cbor.Tag):
        return {"tag": [value.number, notation(value.value)]}
    return value


def _plain(value: object) -> object:
    # Attributes of our values: bytes as hex, objects as maps of their attributes.
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in value}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return {name: _plain(item) for name, item in value.__dict__.items()}


def _object(value: object, again: bytes, data: bytes) -> "dict[str, object]":
    described = _plain(value)
    described["again"] = again == data
    return described


def _payload(module: str, reader: str) -> "Callable[[bytes, dict[str, object]], dict[str, object]]":
    """Of what is signed: a module and its function that reads a payload."""

    def read(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
        found = getattr(__import__("laterne_protocol." + module, None, None, (reader,)), reader)(data)
        return _object(found, found.to_payload(), data)

    return read


def _cbor(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    value = cbor.decode(data, 65536, tuple(more.get("tags", ())))
    return {"value": notation(value), "again": cbor.encode(value) == data}


def _frames(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import frame

    decoder = frame.FrameDecoder()
    found = decoder.feed(data)
    return {
        "frames": [[one.kind, one.destination, one.source, one.payload.hex()] for one in found],
        "damaged": decoder.damaged,
        "overlong": decoder.overlong,
        "unknown": decoder.unknown,
        "again": b"".join([one.to_bytes() for one in found]) == data,
    }


def _message(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import messages

    message = messages.message_of(data)
    described = _object(message, message.to_bytes(), data)
    described["type"] = type(message).__name__
    return described


def _report(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import report, report_reading

    found = report_reading.report_of(data)
    described = _object(found, found.to_payload(), data)
    described["digest"] = report.digest(data).hex()
    described["readings"] = [list(reading) for reading in report_reading.readings_of(found)]
    return described


def _grant(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import grant

    # more["asked"]: [board, post or None, Unix seconds] -> what the grant says of each.
    found = grant.grant_of(data)
    described = _object(found, found.to_payload(), data)
    if "asked" in more:
        asked = more["asked"]
        described["answers"] = [found.why_not(board, at) or found.why_not_there(post) for board, post, at in asked]
    return described


def _roster(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import roster

    found = roster.roster_of(data)
    described = _object(found, found.to_payload(), data)
    described["digest"] = roster.digest(data).hex()
    return described


def _trust_file(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import trust

    # more["good"]: [key, SHA-256 of the signed message, signature] of each signature that is good.
    good = more["good"]
    former = more.get("former")

    def valid(key: bytes, message: bytes, signature: bytes) -> bool:
        return [key.hex(), hashlib.sha256(message).digest().hex(), signature.hex()] in good

    found = trust.trust_of(data, valid, None if former is None else trust.trust_payload_of(bytes.fromhex(former)))
    return {"version": found.version, "authority": found.authority}


def _bundle(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import cose, trust

    signed = trust.unpack(data)
    whole = [cose.assemble(one.protected, one.payload, one.signature) for one in signed]
    return {
        "payload": signed[0].payload.hex(),
        "digest": trust.digest(signed[0].payload).hex(),
        "kids": [one.kid.hex() for one in signed],
        "again": trust.pack(trust.trust_file(whole)) == data,
    }


def _sign1(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import cose

    found = cose.parse(data, 65536)
    cose.check_low_s(found.signature)
    described = _object(found, cose.assemble(found.protected, found.payload, found.signature), data)
    described["to_be_signed"] = cose.to_be_signed(more["domain"], found.protected, found.payload).hex()
    return described


def _envelope(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import manifest

    # more["keys"], ["threshold"]: who may sign, and how many must; ["good"]: as above.
    found = manifest.envelope_of(data, 20480)
    described = _plain(found)
    described["to_be_signed"] = [found.to_be_signed(one.protected).hex() for one in found.signatures]
    if "keys" in more:

        def valid(key: bytes, message: bytes, signature: bytes) -> "Generator[None, None, bool]":
            return [key.hex(), hashlib.sha256(message).digest().hex(), signature.hex()] in more["good"]
            yield

        for _ in manifest.verified(found, [bytes.fromhex(key) for key in more["keys"]], more["threshold"], valid):
            pass
    parts = {2: found.authentication, 3: found.manifest}
    if found.text is not None:
        parts[23] = found.text
    if found.index is not None:
        parts["#i"] = found.index
    else:
        described["again"] = found.severed() == data or found.text is not None
    described["again"] = cbor.encode(cbor.Tag(107, parts)) == data and described.get("again", True)
    return described


def _suit(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import manifest

    # An envelope of others, as far as it is like ours. more["component"], more["uri"]: what it installs, from where.
    found = manifest.authenticated(data, 4096)
    described = {"to_be_signed": [found.to_be_signed(one.protected).hex() for one in found.signatures]}
    try:
        manifest.read(found, bytes.fromhex(more["component"]), more["uri"])
        described["sequence"], described["size"] = found.sequence, found.index_size
    except WireError as why:
        described["why not"] = str(why)
    return described


def _index(data: bytes, more: "dict[str, object]") -> "dict[str, object]":
    from laterne_protocol import manifest_writing, release_index

    source = BytesIO(data)
    head = release_index.head_of(source.read)
    entries = list(release_index.entries(source.read, head))
    return {
        "head": _plain(head),
        "files": [[path, size, digest.hex()] for path, size, digest in entries],
        "again": manifest_writing.encoded(head, entries) == data,
    }


READERS = {
    "cbor": _cbor,
    "frames": _frames,
    "message": _message,
    "report": _report,
    "credential": _payload("credential", "credential_of"),
    "possession": _payload("credential", "possession_of"),
    "gateway": _payload("gateway_credential", "gateway_credential_of"),
    "order": _payload("order", "order_of"),
    "receipt": _payload("receipt", "receipt_of"),
    "grant": _grant,
    "roster": _roster,
    "trust": _payload("trust", "trust_payload_of"),
    "trust file": _trust_file,
    "trust bundle": _bundle,
    "sign1": _sign1,
    "envelope": _envelope,
    "index": _index,
    "suit": _suit,
}
