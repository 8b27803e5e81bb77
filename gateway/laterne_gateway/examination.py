"""What a report must be before it is believed: signed by its board, well-formed, its own, and the next in its chain.

Judged here and nowhere else in the gateway, over the bytes as they came; nothing is stored or counted here (inbox.py).
"""

from functools import lru_cache, partial

from laterne_gateway import primitives
from laterne_protocol import cose, credential, report, report_reading
from laterne_protocol.errors import CoseError, WireError
from laterne_protocol.roster import Entry

ANOTHER = "speaks for another"

kid_of = lru_cache(maxsize=primitives.KEYS_KEPT)(credential.kid)  # of public keys, report after report


class RefusedReport(Exception):
    """Why a report is not believed. sequence: its own claim, or None. signed: whether the board made it.

    kid: of the key that it names, if that is none of the board's.
    """

    def __init__(self, reason: str, detail: str, sequence: int | None, signed: bool, kid: bytes = b"") -> None:
        super().__init__(detail)
        self.kid = kid
        self.reason = reason
        self.sequence = sequence
        self.signed = signed


def examine(body: bytes, entry: Entry) -> tuple[report.Report, bytes]:
    """The report in a board's signed bytes and its payload's digest. Raises RefusedReport."""
    try:
        signed = cose.parse(body, report.MAX_REPORT_BYTES)
    except WireError as why:
        raise RefusedReport("not a signed object", str(why), None, False) from why
    try:
        claimed: report.Report | None = report_reading.report_of(signed.payload)
        malformed = ""
    except WireError as why:
        claimed, malformed = None, str(why)
    sequence = None if claimed is None else claimed.sequence
    key = key_for(entry, sequence)
    kid = kid_of(key)
    try:
        if signed.kid != kid:
            raise CoseError(f"it names key {signed.kid.hex()}, the roster {kid.hex()}")
        cose.verify(signed, cose.REPORT, partial(primitives.valid, key))
    except CoseError as why:
        if claimed is not None and claimed.board != entry.board:
            raise RefusedReport(ANOTHER, f"it hands over a report of {claimed.board}", None, False) from why
        raise RefusedReport("signature", str(why), sequence, False, signed.kid if signed.kid != kid else b"") from why
    if claimed is None:
        raise RefusedReport("malformed payload", malformed, None, True)
    if claimed.board != entry.board:
        raise RefusedReport(ANOTHER, f"it says it is {claimed.board}", None, True)
    return claimed, report.digest(signed.payload)


def key_for(entry: Entry, sequence: int | None) -> bytes:
    """The key that signs the board's report with this number; the present one when it says none."""
    for one in entry.former:
        if sequence is not None and sequence <= one.last:
            return one.sign_key
    return entry.sign_key


def check_chain(found: report.Report, received: int, expected: bytes | None) -> None:
    """Whether the report follows the one before. Raises RefusedReport.

    received: the last sequence that was taken. expected: what the next one must name as the one before, None: unknown.

    No check after a gap or a report that was passed over: nobody here knows the digest of the one before.
    """
    if found.sequence != received + 1:
        return
    if expected is not None and found.previous != expected:
        raise RefusedReport(
            "chain broken",
            f"it names {found.previous.hex()} as the one before, we have {expected.hex()}",
            found.sequence,
            True,
        )


def stated(found: report.Report, first: int, last: int) -> int:
    """How many of these missing reports the board itself says it has lost."""
    return sum(max(0, min(last, gap[1]) - max(first, gap[0]) + 1) for gap in found.gaps)


def unstated(found: report.Report, received: int) -> str | None:
    """Why reports before this one are missing, where the board does not say it in its signed words."""
    missing = found.sequence - received - 1
    said = stated(found, received + 1, found.sequence - 1)
    return None if said >= missing else "missing, and the board does not say why"
