"""Everything that is parsed, under attack: good objects are damaged, and only a WireError may come of it.

The same damaged objects are shown to the schema: it takes all that the code takes, and where it takes more the code has
one of the reasons that CDDL has no words for.
"""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.cddl import DoesNotFit, check
from tests.protocol.properties import THOROUGH, source

from laterne_protocol import (
    cbor,
    cose,
    credential,
    gateway_credential,
    grant,
    messages,
    order,
    receipt,
    report,
    report_reading,
    roster,
    trust,
)
from laterne_protocol.errors import MessageError, WireError

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
FILES = {"message": "messages", "sign1": "cose", "possession": "credential", "trust bundle": "trust"}


def all_readings(payload: bytes) -> report.Report:
    found = report_reading.report_of(payload)
    list(report_reading.readings_of(found))
    return found


def trust_bundle(data: bytes) -> list[cose.Sign1]:
    signed = trust.unpack(data)
    trust.trust_payload_of(signed[0].payload)
    return signed


# kind of vector: (rule of the schema, parser of our code)
KINDS: dict[str, tuple[str, Callable[[bytes], object]]] = {
    "message": ("message", messages.message_of),
    "report": ("report", all_readings),
    "credential": ("credential", credential.credential_of),
    "possession": ("possession", credential.possession_of),
    "gateway": ("gateway-credential", gateway_credential.gateway_credential_of),
    "order": ("order", order.order_of),
    "receipt": ("receipt", receipt.receipt_of),
    "grant": ("grant", grant.grant_of),
    "roster": ("roster", roster.roster_of),
    "trust": ("trust", trust.trust_payload_of),
    "trust bundle": ("trust-bundle", trust_bundle),
    "sign1": ("signed", lambda data: cose.parse(data, cbor.MAX_BYTES)),
}

# What the code refuses and the schema cannot.
BEYOND_CDDL = (
    "control character", "last epoch", "values at", "quality for readings", "longer than", "end of a number",
    "beyond 32 bits", "after the closing", "first reading", "lost report", "two columns", "stands twice",
    "one key twice", "threshold", "more items", "bytes, at most", "last trust version",
    "reason why not", "has no result",
    "acknowledged reports", "former key", "count up", "end of the grant", "end of its block",
)  # fmt: skip

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 5, 24, 255, 256, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, -(2**64), "", "a", "a b",
    "Grünau", "x" * 40, "\x1b[2J", b"", b"\x80", b"\x02", bytes(8), bytes(16), bytes(32), bytes(64), bytes(65),
    bytes(600), [], [0], [[]], [1, 2, 3], {}, {0: 0}, {"a": None}, [[0] * 3] * 3,
]  # fmt: skip


def good(kind: str) -> list[bytes]:
    """The vectors of a kind that are taken."""
    name = FILES.get(kind, kind)
    found = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return [bytes.fromhex(one["hex"]) for one in found if one["kind"] == kind and "refused" not in one["gives"]]


def damaged(value: Any, draw: random.Random) -> Any:
    """The value with one part replaced, removed, doubled or added, anywhere in it."""
    if isinstance(value, cbor.Tag):
        return cbor.Tag(value.number, damaged(value.value, draw)) if draw.random() < 0.9 else value.value
    if not isinstance(value, (list, dict)) or not value or draw.random() < 0.15:
        return draw.choice(ODD)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        kept = list(value)
        how = draw.random()
        if how < 0.1:
            del kept[at]
        elif how < 0.2:
            kept.insert(at, draw.choice([draw.choice(ODD), kept[at]]))
        else:
            kept[at] = damaged(kept[at], draw)
        return kept
    key = draw.choice(sorted(value, key=str))
    changed = dict(value)
    how = draw.random()
    if how < 0.1:
        del changed[key]
    elif how < 0.2:
        changed[draw.choice([0, 9, 100, -1, "x"])] = draw.choice(ODD)
    else:
        changed[key] = damaged(changed[key], draw)
    return changed


