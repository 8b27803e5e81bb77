"""Vectors of releases: envelopes and indexes (generate.py)."""

import hashlib
from collections.abc import Callable
from typing import Any

from making import ORDER, RELEASE, ROSTER, Key, Vector, changed, put, vector

from laterne_protocol import cbor, cose, manifest, manifest_writing, release_index

FILES = {
    "laterne_firmware/__init__.mpy": b"",
    "laterne_firmware/app.mpy": b"M" * 700,
    "laterne_firmware/sensors/sht4x.mpy": b"bytecode",
}
HEAD = release_index.Head("0.1.0", 6, 3, 1, "laterne_firmware.app")
FULL_HEAD = release_index.Head("0.2.0+2026-11-22", 6, 3, 1, "laterne_firmware.app", 41, 600, (12800, 12999))
BILL = b"{}"
BASE = cbor.encode({"boot.py": b"import gc"})


def an_index() -> bytes:
    return manifest_writing.index_bytes(FULL_HEAD, FILES)


def an_envelope(*signers: Key, algorithm: int = cose.ESP256) -> bytes:
    """The envelope with index and text, signed by these."""
    made = manifest_writing.envelope_bytes(42, an_index(), manifest_writing.text_bytes("Firmware 0.2.0", BILL, BASE))
    for signer in signers:
        header = cose.protected_header(signer.kid, algorithm)
        message = manifest.envelope_of(made, manifest.MAX_ENVELOPE_BYTES).to_be_signed(header)
        made = manifest_writing.with_signature(made, header, signer.signature(message))
    return made


def severed(data: bytes) -> bytes:
    return manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES).severed()


def signed(name: str, data: bytes, threshold: int = 1, keys: list[Key] = RELEASE) -> Vector:
    """A vector of an envelope that is verified, too."""
    found = manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES)
    good = []
    for one in found.signatures:
        message = found.to_be_signed(one.protected)
        for key in (*RELEASE, ROSTER):
            if key.signature(message) == one.signature:
                good.append([key.public.hex(), hashlib.sha256(message).hexdigest(), one.signature.hex()])
    public = [key.public.hex() for key in keys]
    return vector(name, "envelope", data, keys=public, threshold=threshold, good=good)


def in_manifest(change: Callable[[Any], None]) -> bytes:
    """The severed envelope, unsigned, whose manifest was changed and whose digest is right."""
    parts = cbor.decode(severed(an_envelope()), tags=(107,))
    assert isinstance(parts, cbor.Tag)
    made = changed(parts.value[3], change)
    digest = hashlib.sha256(cbor.encode(made)).digest()
    return cbor.encode(cbor.Tag(107, {2: cbor.encode([cbor.encode([-16, digest])]), 3: made}))


def in_common(change: Callable[[Any], None]) -> bytes:
    return in_manifest(lambda value: value.update({3: changed(value[3], change)}))


def in_shared(change: Callable[[Any], None]) -> bytes:
    return in_common(lambda value: value.update({4: changed(value[4], change)}))


def in_authentication(data: bytes, change: Callable[[Any], None]) -> bytes:
    parts = cbor.decode(data, tags=(107,))
    assert isinstance(parts, cbor.Tag)
    parts.value[2] = changed(parts.value[2], change)
    return cbor.encode(parts)


def in_signature(change: Callable[[Any], None]) -> bytes:
    def one(value: Any) -> None:
        sign1 = cbor.decode(value[1], tags=(18,))
        assert isinstance(sign1, cbor.Tag)
        change(sign1.value)
        value[1] = cbor.encode(sign1)

    return in_authentication(severed(an_envelope(RELEASE[0])), one)


def high_s(value: Any) -> None:
    s = int.from_bytes(value[3][32:], "big")
    value[3] = value[3][:32] + (ORDER - s).to_bytes(32, "big")


