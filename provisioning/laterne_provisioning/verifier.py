"""The check of what boards have signed, with public data only: who signed, in which order, what is missing.

Strict and pure: bytes in, a verdict out; no file, no network, no clock. It trusts neither the gateway nor the broker.
The steps are those of protocol/README.md, 6: the object, its signature, its board, its content, its chain.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from laterne_protocol import cbor, cose, credential, report, report_reading
from laterne_protocol.errors import CborError, SignatureError, WireError
from laterne_provisioning import primitives
from laterne_provisioning.chain import Chain, ChainError, Range, without
from laterne_provisioning.dating import Dating

# Keys tried to say whose a wrong signature is: a roster's worth, a tenth of a millisecond each.
MAX_KEYS_TRIED = 256
# In so many refused reports of a run: a forger could else make us try all keys for each of his 150 bytes.
MAX_SEARCHES = 32
_ID_THEN_SEQUENCE = re.compile(rb"[\x60-\x7b](.{1,33}?)\x02(?=[\x00-\x1b])", re.DOTALL)


@dataclass(frozen=True)
class KnownBoard:
    """What is known of a board beforehand. sign_key: 64 bytes.

    credential_digest: of the credential that its report 1 names, 16 bytes. refused: why nothing it signs is believed,
    though it is its signature; None for a board in service. formers: keys that it had before, the oldest first, each
    with the sequence of the last report that it signed. last: sequence of its last report, when it will sign no more.
    """

    board: str
    sign_key: bytes
    credential_digest: bytes
    refused: str | None = None
    formers: tuple[tuple[bytes, int], ...] = ()
    last: int | None = None

    def key_of(self, sequence: int) -> bytes:
        """The key that signs the report with this number."""
        return next((key for key, last in self.formers if sequence <= last), self.sign_key)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Every key that it has or had."""
        return (self.sign_key, *(key for key, _ in self.formers))


class Reading(NamedTuple):
    """One reading. age_ms: before the report's closing. value: integer (channels.py), None when missing."""

    channel: int
    age_ms: int
    value: int | None
    quality: int


@dataclass(frozen=True)
class Verified:
    """A report that this board has signed and that fits into its chain.

    closed_ms: since that boot. clock: what the board says of the time then: state, Unix milliseconds (None when it was
    never told since the boot), uncertainty. lost: (from, to, reason) that the board states it has lost. cut_ms:
    readings of so long at most, after the report before, that it states it has lost with the start before
    (protocol/README.md, 6.6). release: first 8 bytes of the digest of the release that the board says it runs, and
    whether it only tries it; None when this report does not say (6.7). repeated: the same report was seen before.
    """

    board: str
    sequence: int
    boot: int
    closed_ms: int
    clock: tuple[int, int | None, int]
    readings: tuple[Reading, ...]
    lost: tuple[tuple[int, int, int], ...]
    cut_ms: int
    release: tuple[bytes, bool] | None
    repeated: bool


@dataclass(frozen=True)
class Refused:
    """A report that is not believed.

    board: whose it should be, as far as that can be told: from the topic, or known and named in it, or the kid's; None.
    claims: the board named in it, not proven, None when none can be read. sequence: as it stands there, not proven.
    reason: a sentence without its full stop.
    """

    board: str | None
    claims: str | None
    sequence: int | None
    reason: str


@dataclass
class Account:
    """What was seen of one board. missing: sequences neither seen nor stated lost. lost: stated by the board.

    boots: the lowest and the highest count of its starts in what was verified, None before the first report.
    cut_ms: readings of so long at most went with these starts, as the board states it. release: what the newest report
    that names a release says of it, and the sequence of that report; None while none does.
    dating: of its reports that did not know the time.
    """

    board: str
    kid: bytes
    reports: int = 0
    readings: int = 0
    repeated: int = 0
    refused: int = 0
    first: int | None = None
    last: int | None = None
    boots: tuple[int, int] | None = None
    cut_ms: int = 0
    release: tuple[bytes, bool, int] | None = None
    missing: list[Range] = field(default_factory=list)
    lost: list[tuple[int, int, int]] = field(default_factory=list)
    dating: Dating = field(default_factory=Dating)

    @property
    def overtaken(self) -> bool:
        """Whether the board states that its gateway had later reports under its key than it knows."""
        return any(reason == report.OVERTAKEN for _, _, reason in self.lost)

    @property
    def starts(self) -> int:
        """How often the board started between the reports seen, in whatever order they came."""
        return 0 if self.boots is None else self.boots[1] - self.boots[0]