def flipped(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(out))
        out[at : at + draw.randint(0, 2)] = draw.randbytes(draw.randint(0, 2))
        if not out:
            return b"\0"
    return bytes(out)


def refusal(kind: str, data: bytes) -> str:
    """Why our code refuses, or "". Anything but a WireError fails the test, and for a message but a MessageError."""
    try:
        KINDS[kind][1](data)
    except MessageError as why:
        return str(why)
    except WireError as why:
        if kind == "message":
            raise
        return str(why)
    return ""


def misfit(rule: str, data: bytes) -> str:
    """Why the schema refuses, or ""."""
    try:
        check(rule, data)
    except DoesNotFit as why:
        return str(why)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_takes_every_good_vector(kind: str) -> None:
    for data in good(kind):
        check(KINDS[kind][0], data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_object_is_refused_by_code_and_schema_for_the_same_reasons(kind: str) -> None:
    rule = KINDS[kind][0]
    draw = source()
    refused = 0
    for _ in range(250):
        data = cbor.encode(damaged(cbor.decode(draw.choice(good(kind)), tags=(18,)), draw))
        why = refusal(kind, data)
        unfit = misfit(rule, data)
        refused += why != ""
        # What a message carries is checked by the schema at once, by the code in its next step.
        assert why or not unfit or kind == "message", f"the schema alone: {unfit}: {data.hex()}"
        assert unfit or not why or any(reason in why for reason in BEYOND_CDDL), f"the code alone: {why}: {data.hex()}"
    assert refused > 100


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_raise_wire_errors_only_and_what_is_taken_is_given_back(kind: str) -> None:
    parse = KINDS[kind][1]
    draw = source()
    whole = good(kind)
    for _ in range(400):
        data = flipped(draw.choice(whole), draw)
        if refusal(kind, data):
            continue
        found: Any = parse(data)
        if kind == "sign1":
            again = cose.assemble(found.protected, found.payload, found.signature)
        elif kind == "trust bundle":
            whole = [cose.assemble(one.protected, one.payload, one.signature) for one in found]
            again = trust.pack(trust.trust_file(whole))
        else:
            again = found.to_bytes() if kind == "message" else found.to_payload()
        assert again == data


@THOROUGH
@given(st.binary(max_size=60))
def test_random_bytes_raise_wire_errors_only(data: bytes) -> None:
    for kind in KINDS:
        refusal(kind, data)
    with contextlib.suppress(WireError):
        trust.trust_of(data, lambda key, message, signature: True)


def test_the_longest_message_fits_beside_what_a_record_adds() -> None:
    longest = max(len(data) for data in good("message"))
    assert longest <= messages.MAX_MESSAGE_BYTES
    everything = messages.ReportAnswer(
        255, 2**32 - 1, 2**53 - 1, 2**32 - 1, 2**32 - 1, [bytes(report.MAX_REPORT_BYTES)]
    )
    assert len(everything.to_bytes()) == longest


def test_the_overhead_of_a_signed_report_is_what_the_bound_of_its_payload_reserves() -> None:
    payload = bytes(report.MAX_PAYLOAD_BYTES)
    signed = cose.assemble(cose.protected_header(bytes(8)), payload, bytes(64))
    assert len(signed) == report.MAX_REPORT_BYTES


def test_a_full_roster_fits_its_bounds() -> None:
    entries = [
        roster.Entry(
            "B" * 28 + str(1000 + number),
            number.to_bytes(64, "big"),
            (512 + number).to_bytes(64, "big"),
            2,
            bytes(16),
            None,
        )
        for number in range(roster.MAX_BOARDS)
    ]
    made = roster.Roster("G" * 32, 2**53 - 1, 0, entries, [], bytes(32)).to_payload()
    assert len(roster.roster_of(made).entries) == roster.MAX_BOARDS
