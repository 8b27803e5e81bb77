"""Is the audit log whole, and does it tell the same story as the registry?

Everything here reads; what is found is a list of sentences. `wrong` is what an honest authority never shows, `notes` is
what a power cut or a killed command explains.

What no check can find: records after the last signature that were rewritten by somebody who knows the format, and a log
whose end was cut off together with the signatures in it. Against both, keep a checkpoint elsewhere
(`laterne audit sign -o FILE`) and compare with it.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from laterne_protocol import cose, credential, trust
from laterne_protocol.errors import SignatureError, WireError
from laterne_provisioning import audit, primitives
from laterne_provisioning.audit import Json, NotARecord, Record
from laterne_provisioning.registry import ENROLLED, PENDING, Registry

MAX_CHECKPOINT_BYTES = 512


@dataclass
class Judgement:
    """What a check has come to. signed: the last record that a key of the present trust file vouches for, or 0."""

    records: list[Record] = field(default_factory=list)
    signed: int = 0
    signer: bytes | None = None
    wrong: list[tuple[int | None, str]] = field(default_factory=list)
    notes: list[tuple[int | None, str]] = field(default_factory=list)

    @property
    def unsigned(self) -> int:
        """How many records nobody vouches for yet. The last signature's own record is covered by its signature."""
        return max(0, len(self.records) - self.signed - 1) if self.signed else len(self.records)


def check(content: bytes, trusted: trust.Trust) -> Judgement:
    """Judge the bytes of a log: the chain, and the signatures by keys of the trust file or of former ones."""
    found = Judgement()
    _read(content, found)
    by_number = {record.number: record for record in found.records}
    keys = _keys(found.records, trusted)
    for record in found.records:
        if record.act == audit.SIGN:
            _check_signature(record, by_number, keys, trusted, found)
    if not found.records or found.records[0].act != audit.INIT:
        found.wrong.append((1, "The log does not begin with the making of the authority: its beginning is missing."))
    if found.records and not found.signed:
        found.wrong.append((None, "No key of the trust file has signed this log: run `laterne audit sign`."))
    versions = [record.details.get("version") for record in found.records if record.act in (audit.INIT, audit.TRUST)]
    if versions and trusted.version not in versions:
        found.wrong.append((None, f"No record tells where the trust file of version {trusted.version} comes from."))
    return found


def check_against(found: Judgement, body: bytes, trusted: trust.Trust) -> None:
    """Compare with a checkpoint that was kept elsewhere; the result goes into `found`. Raises WireError: it is none."""
    signed = cose.parse(body, MAX_CHECKPOINT_BYTES)
    point = audit.checkpoint_of(_verified(signed, _keys(found.records, trusted)))
    kept = next((record for record in found.records if record.number == point.number), None)
    if point.authority != trusted.authority:
        found.wrong.append((None, f"The checkpoint is of another authority, {point.authority}."))
    elif kept is None:
        found.wrong.append((point.number, f"Record {point.number} was signed and is not there: the end was cut off."))
    elif kept.digest != point.digest.hex():
        found.wrong.append((point.number, f"Record {point.number} is another than the one that was signed."))


def compare(found: Judgement, registry: Registry) -> None:
    """Compare the log with the registry; the result goes into `found`."""
    _compare_boards(found, registry)
    _compare_rosters(found, registry)


def _read(content: bytes, found: Judgement) -> None:
    lines = content.split(b"\n")
    unread: list[bytes] = []
    first_unread = 0
    for at, line in enumerate(lines[:-1], 1):
        try:
            record = audit.record_of(line)
        except NotARecord:
            first_unread = first_unread or at
            unread.append(line)
            continue
        if unread:
            _judge_unread(b"\n".join(unread), first_unread, record, found)
        elif record.act == audit.TORN:
            found.wrong.append((record.number, f"Record {record.number} tells of torn bytes that are not there."))
        _judge_place(record, found, bool(unread))
        unread, first_unread = [], 0
        found.records.append(record)
    if unread or lines[-1]:
        found.wrong.append(
            (
                None,
                f"Line {first_unread or len(lines)}, the end of the log, is no whole record: a command was killed or "
                "the power failed while it was written, or it was changed. The next command keeps it and records that.",
            )
        )


def _judge_unread(unread: bytes, at: int, record: Record, found: Judgement) -> None:
    # What was torn off is named by the record after it, with or without the newline that ended it then.
    claims = record.act == audit.TORN and record.details.get("sha256")
    if claims in (hashlib.sha256(unread).hexdigest(), hashlib.sha256(unread + b"\n").hexdigest()):
        found.notes.append(
            (record.number, f"Line {at} was torn by a power cut or a killed command, as record {record.number} says.")
        )
        return
    expected = found.records[-1].number + 1 if found.records else 1
    if record.number == expected:
        found.wrong.append((None, f"Line {at}, ahead of record {expected}, is no record: it was put there."))
    else:
        found.wrong.append((expected, f"Line {at}, where record {expected} should be, was changed."))