def envelope_vectors() -> list[Vector]:
    both = sorted(RELEASE, key=lambda key: key.kid)
    whole, short = an_envelope(*both), severed(an_envelope(*both))
    swapped = in_authentication(short, lambda value: value.insert(1, value.pop()))
    doubled = in_authentication(short, lambda value: value.insert(1, value[1]))
    install, digest = [20, {21: "#i"}, 21, 2, 3, 15], cbor.encode([-16, bytes(32)])

    def bare(name: str, data: bytes) -> Vector:
        return vector(name, "envelope", data)

    def part(key: object, value: object) -> bytes:
        parts = cbor.decode(whole, tags=(107,))
        assert isinstance(parts, cbor.Tag)
        parts.value[key] = value
        return cbor.encode(parts)

    def sequence(key: int, *commands: object) -> bytes:
        return in_manifest(put(key, cbor.encode(list(commands))))

    return [
        bare("an unsigned envelope with its index and text", an_envelope()),
        bare("the same as it goes to a board", severed(an_envelope())),
        signed("two of two release keys", whole, 2),
        signed("the same severed", short, 2),
        signed("one of two is enough", severed(an_envelope(RELEASE[0]))),
        signed("with the former name of the algorithm", severed(an_envelope(RELEASE[0], algorithm=cose.ES256))),
        bare("the component is named, which changes nothing", sequence(20, 12, 0, *install)),
        bare("how it is started is not ours to read", in_manifest(put(9, cbor.encode([23, 2])))),
        signed("one where two are needed", severed(an_envelope(RELEASE[0])), 2),
        signed("nobody's signature", severed(an_envelope())),
        signed("a key of another role", severed(an_envelope(ROSTER))),
        signed("a stranger beside a release key where two are needed", severed(an_envelope(RELEASE[0], ROSTER)), 2),
        signed("the high-s form of a good signature", in_signature(high_s)),
        signed("another manifest under good signatures",
               in_authentication(in_manifest(put(2, 43)), lambda value: value.append(_first_signature(short)))),
        bare("signatures in another order", swapped),
        bare("one signature twice", doubled),
        bare("no tag", cbor.encode(cbor.decode(short, tags=(107,)).value)),  # type: ignore[attr-defined]  # it has this tag
        bare("the tag of a COSE_Sign1", RELEASE[0].sign(cose.ORDER, b"payload")),
        bare("no manifest", cbor.encode(cbor.Tag(107, {2: b"x"}))),
        bare("a byte after the end", short + b"\0"),
        bare("a severed install sequence", part(20, b"x")),
        bare("a second payload", part("#j", b"x")),
        bare("another index", part("#i", an_index() + b"\0")),
        bare("null for an index", part("#i", None)),
        bare("another text", part(23, manifest_writing.text_bytes("Firmware 0.3.0", BILL, BASE))),
        bare("a text that the manifest does not name", _with_unsigned_text()),
        bare("the digest of another manifest", in_authentication(short, put(0, digest))),
        bare("a digest by SHA-384", in_authentication(short, put(0, cbor.encode([-43, bytes(48)])))),
        bare("four signatures", in_authentication(short, lambda value: value.extend(value[1:]))),
        bare("a payload in the signature", in_signature(put(2, b"payload"))),
        bare("an unprotected kid", in_signature(put(1, {4: RELEASE[0].kid}))),
        bare("algorithm ES384", in_signature(put(0, cbor.encode({1: -35, 4: RELEASE[0].kid})))),
        bare("a third header", in_signature(put(0, cbor.encode({1: -9, 2: [4], 4: RELEASE[0].kid})))),
        bare("a kid of 7 bytes", in_signature(put(0, cbor.encode({1: -9, 4: bytes(7)})))),
        bare("no kid", in_signature(put(0, cbor.encode({1: -9})))),
        bare("a signature of 63 bytes", in_signature(lambda value: value.append(value.pop()[1:]))),
        bare("sequence 0", in_manifest(put(2, 0))),
        bare("version 2 of the manifest", in_manifest(put(1, 2))),
        bare("a reference to somewhere", in_manifest(put(4, "https://example.org/"))),
        bare("a load sequence", sequence(8, 3, 15)),
        bare("a fetch sequence", sequence(16, 21, 15)),
        bare("no install sequence", in_manifest(lambda value: value.pop(20))),
        bare("a severed install sequence by its digest", in_manifest(put(20, [-16, bytes(32)]))),
        bare("a second component", in_common(put(2, [[b"app"], [b"boot"]]))),
        bare("another component", in_common(put(2, [[b"boot"]]))),
        bare("dependencies", in_common(put(1, {0: {}}))),
        bare("shared commands in another order",
             in_shared(lambda value: value.__setitem__(slice(2, None), [2, 15, 1, 15]))),
        bare("no condition of the class", in_shared(lambda value: value.__delitem__(slice(4, None)))),
        bare("a device identifier", in_shared(lambda value: value.extend([24, 15]))),
        bare("a try-each", in_shared(put(0, 15))),
        bare("a vendor of 15 bytes", in_shared(put(1, 1, bytes(15)))),
        bare("no size", in_shared(lambda value: value[1].pop(14))),
        bare("a size of nothing", in_shared(put(1, 14, 0))),
        bare("an index that is too long", in_shared(put(1, 14, 16385))),
        bare("a component slot", in_shared(put(1, 5, 0))),
        bare("from somewhere else", sequence(20, 20, {21: "https://example.org/"}, 21, 2, 3, 15)),
        bare("fetched and not compared", sequence(20, 20, {21: "#i"}, 21, 2)),
        bare("a run-sequence", sequence(20, 20, {21: "#i"}, 32, b"", 3, 15)),
        bare("the second component", sequence(20, 12, 1, *install)),
        bare("the component false", sequence(20, 12, False, *install)),
        bare("validated by nothing", sequence(7)),
        bare("a policy that is none", sequence(7, 3, True)),
    ]  # fmt: skip


