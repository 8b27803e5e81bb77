"""Envelopes made of one that is signed, as somebody would make them who wants his own manifest under that signature.

Bytes are flipped, lost, added; keys come in another order, twice, or with others beside them; lengths are indefinite or
longer than they need to be; the manifest says something else and its digest is made to fit; signatures are left out,
doubled, exchanged, turned into their other form. What comes out is never what went in.
"""

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from tests.fuzz import mutate
from tests.protocol.test_objects import damaged

from laterne_protocol import cbor

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
_MAX_BYTES = 20480
Pairs = list[tuple[Any, Any]]


def mutated(signed: bytes, draw: random.Random) -> bytes:
    """signed: a severed envelope. Another one, by one of the ways below or two of them."""
    while True:
        made = draw.choice(WAYS)(signed, draw)
        if draw.random() < 0.2:
            made = mutate.mutated(made, [signed], draw)
        if made != signed:
            return made


def taken_apart(signed: bytes) -> tuple[list[Any], dict[Any, Any]]:
    """The authentication, its byte strings decoded, and the manifest."""
    parts: Any = cbor.decode(signed, _MAX_BYTES, (107,))
    authentication: Any = cbor.decode(parts.value[2])
    items = [cbor.decode(item, 128, (18,)) for item in authentication]
    manifest: Any = cbor.decode(parts.value[3])
    return items, manifest


def put_together(items: list[Any], manifest: bytes) -> bytes:
    return cbor.encode(cbor.Tag(107, {2: cbor.encode([cbor.encode(item) for item in items]), 3: manifest}))


def sealed(items: list[Any], manifest: bytes) -> bytes:
    """With a digest that fits."""
    return put_together([[-16, sha256(cbor.encode(manifest)).digest()], *items[1:]], manifest)


# Forms -------------------------------------------------------------------------------------------------------------


def odd_map(pairs: Pairs, draw: random.Random) -> bytes:
    """A map as no deterministic encoder makes it: another order, a key twice, indefinite, or a longer head."""
    found = [cbor.encode(key) + cbor.encode(value) for key, value in pairs]
    how = draw.randrange(4)
    if how == 0:
        draw.shuffle(found)
    elif how == 1:
        found.insert(draw.randrange(len(found) + 1), draw.choice(found))
    elif how == 2:
        return b"\xbf" + b"".join(found) + b"\xff"
    else:
        return bytes((0xB8, len(found))) + b"".join(found)
    return bytes((0xA0 + len(found),)) + b"".join(found)


def odd_bytes(data: bytes, draw: random.Random) -> bytes:
    """A byte string of indefinite length, or with a head that is too long."""
    if draw.random() < 0.5:
        cut = draw.randrange(len(data) + 1)
        return b"\x5f" + cbor.encode(data[:cut]) + cbor.encode(data[cut:]) + b"\xff"
    return b"\x5a" + len(data).to_bytes(4, "big") + data


def another_form(signed: bytes, draw: random.Random) -> bytes:
    parts: Any = cbor.decode(signed, _MAX_BYTES, (107,))
    pairs = sorted(parts.value.items())
    if draw.random() < 0.5:
        return signed[:2] + odd_map(pairs, draw)
    odd = draw.randrange(2)
    body = [
        cbor.encode(key) + (odd_bytes(value, draw) if number == odd else cbor.encode(value))
        for number, (key, value) in enumerate(pairs)
    ]
    return signed[:2] + b"\xa2" + b"".join(body)


def another_tag(signed: bytes, draw: random.Random) -> bytes:
    head = draw.choice((b"", b"\xd2", b"\xd8\x6a", b"\xd9\x00\x6b", b"\xd8\x6b\xd8\x6b"))
    return head + signed[2:] + draw.choice((b"", b"", b"\0", signed))


def more_beside(signed: bytes, draw: random.Random) -> bytes:
    """Parts that nobody has signed: an index, a text, severed sequences, what is not SUIT's."""
    parts: Any = cbor.decode(signed, _MAX_BYTES, (107,))
    key = draw.choice((1, 4, 16, 20, 23, "#i", "#j", "", -1))
    value = draw.choice((b"", b"\xf6", None, parts.value[3], draw.randbytes(20)))
    return cbor.encode(cbor.Tag(107, {**parts.value, key: value}))


# Another manifest --------------------------------------------------------------------------------------------------


def another_manifest(signed: bytes, draw: random.Random) -> bytes:
    """With its own digest, and the signatures of the one before."""
    items, manifest = taken_apart(signed)
    how = draw.randrange(4)
    if how == 0:
        manifest[2] += draw.choice((1, -1, 1000))
        made = cbor.encode(manifest)
    elif how == 1:
        made = odd_map(sorted(manifest.items()), draw)
    elif how == 2:
        common: Any = cbor.decode(manifest[3])
        shared: Any = cbor.decode(common[4])
        shared[1] = {**shared[1], draw.choice((1, 2, 3)): draw.randbytes(16), 14: draw.randrange(1, 20_000)}
        manifest[3] = cbor.encode({**common, 4: cbor.encode(shared)})
        made = cbor.encode(manifest)
    else:
        made = cbor.encode(damaged(manifest, draw))
    return sealed(items, made) if draw.random() < 0.8 else put_together(items, made)


# Other signatures --------------------------------------------------------------------------------------------------


def other_signatures(signed: bytes, draw: random.Random) -> bytes:
    parts: Any = cbor.decode(signed, _MAX_BYTES, (107,))
    items, _ = taken_apart(signed)
    at = draw.randrange(1, len(items))
    protected, unprotected, payload, signature = items[at].value
    r, s = signature[:32], signature[32:]
    how = draw.randrange(9)
    if how == 0:
        del items[at]
    elif how == 1:
        items.insert(at, items[at])
    elif how == 2:
        items[0] = [-16, draw.randbytes(32)]
    elif how == 3:
        items[0] = draw.choice(([-16], [-43, items[0][1]], [-16, items[0][1], None], items[0][1], items[at]))
    else:
        if how == 4:
            signature = draw.choice((r + (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big"), s + r, bytes(64)))
        elif how == 5:
            signature = bytes(byte ^ (1 << draw.randrange(8)) if draw.random() < 0.03 else byte for byte in signature)
        elif how == 6:
            header = {1: draw.choice((-9, -7, -8, -37, 5, 0)), 4: draw.choice((draw.randbytes(8), protected[-8:]))}
            protected = cbor.encode(draw.choice((header, {**header, 2: [1]}, {1: -9}, {4: header[4]}, {})))
        elif how == 7:
            unprotected = {draw.choice((1, 4)): draw.choice((-9, protected[-8:]))}
        else:
            payload = draw.choice((b"", cbor.encode(items[0]), parts.value[3]))
        items[at] = cbor.Tag(draw.choice((18, 18, 18, 98)), [protected, unprotected, payload, signature])
    return put_together(items, parts.value[3])


def bytes_changed(signed: bytes, draw: random.Random) -> bytes:
    return mutate.mutated(signed, [signed], draw)


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    bytes_changed,
    bytes_changed,
    another_form,
    another_tag,
    more_beside,
    another_manifest,
    another_manifest,
    other_signatures,
    other_signatures,
)