def _judge_place(record: Record, found: Judgement, after_unread: bool) -> None:
    before = found.records[-1] if found.records else None
    expected = 1 if before is None else before.number + 1
    number = record.number
    if number > expected and not after_unread:
        gone = f"Record {expected} is" if number == expected + 1 else f"Records {expected} to {number - 1} are"
        found.wrong.append((expected, f"{gone} missing before record {number}."))
    elif number < expected:
        found.wrong.append((number, f"Record {number} stands after record {expected - 1}: out of order, or twice."))
    elif number == expected and record.former != ("0" * 64 if before is None else before.digest):
        found.wrong.append(
            (number - 1, f"Record {number} does not follow the record before it: record {number - 1} was changed.")
        )
    if before is not None and record.time < before.time and number == expected:
        found.notes.append((number, f"Record {number} is dated before the one ahead of it: the clock was set back."))


def _keys(records: Sequence[Record], trusted: trust.Trust) -> list[bytes]:
    keys = [key for role in audit.SIGNERS for key in trusted.keys[role]]
    for record in records:
        named = record.details.get("keys") if record.act in (audit.INIT, audit.TRUST) else None
        if isinstance(named, Mapping):
            keys += [key for role in audit.SIGNERS for key in _hex_keys(named.get(role)) if key not in keys]
    return keys


def _hex_keys(value: Json) -> list[bytes]:
    try:
        return [bytes.fromhex(item) for item in value if isinstance(item, str)] if isinstance(value, list) else []
    except ValueError:
        return []


def _check_signature(
    record: Record, by_number: Mapping[int, Record], keys: list[bytes], trusted: trust.Trust, found: Judgement
) -> None:
    body = record.details.get("signature")
    try:
        signed = cose.parse(
            base64.b64decode(body if isinstance(body, str) else "", validate=True), MAX_CHECKPOINT_BYTES
        )
        point = audit.checkpoint_of(_verified(signed, keys))
    except (WireError, binascii.Error) as why:
        found.wrong.append((record.number, f"The signature in record {record.number} is none: {why}."))
        return
    covered = by_number.get(point.number)
    if covered is None or covered.digest != point.digest.hex() or point.number != record.number - 1:
        found.wrong.append(
            (
                point.number,
                f"The signature in record {record.number} is over another record {point.number}: "
                "the log was rewritten before it.",
            )
        )
        return
    if point.authority != trusted.authority:
        found.wrong.append((record.number, f"Record {record.number} is signed for another authority."))
        return
    # Former keys may be known to others by now, and are named by the log alone: what they signed is vouched for by
    # the next signature of a present key, which covers it.
    present = [key for role in audit.SIGNERS for key in trusted.keys[role]]
    signer = next((key for key in present if credential.kid(key) == signed.kid), None)
    if signer is not None:
        found.signed, found.signer = point.number, signer


def _verified(signed: cose.Sign1, keys: Sequence[bytes]) -> bytes:
    for key in keys:
        if credential.kid(key) == signed.kid:
            return cose.verify(signed, audit.DOMAIN, partial(primitives.is_signature, key))
    raise SignatureError(f"its key {signed.kid.hex()} is none of this authority's")


def _compare_boards(found: Judgement, registry: Registry) -> None:
    told: dict[str, list[Record]] = {}
    for record in found.records:
        if "state" in record.details:
            told.setdefault(record.subject, []).append(record)
    rows = {board.id: board for board in registry.boards()}
    for board_id, board in rows.items():
        records = told.pop(board_id, [])
        kid = credential.kid(board.sign_key).hex()
        if not any(record.details.get("kid") == kid for record in records):
            found.wrong.append((None, f"{board_id} with key {kid} is in the registry, and no record tells of it."))
        elif records[-1].details["state"] == board.state:
            continue
        elif records[-1].details["state"] == ENROLLED and board.state == PENDING:
            found.notes.append(
                (records[-1].number, f"{board_id} is still pending: {_was_interrupted(records[-1])} Enrol it again.")
            )
        else:
            number, state = records[-1].number, records[-1].details["state"]
            found.wrong.append(
                (
                    number,
                    f"{board_id} is {board.state}, and record {number} ({records[-1].act}) says {state}: the "
                    "command was interrupted before it took effect, or the registry was changed. Repeat it.",
                )
            )
    for board_id, records in told.items():
        if all(record.details["state"] == PENDING for record in records):
            found.notes.append((records[-1].number, f"{board_id} is not there: {_was_interrupted(records[-1])}"))
        else:
            found.wrong.append((records[-1].number, f"{board_id} is in the log and missing in the registry."))


def _compare_rosters(found: Judgement, registry: Registry) -> None:
    told: dict[tuple[str, Json], dict[Json, Record]] = {}
    for record in found.records:
        if record.act == "roster export":
            key = (record.subject, record.details.get("version"))
            told.setdefault(key, {})[record.details.get("digest")] = record
    newest: dict[str, int] = {}
    for gateway, version, digest in registry.rosters():
        newest[gateway] = max(version, newest.get(gateway, 0))
        if told.pop((gateway, version), {}).get(digest.hex()) is None:
            found.wrong.append((None, f"Roster {version} of {gateway} is in the registry, and no record tells of it."))
    for (gateway, number), missing in told.items():
        record = list(missing.values())[-1]
        if isinstance(number, int) and number > newest.get(gateway, 0):
            found.notes.append(
                (record.number, f"Roster {number} of {gateway} was not made: {_was_interrupted(record)}")
            )
        else:
            found.wrong.append((record.number, f"Roster {number} of {gateway} is missing in the registry."))


def _was_interrupted(record: Record) -> str:
    return f"the command of record {record.number} ({record.act}) was interrupted."
