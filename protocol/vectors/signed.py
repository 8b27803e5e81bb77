"""Vectors of what is signed: credentials, reports, rosters, trusts, orders and what belongs to them (generate.py)."""

from __future__ import annotations  # messages.Message is for type checkers only

import hashlib
from collections.abc import Callable
from typing import Any

from making import (
    BOARD,
    ROOTS,
    Key,
    Vector,
    changed,
    put,
    vector,
)
from objects import (
    A_RELEASE,
    RELEASE_DIGEST,
    a_bundle,
    a_credential,
    a_gateway,
    a_grant,
    a_possession,
    a_roster,
    a_trust,
    column,
    empty_report,
    first_report,
    good,
    orders,
    receipts,
    second_report,
)

from laterne_protocol import (
    cose,
    receipt,
    report,
    roster,
    trust,
)


def report_vectors() -> list[Vector]:
    whole = second_report().to_payload()
    made = [
        vector("a first report", "report", first_report().to_payload()),
        vector("everything a report can hold", "report", whole),
        vector("an empty report", "report", empty_report().to_payload()),
    ]
    step = report.Report("a", 1, bytes(16), 0, 0, (0, None, 0), report.Times(0, 0, 1), [column(0, good(-1))], [])
    made.append(vector("the smallest report with a reading", "report", step.to_payload()))

    def drop(key: int) -> Callable[[Any], None]:
        def change(value: Any) -> None:
            del value[key]

        return change

    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("no board id", drop(1)),
        ("a key 10", put(10, 0)),
        ("a text key", put("board", 0)),
        ("sequence 0", put(2, 0)),
        ("sequence 2**53", put(2, 2**53)),
        ("a predecessor of 15 bytes", put(3, bytes(15))),
        ("boot count 2**32", put(4, 0, 2**32)),
        ("closing time -1", put(4, 1, -1)),
        ("clock state 3", put(5, 0, 3)),
        ("never set, and yet a time", put(5, 0, 0)),
        ("set, and no time", put(5, 1, None)),
        ("a time beyond the year 9999", put(5, 1, 253_402_300_800_000)),
        ("no column", put(6, 1, [])),
        ("channel 65536", put(6, 1, 0, 0, 65536)),
        ("two columns of one channel", put(6, 1, 1, 0, 1)),
        ("quality 1, which is left out", put(6, 1, 0, 2, 0, 2, 1)),
        ("quality 5", put(6, 1, 0, 2, 0, 2, 5)),
        ("quality of no reading", put(6, 1, 0, 2, 0, 1, 0)),
        ("quality that overlaps", put(6, 1, 0, 2, 1, 0, 2)),
        ("an empty quality that could be left out", put(6, 1, 0, 2, [])),
        ("quality for readings that are not there", put(6, 1, 0, 2, 1, 1, 2)),
        ("fewer values than times", put(6, 1, 0, 1, b"\x02\x02\x02")),
        ("more values than times", put(6, 1, 0, 1, b"\x02\x02\x02\x02\x02")),
        ("a value beyond 32 bits", put(6, 1, 0, 1, b"\xfe\xff\xff\xff\x0f\x02\x00\x00")),
        ("a value longer than it needs to be", put(6, 1, 0, 1, b"\x80\x00\x02\x02\x02")),
        ("a value of six bytes", put(6, 1, 0, 1, b"\x80\x80\x80\x80\x80\x01\x00\x00\x00")),
        ("the end of a value is missing", put(6, 1, 0, 1, b"\x02\x02\x02\x82")),
        ("a reading after the closing, on the grid", put(6, 0, 1, 20_001)),
        ("a reading after the closing, by differences", put(6, 1, 2, 3, 0, 58_998)),
        ("no gap", put(7, [])),
        ("a gap that ends before it begins", put(7, 1, 0, 4)),
        ("a gap that holds its own report", put(7, 1, 1, 4)),
        ("gaps out of order", put(7, 0, 0, 3)),
        ("gaps that overlap", put(7, 0, 1, 3)),
        ("a gap without a reason", put(7, 0, 2, 0)),
        ("a cut that took nothing", put(8, 0)),
        ("a cut of 2**32", put(8, 2**32)),
        ("a release of 16 bytes", put(9, 0, A_RELEASE)),
        ("a release that is neither tried nor not", put(9, 1, 1)),
        ("a release and no word about a trial", put(9, [A_RELEASE[:8]])),
    ]
    return made + [vector(name, "report", changed(whole, change)) for name, change in changes]