class Verifier:
    """Checks reports one after the other and keeps account of every board."""

    def __init__(self, boards: Iterable[KnownBoard], denied: Mapping[bytes, str] | None = None) -> None:
        """denied: kids of keys that are known only as not to be believed, and why."""
        self._denied = denied or {}
        self._searches_left = MAX_SEARCHES
        self._boards = {board.board: board for board in boards}
        self._by_kid: dict[bytes, list[KnownBoard]] = {}  # kids may collide (RFC 9679): a list
        for board in self._boards.values():
            for key in board.keys:
                self._by_kid.setdefault(credential.kid(key), []).append(board)
        self._chains = {board.board: Chain(board.credential_digest) for board in self._boards.values()}
        self._accounts = {
            board.board: Account(board.board, credential.kid(board.sign_key)) for board in self._boards.values()
        }

    def learn(self, board: KnownBoard) -> None:
        """A board that has other keys now, or was not known. Its chain and its account go on."""
        self._boards[board.board] = board
        for key in board.keys:
            same = self._by_kid.setdefault(credential.kid(key), [])
            same[:] = [one for one in same if one.board != board.board] + [board]
        self._chains.setdefault(board.board, Chain(board.credential_digest))
        self._accounts.setdefault(board.board, Account(board.board, credential.kid(board.sign_key)))

    def check(self, body: bytes, addressed: str | None = None) -> Verified | Refused:
        """The verdict on one report. body: the COSE_Sign1. addressed: the board in the topic, "" when the
        topic names none, None when there is no topic."""
        verdict = self._check(body, addressed)
        account = self._accounts.get(verdict.board or "")
        if account is not None:
            if isinstance(verdict, Refused):
                account.refused += 1
            elif verdict.repeated:
                account.repeated += 1
            else:
                account.reports += 1
                account.readings += len(verdict.readings)
                account.lost.extend(verdict.lost)
                account.cut_ms += verdict.cut_ms
                account.dating.take(verdict.sequence, verdict.boot, verdict.closed_ms, verdict.clock)
                if verdict.release is not None and (account.release is None or account.release[2] < verdict.sequence):
                    account.release = (*verdict.release, verdict.sequence)
                low, high = account.boots or (verdict.boot, verdict.boot)
                account.boots = min(low, verdict.boot), max(high, verdict.boot)
        return verdict

    def accounts(self) -> list[Account]:
        """One for each board of which something was seen, or should have been, by id."""
        listed = []
        for name, account in sorted(self._accounts.items()):
            if account.reports or account.refused or self._boards[name].refused is None:
                chain = self._chains[name]
                account.first, account.last = chain.first, chain.last
                account.missing = without(chain.missing, [(first, last) for first, last, _ in account.lost])
                listed.append(account)
        return listed

    def _check(self, body: bytes, addressed: str | None) -> Verified | Refused:
        try:
            signed = cose.parse(body, report.MAX_REPORT_BYTES)
        except WireError as why:
            return self._refused(body, None, addressed, f"it is no signed object: {why}")
        try:
            content = report_reading.report_of(signed.payload)
        except WireError as why:
            signer = self._signer(signed)
            reason = f"what {signer.board} signed is no report: {why}" if signer else f"its content is no report: {why}"
            return self._refused(body, signed, addressed, reason)
        known = self._boards.get(content.board)
        if known is None or not self._is_signed_by(known.key_of(content.sequence), signed):
            return self._refused(body, signed, addressed, self._why_not(content.board, signed, content.sequence))
        if signed.kid != credential.kid(known.key_of(content.sequence)):
            return self._refused(body, signed, addressed, "it names another key than the one that signed it")
        if known.refused is not None:
            return self._refused(body, signed, addressed, known.refused)
        if known.last is not None and content.sequence > known.last:
            reason = f"{known.board} was decommissioned after its report {known.last}: its key is in wrong hands"
            return self._refused(body, signed, addressed, reason)
        if addressed is not None and addressed != known.board:
            return self._refused(body, signed, addressed, f"it is a report of {known.board}, sent under another name")
        try:
            readings = tuple(Reading(*reading) for reading in report_reading.readings_of(content))
        except WireError as why:
            return self._refused(body, signed, addressed, f"its readings do not fit together: {why}")
        try:
            new = self._chains[known.board].take(content.sequence, content.previous, report.digest(signed.payload))
        except ChainError as why:
            return self._refused(body, signed, addressed, str(why))
        return Verified(
            known.board,
            content.sequence,
            content.boot,
            content.closed_ms,
            content.clock,
            readings,
            tuple((gap[0], gap[1], gap[2]) for gap in content.gaps),
            content.cut_ms,
            content.release,
            not new,
        )

    def _is_signed_by(self, key: bytes, signed: cose.Sign1) -> bool:
        try:
            cose.verify(signed, cose.REPORT, partial(primitives.is_signature, key))
        except SignatureError:
            return False
        return True

    def _signer(self, signed: cose.Sign1) -> KnownBoard | None:
        # The kid's board first; a forger may have written any kid, so then the others, as many as is affordable.
        for board in self._by_kid.get(signed.kid, []):
            if any(self._is_signed_by(key, signed) for key in board.keys):
                return board
        if not self._searches_left:
            return None
        self._searches_left -= 1
        others = [(board, key) for board in self._boards.values() for key in board.keys][:MAX_KEYS_TRIED]
        return next((board for board, key in others if self._is_signed_by(key, signed)), None)

    def _why_not(self, claimed: str, signed: cose.Sign1, sequence: int) -> str:
        unknown = "" if claimed in self._boards else f"{claimed} is not among the boards known here; "
        try:
            cose.check_low_s(signed.signature)
        except SignatureError as why:
            return unknown + str(why)
        searched = self._searches_left > 0
        signer = self._signer(signed)
        if signer is not None and signer.board == claimed:
            return self._other_key(signer, signed, sequence)
        if signer is not None:
            return f"{unknown}it is signed by the key of {signer.board}"
        if signed.kid in self._denied:
            return f"it names a key that is not to be believed: {self._denied[signed.kid]}"
        named = [board.board for board in self._by_kid.get(signed.kid, []) if board.board != claimed]
        hint = f" (it names the key of {named[0]})" if named else ""
        if not searched:
            hint += f" (whose it is was looked for in the first {MAX_SEARCHES} refused reports only)"
        if unknown:
            return (
                f"{unknown}no key known here has signed it{hint}" if searched else f"{unknown}not signed as such{hint}"
            )
        return f"the signature is not that of {claimed}{hint}: changed on the way, or forged"

    def _other_key(self, board: KnownBoard, signed: cose.Sign1, sequence: int) -> str:
        for key, last in board.formers:
            if sequence > last and self._is_signed_by(key, signed):
                kid = credential.kid(key).hex()
                return f"it is signed by a former key of {board.board}, {kid}, whose last report was {last}"
        return f"it is signed by a key that {board.board} got after its report {sequence}"

    def _refused(self, body: bytes, signed: cose.Sign1 | None, addressed: str | None, reason: str) -> Refused:
        claims, sequence = self._claims(body if signed is None else signed.payload)
        by_kid = self._by_kid.get(signed.kid, []) if signed is not None else self._kids_in(body)
        board = addressed or None
        if board is None and (claims in self._boards or not by_kid):
            board = claims
        elif board is None:
            board = by_kid[0].board
        return Refused(board, claims, sequence, reason)

    def _kids_in(self, body: bytes) -> list[KnownBoard]:
        # The header of every object of ours: d2 84 4d a2 01 28 04 48, then the kid (protocol/README.md, 4).
        return self._by_kid.get(body[8:16], [])

    def _claims(self, data: bytes) -> tuple[str | None, int | None]:
        """Board and sequence as they stand there: read with goodwill, believed by nobody."""
        try:
            content = report_reading.report_of(data)
            return content.board, content.sequence
        except WireError:
            pass
        for name in sorted(self._boards, key=len, reverse=True):
            at = data.find(name.encode())
            if at >= 0:
                # After the id comes the key 2 in one byte, and the sequence.
                return name, _integer_at(data, at + len(name) + 1)
        match = _ID_THEN_SEQUENCE.search(data)
        if match is None:
            return None, None
        text = match[1].decode("ascii", "replace")
        return (text if text.isprintable() and text.isascii() else None), _integer_at(data, match.end())


def _integer_at(data: bytes, at: int) -> int | None:
    try:
        value, _ = cbor.decode_first(data, at) if at < len(data) else (None, 0)
    except CborError:
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