def _first_signature(data: bytes) -> bytes:
    parts = cbor.decode(data, tags=(107,))
    assert isinstance(parts, cbor.Tag)
    found: bytes = cbor.decode(parts.value[2])[1]  # type: ignore[call-overload, index, attr-defined]  # the shape of our own envelope
    return found


def _with_unsigned_text() -> bytes:
    parts = cbor.decode(in_manifest(lambda value: value.pop(23)), tags=(107,))
    assert isinstance(parts, cbor.Tag)
    parts.value[23] = manifest_writing.text_bytes("Firmware 0.2.0", BILL, BASE)
    return cbor.encode(parts)


def index_vectors() -> list[Vector]:
    full = an_index()

    def items(change: Callable[[Any], None]) -> bytes:
        return changed(full, change)

    def in_head(change: Callable[[Any], None]) -> bytes:
        return items(lambda value: value.__setitem__(0, changed(value[0], change)))

    def in_file(change: Callable[[Any], None]) -> bytes:
        return items(lambda value: value.__setitem__(2, changed(value[2], change)))

    def path(text: object) -> bytes:
        return cbor.encode([changed(full_items[0], put(3, 1)), cbor.encode([text, 0, bytes(32)])])

    full_items: Any = cbor.decode(full)
    large = [cbor.encode([f"a{number:02}", 32768, bytes(32)]) for number in range(17)]
    paths = [
        ("an absolute path", "/main.py"), ("a path upwards", "a/../../main.py"), ("a path upwards at once", "../m.mpy"),
        ("a folder for a path", "a/"), ("two slashes", "a//b"), ("the folder itself", "./a"), ("a hidden file", ".a"),
        ("the manifest of the slot", "M"), ("the envelope of the slot", "E"), ("a capital", "a/App.mpy"),
        ("a file half written", "a/b.n"), ("a space", "a b"), ("an umlaut", "grün.mpy"), ("a backslash", "a\\b"),
        ("a path of 49 bytes", "a" * 49), ("no path", ""), ("a path of bytes", b"a"), ("four folders", "a/b/c/d/e"),
    ]  # fmt: skip
    return [
        vector("all that an index may say", "index", full),
        vector("the least it must say", "index", manifest_writing.index_bytes(HEAD, FILES)),
        vector("a path of 48 bytes in three folders", "index", path("a/b/c/" + "d" * 42)),
        vector("digits, hyphens and underscores", "index", path("0/a-b_c.d.mpy")),
        *[vector(name, "index", path(text)) for name, text in paths],
        vector("files out of order", "index", items(lambda value: value.insert(1, value.pop()))),
        vector("one file twice", "index", _doubled(full_items)),
        vector("more files than there are", "index", in_head(put(3, 4))),
        vector("fewer files than there are", "index", in_head(put(3, 2))),
        vector("no file", "index", cbor.encode([changed(full_items[0], put(3, 0))])),
        vector("a byte after the end", "index", full + b"\0"),
        vector("the last byte is missing", "index", full[:-1]),
        vector("nothing", "index", b""),
        vector("no version", "index", in_head(lambda value: value.pop(1))),
        vector("a version with an escape sequence", "index", in_head(put(1, "\x1b[2J"))),
        vector("an ABI of text", "index", in_head(put(2, "6"))),
        vector("a key that is not ours", "index", in_head(put(9, 1))),
        vector("an entry with a path", "index", in_head(put(6, "../app"))),
        vector("a trial of a second", "index", in_head(put(7, {1: 1}))),
        vector("interpreters backwards", "index", in_head(put(8, [12900, 12800]))),
        vector("least sequence 0, said though it goes without saying", "index", in_head(put(5, 0))),
        vector("a file larger than boards take", "index", in_file(put(1, 32769))),
        vector("a size below nothing", "index", in_file(put(1, -1))),
        vector("a digest of 31 bytes", "index", in_file(put(2, bytes(31)))),
        vector("a file with an encoding", "index", in_file(lambda value: value.append(1))),
        vector("files larger than a slot", "index", cbor.encode([changed(full_items[0], put(3, 17)), *large])),
        vector("a long head of a short item", "index", full[:1] + b"\x58\x17" + bytes(23)),
        vector("a long count of few files", "index", b"\x98\x04" + full[1:]),
        vector("a map", "index", b"\xa0"),
        vector("an item that is no byte string", "index", b"\x84" + full[2:]),
    ]


def _doubled(items: Any) -> bytes:
    return cbor.encode([changed(items[0], put(3, 4)), items[1], items[1], *items[2:]])