def credential_vectors() -> list[Vector]:
    whole, proof = a_credential().to_payload(), a_possession().to_payload()
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a board id with a space", put(2, "LE 7")),
        ("issued after the year 9999", put(6, 253_402_300_800)),
        ("a number of 7 bytes", put(7, bytes(7))),
        ("a key of another type", put(8, 1, 1, 1)),
        ("a key of another curve", put(8, 1, -1, 2)),
        ("a key whose type is true", put(8, 1, 1, True)),
        ("an x of 31 bytes", put(-65537, -2, bytes(31))),
        ("a key with a kid of its own", put(-65537, 2, bytes(8))),
        ("tier 3", put(-65538, 3)),
        ("a model of 33 bytes", put(-65539, "m" * 33)),
        ("an epoch range that runs backwards", put(-65540, [2, 1])),
        ("a claim that is not ours", put(4, 0)),
    ]
    return [
        vector("credential", "credential", whole),
        *[vector(name, "credential", changed(whole, change)) for name, change in changes],
        vector("possession", "possession", proof),
        vector("a possession without a nonce", "possession", changed(proof, put(1, b""))),
        vector("a possession without a hardware id", "possession", changed(proof, put(6, b""))),
    ]


def gateway_vectors() -> list[Vector]:
    whole = a_gateway().to_payload()
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a gateway id with a slash", put(1, "GW/1")),
        ("no gateway id", put(1, None)),
        ("a key of another curve", put(2, -1, 2)),
        ("a y of 33 bytes", put(2, -3, bytes(33))),
        ("a key with a kid of its own", put(2, 2, bytes(8))),
        ("trust version 0", put(3, 0, 0)),
        ("versions that run backwards", put(3, [2, 1])),
        ("three versions", put(3, [1, 2, 3])),
        ("issued after the year 9999", put(4, 253_402_300_800)),
        ("a field that is not ours", put(5, 0)),
    ]
    return [
        vector("gateway credential", "gateway", whole),
        *[vector(name, "gateway", changed(whole, change)) for name, change in changes],
        vector("a board's credential", "gateway", a_credential().to_payload()),
    ]


def order_vectors() -> list[Vector]:
    rotate, take, decommission = (one.to_payload() for _, one in orders()[:3])
    stage, arm, abandon = (one.to_payload() for _, one in orders()[4:])
    changes: list[tuple[str, bytes, Callable[[Any], None]]] = [
        ("a board id with a slash", rotate, put(1, "LE/7")),
        ("a kid of 7 bytes", rotate, put(2, bytes(7))),
        ("counter 0", rotate, put(3, 0)),
        ("counter 2**53", rotate, put(3, 2**53)),
        ("counter true", rotate, put(3, True)),
        ("action 0", rotate, put(4, 0)),
        ("action 7", rotate, put(4, 7)),
        ("an order to stage nothing", rotate, put(4, 4)),
        ("an order to abandon nothing", rotate, put(4, 6)),
        ("stage with a digest of 32 bytes", stage, put(5, 0, bytes(32))),
        ("stage with sequence -1", stage, put(5, 1, -1)),
        ("stage with a nonce of 7 bytes", stage, put(5, 2, bytes(7))),
        ("stage with two arguments", stage, put(5, [RELEASE_DIGEST, 7])),
        ("stage with what belongs to arm", arm, put(4, 4)),
        ("arm with what belongs to stage", stage, put(4, 5)),
        ("arm with a nonce of 9 bytes", arm, put(5, 1, bytes(9))),
        ("arm with no end", arm, put(5, 2, None)),
        ("arm until the year 10000", arm, put(5, 2, 253_402_300_800)),
        ("abandon with a digest and more", abandon, put(5, [RELEASE_DIGEST, 0])),
        ("abandon with a digest of 15 bytes", abandon, put(5, 0, bytes(15))),
        ("an argument where none belongs", rotate, put(5, False)),
        ("no credential to take", take, put(5, None)),
        ("an empty credential to take", take, put(5, b"")),
        ("a credential of 513 bytes", take, put(5, bytes(513))),
        ("reports given up: 1", decommission, put(5, 1)),
        ("reports given up: null", decommission, put(5, None)),
        ("a field that is not ours", rotate, put(6, None)),
    ]
    return [
        *[vector(name, "order", one.to_payload()) for name, one in orders()],
        *[vector(name, "order", changed(data, change)) for name, data, change in changes],
        vector("a receipt", "order", receipts()[0][1].to_payload()),
    ]


