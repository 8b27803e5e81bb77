"""Bytes against protocol/laterne.cddl: `check(rule, data)` says nothing, or raises DoesNotFit with the reason.

    check("report", payload)        check("signed-report", what_the_broker_got)        check("message", frame.payload)

A signed object is checked with its header and payload, a message with the signed object that it carries.

pycddl 0.6 is not asked alone. Where an array of arrays has alternatives it refuses good ones, in deeper arrays it
misses bad ones, and it takes any map for `{}`. So PARTS names the rule of each part, and each part is checked by itself
as well; LOOSE is what some parts count as while the array around them is checked.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pycddl  # type: ignore[import-untyped]  # it brings no types

SCHEMA = (Path(__file__).parents[2] / "protocol" / "laterne.cddl").read_text(encoding="utf-8")
MESSAGES = {
    1: "hello", 2: "identity", 3: "poll", 4: "report-answer", 5: "refusal",
    16: "prove", 17: "possession-answer", 18: "enrol", 19: "enrolled", 20: "trust-told", 21: "trust-taken",
    22: "order-told", 23: "receipt-answer", 24: "receipt-arrived", 25: "arrival-noted",
    26: "update", 27: "progress", 28: "data",
}  # fmt: skip
CARRIED = {
    "carried-reports": "signed-report",
    "possession-answer": "signed-possession",
    "enrol": "signed-credential",
    "trust-told": "trust-bundle",
    "order-told": "signed-order",
    "receipt-answer": "signed-receipt",
}

# Of each rule, the rules of its parts: by position or key, or one rule for all items. "?": or null.
PARTS: dict[str, dict[int | str, str] | str] = {
    "identity": {1: "u8", 2: "board-id?", 3: "kid?", 4: "u32", 5: "short-text", 6: "short-text"},
    "hello": {1: "u8"},
    "refusal": {1: "u8", 2: "reason"},
    "prove": {1: "u8", 2: "nonce"},
    "possession-answer": {1: "u8", 2: "carried-object"},
    "enrol": {1: "u8", 2: "carried-object"},
    "enrolled": {1: "u8", 2: "digest"},
    "trust-told": {1: "u8", 2: "carried-bundle"},
    "trust-taken": {1: "u8", 2: "digest"},
    "order-told": {1: "u8", 2: "carried-order"},
    "receipt-answer": {1: "u8", 2: "carried-order"},
    "receipt-arrived": {1: "u8", 2: "digest"},
    "arrival-noted": {1: "u8", 2: "digest"},
    "update": {1: "u8", 2: "digest?"},
    "progress": {1: "u8", 2: "phase", 3: "wanted?", 4: "credit", 5: "about-updates"},
    "wanted": {0: "digest", 1: "item", 2: "block-start", 3: "block-size", 4: "had", 5: "window", 6: "behind"},
    "about-updates": {0: "digest?", 1: "u53", 2: "u53", 3: "update-nonce", 4: "digest?", 5: "update-result?"},
    "update-result": {0: "result-code", 1: "digest"},
    "data": {
        1: "u8",
        2: "item",
        3: "block-start",
        4: "block-size",
        5: "encoding",
        6: "code-length",
        7: "part-offset",
        8: "part",
    },
    "poll": {1: "u8", 2: "u53?", 3: "u53?", 4: "offset?"},
    "offset": {0: "u32", 1: "utc-ms", 2: "u32"},
    "report-answer": {1: "u8", 2: "u32", 3: "u53", 4: "u32", 5: "u32", 6: "carried-reports"},
    "carried-reports": "carried-report",
    "signed": {0: "protected", 1: "unprotected", 2: "payload", 3: "signature"},
    "header": {1: "algorithm", 4: "kid"},
    "cose-key": {-2: "coordinate", -3: "coordinate"},
    "credential": {
        1: "name", 2: "board-id", 6: "utc-s", 7: "credential-number", 8: "confirmation",
        -65537: "cose-key", -65538: "tier", -65539: "short-text", -65540: "epochs",
    },
    "confirmation": {1: "cose-key"},
    "epochs": "u53",
    "possession": {1: "nonce", 2: "cose-key", 3: "cose-key", 4: "tier", 5: "short-text", 6: "hardware-id"},
    "gateway-credential": {1: "board-id", 2: "cose-key", 3: "versions", 4: "utc-s"},
    "versions": "positive",
    "grant": {
        1: "grant-number", 2: "name", 3: "name", 4: "cose-key", 5: "name", 6: "board-patterns", 7: "post-patterns",
        8: "board-count", 9: "span", 10: "versions",
    },
    "board-patterns": "pattern",
    "post-patterns": "pattern",
    "span": "utc-s",
    "report": {
        1: "board-id",
        2: "positive",
        3: "digest",
        4: "closing",
        5: "clock",
        6: "measured",
        7: "gaps",
        8: "cut-ms",
        9: "running",
    },
    "running": {0: "release-head"},
    "closing": {0: "u32", 1: "u53"},
    "clock-never-set": {2: "u32"},
    "clock-set": {0: "clock-state", 1: "utc-ms", 2: "u32"},
    "measured": {0: "times", 1: "columns"},
    "columns": "column",
    "grid": {0: "u32", 1: "u32", 2: "count"},
    "irregular": {0: "u32", 1: "packed"},
    "column": {0: "u16", 1: "packed", 2: "quality", 3: "times"},
    "quality": "run",
    "run": {0: "count", 1: "run-length", 2: "flag"},
    "gaps": "gap",
    "gap": {0: "positive", 1: "positive", 2: "reason"},
    "roster": {1: "board-id", 2: "u53", 3: "utc-s", 4: "entries", 5: "revoked-boards", 6: "former?"},
    "entries": "entry",
    "entry": {0: "board-id", 1: "point", 2: "point", 3: "tier", 4: "digest", 5: "post?", 6: "former-keys"},
    "former-keys": "former-key",
    "former-key": {0: "point", 1: "digest", 2: "u53"},
    "post": {0: "board-id", 1: "latitude?", 2: "longitude?"},
    "revoked-boards": "revoked",
    "revoked": {0: "board-id", 1: "kid", 2: "name"},
    "trust-file": "carried-trust",
    "trust-bundle": {0: "trust-payload", 1: "root-signatures"},
    "root-signatures": "root-signature",
    "root-signature": {0: "kid", 1: "signature"},
    "trust": {1: "positive", 2: "name", 3: "threshold", 4: "keys", 5: "roles", 6: "release-threshold"},
    "keys": "point",
    "order": {1: "board-id", 2: "kid", 3: "positive", 4: "action"},
    "to-stage": {0: "digest", 1: "u53", 2: "update-nonce"},
    "to-arm": {0: "digest", 1: "update-nonce", 2: "utc-s"},
    "to-abandon": "digest",
    "receipt": {1: "board-id", 2: "digest", 3: "outcome", 4: "reason?", 5: "u53", 6: "result?"},
    "release-envelope": {2: "carried-authentication", 3: "carried-manifest", 23: "carried-text", "#i": "carried-index"},
    "full-digest-named": {1: "full-digest"},
    "manifest": {2: "positive", 3: "carried-common", 7: "carried-commands", 20: "carried-commands"},
    "parameters": {1: "uuid", 2: "uuid", 3: "carried-digest", 14: "index-size"},
    "index-head": {1: "short-text", 2: "small", 3: "file-count", 4: "small", 5: "positive", 6: "module-name"},
    "index-file": {0: "path", 1: "file-size", 2: "full-digest"},
    "roles": {"enrolment": "keys", "release": "keys", "order": "keys", "roster": "keys"},
}  # fmt: skip

# The argument of an order's action; CDDL cannot say it in a way that tools check well.
ARGUMENTS = {1: "no-argument", 2: "new-credential", 3: "given-up", 4: "to-stage", 5: "to-arm", 6: "to-abandon"}

# How these parts count while the array around them is checked.
LOOSE = {
    "column": "[2*4 any]",
    "times": "any",
    "entry": "any",
    "former-keys": "any",
    "post": "any",
    "wanted": "any",
    "about-updates": "any",
}
# The types of the leaves: pycddl measures a byte string against a range, and a number against a size.
TYPES: dict[type, str] = {
    int: "u8 u16 u32 u53 positive utc-ms utc-s tier reason algorithm count run-length flag latitude longitude "
    "threshold clock-state action outcome board-count phase item block-start block-size had credit "
    "result-code encoding code-length part-offset window behind release-threshold policy small file-count trial-s "
    "index-size interpreter file-size",
    str: "board-id short-text name pattern path module-name",
    bytes: "kid digest release-head point nonce carried-report carried-object protected payload signature coordinate "
    "credential-number grant-number hardware-id packed carried-trust carried-bundle carried-order new-credential "
    "next-keys trust-payload former update-nonce part carried-authentication carried-manifest carried-text "
    "carried-index carried-digest carried-signature carried-common carried-commands carried-head carried-file "
    "component uuid full-digest release-header",
}
TYPE_OF = {rule: kind for kind, rules in TYPES.items() for rule in rules.split()}
# Bounds of the arrays of such parts: pycddl does not count them.
ITEMS = {
    "measured": (2, 2),
    "carried-reports": (0, 8),
    "columns": (1, 64),
    "column": (2, 4),
    "entries": (0, 256),
    "entry": (6, 7),
    "former-keys": (1, 2),
    "to-stage": (3, 3),
    "to-arm": (3, 3),
    "to-abandon": (1, 1),
    "wanted": (7, 7),
    "about-updates": (6, 6),
    "update-result": (2, 2),
    "index": (2, 161),
    "authentication": (1, 4),
}


class DoesNotFit(AssertionError):
    """These bytes are not what the rule says."""


def check(rule: str, data: bytes) -> None:
    """Raises DoesNotFit: `data` is not one deterministic CBOR item that fits the rule, in all its parts."""
    try:
        value = cbor2.loads(data)
        again = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORError, ValueError, TypeError) as why:
        raise DoesNotFit(f"{rule}: {why}") from why
    if again != data:
        raise DoesNotFit(f"{rule}: not deterministic, or bytes after the end")
    _check(rule, value, data)


def _check(rule: str, value: object, data: bytes) -> None:
    if rule == "message":
        if not isinstance(value, list) or not value or type(value[0]) is not int or value[0] not in MESSAGES:
            raise DoesNotFit("message: no such type")
        rule = MESSAGES[value[0]]
    if rule == "times" and isinstance(value, list):
        rule = "grid" if len(value) == 3 else "irregular"
    if rule == "clock" and isinstance(value, list):
        rule = "clock-never-set" if value[:1] == [0] else "clock-set"
    if rule == "result":
        rule = "next-keys" if isinstance(value, bytes) else "u53"
    if rule == "unprotected" and value != {}:
        raise DoesNotFit("unprotected: not an empty map")
    if rule in TYPE_OF and type(value) is not TYPE_OF[rule]:
        raise DoesNotFit(f"{rule}: a {type(value).__name__}")
    if rule in ITEMS and isinstance(value, list) and not ITEMS[rule][0] <= len(value) <= ITEMS[rule][1]:
        raise DoesNotFit(f"{rule}: {len(value)} items")
    try:
        _schema(rule).validate_cbor(data)
    except pycddl.ValidationError as why:
        raise DoesNotFit(f"{rule}: {why}") from why
    for part_rule, part in _parts(rule, value):
        _check(part_rule, part, cbor2.dumps(part, canonical=True))
    if rule == "order" and isinstance(value, dict):
        _check(ARGUMENTS[value[4]], value[5], cbor2.dumps(value[5], canonical=True))
    if rule in CARRIED and isinstance(value, list):
        for carried in value if rule == "carried-reports" else value[-1:]:
            check(CARRIED[rule], carried)
    if rule.startswith("signed-") and isinstance(value, cbor2.CBORTag):
        _check("signed", value, data)
        protected, _, payload, _ = value.value
        check("header", protected)
        check(rule.removeprefix("signed-"), payload)
    if rule == "trust-bundle" and isinstance(value, list):
        check("trust", value[0])
    if rule == "trust-file" and isinstance(value, list):
        for signed in value:
            check("signed-trust", signed)


def _parts(rule: str, value: object) -> Iterator[tuple[str, object]]:
    parts = PARTS.get(rule, {})
    if isinstance(value, cbor2.CBORTag):
        value = value.value
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    else:
        return
    for key, part in pairs:
        part_rule = parts if isinstance(parts, str) else parts.get(key)
        if part_rule is not None and not (part is None and part_rule.endswith("?")):
            yield part_rule.removesuffix("?"), part


@functools.cache
def _schema(rule: str) -> pycddl.Schema:
    # The first rule of a schema is the one that is checked.
    schema = SCHEMA
    for part_rule, loose in LOOSE.items():
        if part_rule != rule:
            schema, count = re.subn(rf"(?m)^{part_rule} = .*$", f"{part_rule} = {loose}", schema)
            assert count == 1, f"{part_rule} does not stand on a line of its own in the schema"
    return pycddl.Schema(f"checked = {rule}\n{schema}")
