"""Where the orders of a campaign are signed and what boards have signed is judged: with the authority, no broker.

One signature for each order, its counter from the registry as all orders have it. A board with which something else is
under way (new keys, its end) gets no order of ours meanwhile: one board, one order at the broker. Nor does one whose
newest key its gateway has no roster with: what it signs waits on it until then.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from laterne_protocol import cose, credential, order, receipt
from laterne_protocol.errors import ObjectError, WireError
from laterne_protocol.report import GOOD, NOT_EVALUATED
from laterne_provisioning import audit, keys, known_boards, primitives, report_files, roster
from laterne_provisioning.authority import Authority, sign_object
from laterne_provisioning.campaign.health import SHORT_DIGEST, Heard
from laterne_provisioning.campaign.plan import Target
from laterne_provisioning.campaign.rows import Change, Wanted
from laterne_provisioning.errors import UsageError
from laterne_provisioning.order_book import OrderBook
from laterne_provisioning.registry import ENROLLED, Registry
from laterne_provisioning.verifier import Refused, Verified, Verifier

ACTIONS = {order.STAGE: "stage", order.ARM: "arm", order.ABANDON: "abandon"}
MAX_NAMED = 200  # boards in one record of the audit log, of 40 bytes each


class Desk:
    """registry: open while a campaign runs. now: gives Unix seconds."""

    def __init__(
        self, authority: Authority, registry: Registry, order_key: keys.SigningKey, now: Callable[[], int]
    ) -> None:
        self.now = now
        self._authority = authority
        self._registry = registry
        self._key = order_key
        self._book = OrderBook(registry)
        known = known_boards.of_authority(authority)
        self._keys = {one.board: one.sign_key for one in known}
        self._verifier = Verifier(known)
        self._rosters: dict[str, tuple[int, dict[str, bytes]]] = {}  # versions, and keys of their boards

    def open(self) -> None:
        """Raises OperatorError, UsageError: the order key is not at hand."""
        self._key.open()

    def order(self, wanted: Wanted, sequence: int) -> bytes | None:
        """The order, signed; None: not now. sequence: of the release. Raises OperatorError."""
        release = bytes.fromhex(wanted.digest)
        arguments: dict[int, list[bytes | int]] = {
            order.STAGE: [release, sequence, wanted.nonce],
            order.ARM: [release, wanted.nonce, wanted.not_after],
            order.ABANDON: [release],
        }
        with self._registry.transaction():
            board = self._registry.board(wanted.board)
            if board is None or board.state != ENROLLED or board.under_way is not None:
                return None
            counter = self._book.next_counter(board.id, self.now())
            kid = credential.kid(board.sign_key)
            said = order.Order(board.id, kid, counter, wanted.action, arguments[wanted.action])
            return sign_object(self._key, cose.ORDER, said.to_payload())

    def held(self, targets: Mapping[str, Target]) -> frozenset[str]:
        """The boards of the campaign that cannot be heard, or not be ordered, for reasons of our own."""
        under_way = {board for (board,) in self._registry.execute("select board from under_way")}
        rotated = self._registry.execute(
            "select id, sign_key from board where state = ? and id in (select board from former)", ENROLLED
        )
        unknown = {board for board, key in rotated if board in targets and self._served(targets[board]) != key}
        return frozenset((under_way & targets.keys()) | unknown)

    def _served(self, target: Target) -> bytes | None:
        # The key that the newest roster of its gateway has of a board.
        issued = self._registry.newest_roster(target.gateway)
        version = 0 if issued is None else issued.version
        if self._rosters.get(target.gateway, (-1, {}))[0] != version:
            self._rosters[target.gateway] = version, roster.keys_in_newest(self._registry, target.gateway)
        return self._rosters[target.gateway][1].get(target.board)

    def receipt(self, board_id: str, digest: str, body: bytes) -> receipt.Receipt | None:
        """The board's receipt for the order with this digest; None: these bytes are not that, whoever sent them."""
        board = self._registry.board(board_id)
        if board is None:
            return None
        try:
            signed = cose.parse(body, receipt.MAX_RECEIPT_BYTES)
            said = receipt.receipt_of(
                cose.verify(signed, cose.RECEIPT, partial(primitives.is_signature, board.sign_key))
            )
            if (said.board, said.order.hex()) != (board_id, digest):
                raise ObjectError("it is for another order")
        except WireError:
            return None
        return said

    def heard(self, board: str, body: bytes) -> Heard | None:
        """What a report tells; None: it is not this board's, or was seen before."""
        found = self._verifier.check(body, board)
        if isinstance(found, Refused) and self._has_new_key(board):
            found = self._verifier.check(body, board)
        if isinstance(found, Refused) or found.repeated:
            return None
        return _told_by(found)

    def past(self, paths: Sequence[Path]) -> Iterator[tuple[str, Heard]]:
        """What reports in files tell (`laterne verify --save`), and of which board. Raises UsageError."""
        for path in paths:
            try:
                with path.open("rb") as file:
                    for piece in report_files.pieces(file.read):
                        found = self._verifier.check(piece.body) if piece.readable else None
                        if isinstance(found, Verified) and not found.repeated:
                            yield found.board, _told_by(found)
            except OSError as why:
                raise UsageError(f"The reports cannot be read: {why.strerror}: {path}") from why

    def _has_new_key(self, board: str) -> bool:
        row = self._registry.board(board)
        if row is None or self._keys.get(board) == row.sign_key:
            return False
        for one in known_boards.of_authority(self._authority):
            if self._keys.get(one.board) != one.sign_key:
                self._keys[one.board] = one.sign_key
                self._verifier.learn(one)
        return True

    def write_down(self, campaign: str, changes: list[Change]) -> None:
        """Every transition in the audit log, before it counts: boards that went the same way in one record."""
        ways: dict[tuple[str, str], list[str]] = {}
        for change in changes:
            if not change.board:
                details: audit.Details = {"event": change.event, "campaign": change.state, "reason": change.said}
                self._authority.log.append("campaign", campaign, details)
                continue
            ways.setdefault((change.state, change.event), []).append(change.board)
        for (state, event), boards in ways.items():
            for start in range(0, len(boards), MAX_NAMED):
                named: list[audit.Json] = list(boards[start : start + MAX_NAMED])
                self._authority.log.append("campaign boards", campaign, {"event": event, "to": state, "boards": named})


def _told_by(found: Verified) -> Heard:
    good = [one for one in found.readings if one.value is not None and one.quality in (GOOD, NOT_EVALUATED)]
    release = None if found.release is None else (found.release[0].hex()[:SHORT_DIGEST], found.release[1])
    return Heard(
        found.sequence,
        found.boot,
        found.closed_ms,
        release,
        frozenset(one.channel for one in good),
        len(found.readings),
        len(found.readings) - len(good),
        None if found.clock[1] is None else found.clock[1] // 1000,
    )