def receipt_vectors() -> list[Vector]:
    made = {name: one.to_payload() for name, one in receipts()}
    done, refused, last = made["next keys"], made["reports wait"], made["out of service"]
    changes: list[tuple[str, bytes, Callable[[Any], None]]] = [
        ("no board id", done, put(1, None)),
        ("a digest of 32 bytes", done, put(2, bytes(32))),
        ("outcome 2", done, put(3, 2)),
        ("outcome true", refused, put(3, True)),
        ("done, and yet a reason", done, put(4, receipt.OLD)),
        ("refused for no reason", refused, put(4, None)),
        ("reason 0", refused, put(4, 0)),
        ("reason 256", refused, put(4, 256)),
        ("a reason that is not known yet", refused, put(4, 255)),
        ("sequence -1", done, put(5, -1)),
        ("a refused order with a result", refused, put(6, 50)),
        ("next keys of no byte", done, put(6, b"")),
        ("next keys of 513 bytes", done, put(6, bytes(513))),
        ("acknowledged beyond the last report", last, put(6, 51)),
        ("acknowledged: true", last, put(6, True)),
        ("a field that is not ours", done, put(7, None)),
    ]
    return [
        *[vector(name, "receipt", data) for name, data in made.items()],
        *[vector(name, "receipt", changed(data, change)) for name, data, change in changes],
        vector("an order", "receipt", orders()[0][1].to_payload()),
    ]


def grant_vectors() -> list[Vector]:
    whole = a_grant().to_payload()
    at, post = 1_790_000_000, "Am_Markt-3"
    asked = [
        ["LE-0101", post, at], ["LE-0125", post, at], ["LE-0126", post, at], ["LE-0100", post, at],
        ["LE-00101", post, at], ["LE-011", post, at], ["LF-0101", post, at], ["LE-01.1", post, at],
        ["LE-9", post, at], ["LE-9x", post, at], ["LE-8", post, at], ["LE-7", post, at], ["LE-77", post, at],
        ["LE-7", "Am_Markt-", at], ["LE-7", "Am_Hafen-3", at], ["LE-7", None, at],
        ["LE-7", post, at - 1], ["LE-7", post, 1_790_604_800], ["LE-7", post, 1_790_604_801],
    ]  # fmt: skip
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a number of 7 bytes", put(1, bytes(7))),
        ("an authority of 65 bytes", put(2, "a" * 65)),
        ("no technician", put(3, "")),
        ("a technician with a control character", put(3, "M\x1b[2J")),
        ("a key of another curve", put(4, -1, 2)),
        ("a key with a kid of its own", put(4, 2, bytes(8))),
        ("no site", put(5, None)),
        ("no board ids", put(6, [])),
        ("nine patterns of board ids", put(6, ["*"] * 9)),
        ("an empty pattern", put(6, 0, "")),
        ("a pattern with a star inside", put(6, 0, "LE*7")),
        ("a pattern of two stars", put(6, 0, "**")),
        ("a pattern with a space", put(6, 0, "LE 7*")),
        ("a pattern of 33 characters and a star", put(6, 0, "a" * 33 + "*")),
        ("a range that counts down", put(6, 0, "LE-0125:LE-0101")),
        ("a range of two stems", put(6, 0, "LE-0101:LF-0125")),
        ("a range of two lengths", put(6, 0, "LE-1:LE-10")),
        ("a range without a number", put(6, 0, "LE:LE")),
        ("a range of three", put(6, 0, "LE-1:LE-2:LE-3")),
        ("a range without an end", put(6, 0, "LE-1:")),
        ("a pattern of posts that is none", put(7, 0, 3)),
        ("no board", put(8, 0)),
        ("1001 boards", put(8, 1001)),
        ("a number of boards that is true", put(8, True)),
        ("a time that runs backwards", put(9, [2, 1])),
        ("an end after the year 9999", put(9, 1, 253_402_300_800)),
        ("trust version 0", put(10, 0, 0)),
        ("versions that run backwards", put(10, [2, 1])),
        ("a field that is not ours", put(11, 0)),
    ]
    return [
        vector("grant", "grant", whole, asked=asked),
        vector("a grant for any board anywhere", "grant", changed(changed(whole, put(6, ["*"])), put(7, [])),
               asked=[["LE-7", None, at], ["x", "y", at]]),
        *[vector(name, "grant", changed(whole, change)) for name, change in changes],
        vector("a gateway's credential", "grant", a_gateway().to_payload()),
    ]  # fmt: skip


def roster_vectors() -> list[Vector]:
    first = a_roster().to_payload()
    whole = a_roster(roster.digest(first)).to_payload()
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a board twice", put(4, 1, 0, "LE-0007")),
        ("a latitude beyond the pole", put(4, 0, 5, 1, 900_000_001)),
        ("a longitude beyond the antimeridian", put(4, 0, 5, 2, -1_800_000_001)),
        ("a latitude alone", put(4, 0, 5, 2, None)),
        ("a key of 63 bytes", put(4, 0, 1, bytes(63))),
        ("257 boards", put(4, [[f"B{number}", bytes(64), bytes(64), 0, bytes(16), None] for number in range(257)])),
        ("a reason of 65 bytes", put(5, 0, 2, "r" * 65)),
        ("a former roster of 16 bytes", put(6, bytes(16))),
    ]
    made = a_roster()
    made.entries[0].former = (
        roster.Former(Key("before").public, bytes(16), 0), roster.Former(Key("until").public, bytes(range(16)), 41),
    )  # fmt: skip
    rotated = made.to_payload()
    changes_of_former: list[tuple[str, Callable[[Any], None]]] = [
        ("an empty list of former keys", put(4, 0, 6, [])),
        ("former keys: null", put(4, 0, 6, None)),
        ("three former keys", put(4, 0, 6, [[Key(name).public, bytes(16), 5] for name in "abc"])),
        ("a former key that another board has", put(4, 0, 6, 0, 0, Key("9").public)),
        ("a former key that is the present one", put(4, 0, 6, 1, 0, BOARD.public)),
        ("former keys out of order", put(4, 0, 6, 0, 2, 42)),
        ("a former key without its last report", put(4, 0, 6, 0, [Key("before").public, bytes(16)])),
        ("a former key of 63 bytes", put(4, 0, 6, 0, 0, bytes(63))),
    ]
    return [
        vector("a first roster", "roster", first),
        vector("the next one", "roster", whole),
        vector("a board whose keys were rotated twice", "roster", rotated),
        *[vector(name, "roster", changed(rotated, change)) for name, change in changes_of_former],
        *[vector(name, "roster", changed(whole, change)) for name, change in changes],
    ]


def trust_vectors() -> list[Vector]:
    whole = a_trust().to_payload()
    fourth = Key("root 4")
    next_one = a_trust(2, [ROOTS[1], ROOTS[2], fourth]).to_payload()
    other = a_trust(1, [ROOTS[0], ROOTS[1], fourth]).to_payload()

    def file(name: str, payload: bytes, signers: list[Key], former: bytes | None = None) -> Vector:
        signed = [key.sign(cose.TRUST, payload) for key in signers]
        good = []
        for key, one in zip(signers, signed, strict=True):
            parts = cose.parse(one, trust.MAX_TRUST_BYTES)
            message = cose.to_be_signed(cose.TRUST, parts.protected, parts.payload)
            good.append([key.public.hex(), hashlib.sha256(message).hexdigest(), parts.signature.hex()])
        more: dict[str, Any] = {"good": good}
        if former is not None:
            more["former"] = former.hex()
        return vector(name, "trust file", trust.trust_file(signed), **more)

    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("version 0", put(1, 0)),
        ("a threshold of no root", put(3, 0)),
        ("a threshold above the roots", put(3, 4)),
        ("a root twice", put(4, 1, ROOTS[0].public)),
        ("a role without a key", put(5, "order", [])),
        ("a role that is not ours", put(5, "mayor", [ROOTS[0].public])),
        ("two release keys must sign", put(6, 2)),
        ("one release key, said though it goes without saying", put(6, 1)),
        ("more release keys than there are", put(6, 3)),
    ]
    bundles: list[tuple[str, Callable[[Any], None]]] = [
        ("a bundle without signatures", put(1, [])),
        ("a bundle of nine signatures", put(1, [[bytes(8), bytes(64)]] * 9)),
        ("a bundle whose kid has 7 bytes", put(1, 0, 0, bytes(7))),
        ("a bundle whose signature has 63 bytes", put(1, 1, 1, bytes(63))),
        ("a bundle of an empty trust", put(0, b"")),
        ("a bundle that holds a list", put(0, [])),
    ]
    return [
        vector("trust", "trust", whole),
        *[vector(name, "trust", changed(whole, change)) for name, change in changes],
        file("two of three roots", whole, ROOTS[:2]),
        file("one root of two needed", whole, ROOTS[:1]),
        file("one root twice", whole, [ROOTS[0], ROOTS[0]]),
        file("a stranger beside one root", whole, [ROOTS[0], fourth]),
        file("the same again", whole, ROOTS[1:], whole),
        file("a root replaced, signed by old and new", next_one, [ROOTS[1], ROOTS[2]], whole),
        file("the new roots alone", next_one, [ROOTS[2], fourth], whole),
        file("an older version", whole, ROOTS[:2], next_one),
        file("another content of the same version", other, ROOTS[:2], whole),
        vector("trust bundle", "trust bundle", a_bundle()),
        *[vector(name, "trust bundle", changed(a_bundle(), change)) for name, change in bundles],
    ]
