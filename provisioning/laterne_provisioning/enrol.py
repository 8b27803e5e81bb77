"""Enrolment: a board proves its keys, gets its id and its credential, and stands in the registry.

The order is what makes it safe to be killed anywhere: the row (pending) is on the disk before the credential
goes to the board, and becomes enrolled when the board has confirmed. Repeating the same command finishes:

    the board says       the registry says        what happens
    not enrolled         nothing of id or key     proof, new row, credential to the board, confirmed
    not enrolled         pending, this key        proof, the same credential again, confirmed
    not enrolled         enrolled, this key       proof, the same credential again (the board had lost it)
    enrolled             pending, this id         the same credential again, confirmed
    enrolled             confirmed, this id       the same credential again: done already
    anything else                                 refused, with the reason

An enrolled board does not say in the clear who it is (protocol/README.md, 3). But it answers the credential that it
holds, and so the registry's row tells. Before its credential a new board is told whom to believe: the trust.

When a second person is to decide, the row stays pending after the board has confirmed: decisions.py.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from laterne_protocol import cose, credential, fields, messages, trust
from laterne_protocol.errors import ObjectError, WireError
from laterne_provisioning import audit, keys, primitives
from laterne_provisioning.authority import Authority, sign_object
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.line import Line, Refused
from laterne_provisioning.output import foreign
from laterne_provisioning.registry import ENDED, ENROLLED, PENDING, Board, Place, Registry
from laterne_provisioning.words import words

AGAIN_S = 1.0  # a question is 20 bytes, its answer 80: 9 ms on the line, and a board reads its line every 0.1 s
HELLO_WITHIN_S = 10.0  # a board takes 2 s to start, and may be plugged in after the command
# The first start makes two keys, each 0.24 s on an RP2040, and waits for randomness before.
KEYS_WITHIN_S = 60.0
WORK_AGAIN_S = 4.0  # a signature takes up to 0.5 s on an RP2040, a write to flash 0.4 s for each 4 KiB
WORK_WITHIN_S = 30.0

# A credential is valid from the trust epoch it was made in until the roster drops it (protocol/README.md, 5).
LAST_EPOCH = 0xFFFFFFFF
TOPICS = ("order", "roster", "status", "campaign", "release")  # what stands at brokers where a board's id does
CREDENTIAL_NUMBER_BYTES = 8


class BoardRefuses(OperatorError):
    """The board does not take the credential."""


@dataclass(frozen=True)
class Enrolment:
    """What enrolling has come to. already: the board was enrolled before, nothing was to be done."""

    board: Board
    already: bool


def fingerprint(kid: bytes) -> str:
    """How a person sees a key: its kid in hexadecimal, and as words."""
    return f"{kid.hex()} ({words(kid)})"


def met(found: messages.Identity, kid: bytes) -> str:
    """Whom we have met, for people: a stranger's words must not turn those of its key around."""
    return f"Its model is {foreign(found.model)}, its firmware {foreign(found.release)}, its key {fingerprint(kid)}"


def enrol(
    line: Line,
    authority: Authority,
    registry: Registry,
    key: keys.SigningKey,
    board_id: str,
    place: Place | None,
    now: int,
    say: Callable[[str], None],
    decision: bool = False,
) -> Enrolment:
    """Enrol the board on this line. key: the enrolment key. now: Unix seconds. say: what happens, for people.

    decision: a board that is new stays pending until a second person accepts it.

    Raises UsageError, OperatorError; then the same command can be given again.
    """
    check_ids(board_id, place)
    key.open()
    say(f"Asking who is on {line.port}")
    told = bundle(authority.trust_file)
    found = identity(line)
    if found is None:
        say(f"It is enrolled: asking whether as {board_id}")
        board = _enrolled_before(line, board_id, registry)
        already = board.delivered is not None
    else:
        kid = found.kid
        assert kid is not None
        say(met(found, kid))
        board = _proven(line, kid, authority, registry, key, board_id, place, now, say, decision)
        already = False
        say(f"Telling {board_id} whom to believe")
        tell(line, told)
        say(f"Giving {board_id} its credential")
        deliver(line, board)
    with registry.transaction():
        if board.delivered is None:
            state = PENDING if board.decision else ENROLLED
            authority.log.append("confirm", board_id, details_of(board) | {"state": state})
        registry.confirm(board_id, now)
        if place is not None and place != board.place:
            hang(authority, registry, board_id, place, now)
    authority.sign_log(key, every=audit.SIGN_EVERY)
    enrolled = registry.board(board_id)
    assert enrolled is not None
    return Enrolment(enrolled, already)


def foreseen(line: Line, registry: Registry, board_id: str) -> str:
    """What enrolling the board on this line would do, for people; nothing is changed. Raises OperatorError."""
    found = identity(line)
    if found is None:
        board = _enrolled_before(line, board_id, registry)
        return (
            f"{foreign(board.model)}, key {fingerprint(credential.kid(board.sign_key))}: it has its credential already"
        )
    assert found.kid is not None
    shown = f"{foreign(found.model)}, key {fingerprint(found.kid)}"
    former = registry.board(board_id)
    if former is not None:
        require_not_ended(former)
        if credential.kid(former.sign_key) != found.kid:
            raise belongs_to_another(former)
    for board in registry.boards():
        if credential.kid(board.sign_key) == found.kid and board.id != board_id:
            raise _stands_there_as(line.port, board)
    return shown


def hang(authority: Authority, registry: Registry, board_id: str, place: Place, now: int) -> None:
    """The board hangs there from now on, Unix seconds. Within a transaction."""
    authority.log.append("hang", board_id, {"post": place.post})
    registry.hang(board_id, place, now)


def check_ids(board_id: str, place: Place | None) -> None:
    """Raises UsageError: an id that could not stand in a topic or a credential."""
    if board_id in TOPICS:
        raise UsageError(f"{board_id!r} will not do: at brokers it stands for something else.")
    for value, name in ((board_id, "board id"), (None if place is None else place.post, "post id")):
        try:
            if value is not None:
                fields.board_id(value, name)
        except ObjectError as why:
            raise UsageError(f"{value!r} will not do: {why}.") from why


def identity(line: Line) -> messages.Identity | None:
    """Who is there, once it has its keys; None: a board that is enrolled, which in the clear says no more than that.

    Raises OperatorError.
    """
    try:
        found = line.ask(messages.Hello, messages.Identity, AGAIN_S, HELLO_WITHIN_S)
        if found.kid is None:
            found = line.ask(
                messages.Hello, messages.Identity, AGAIN_S, KEYS_WITHIN_S, ready=lambda found: found.kid is not None
            )
    except Refused as why:
        if why.reason == messages.SESSION_NEEDED:
            return None
        raise
    if found.board is not None:
        raise OperatorError(
            f"The board on {line.port} says in the clear that it is {found.board}: its firmware knows no sessions. "
            "Flash it with a newer release first."
        )
    return found


def whose(line: Line, candidates: Sequence[Board]) -> Board | None:
    """Which of these the enrolled board on this line is: it confirms the credential that it holds, and no other.

    Nothing is changed by asking. Raises OperatorError: no answer.
    """
    for board in candidates:
        try:
            deliver(line, board)
        except BoardRefuses:
            continue
        return board
    return None


def _enrolled_before(line: Line, board_id: str, registry: Registry) -> Board:
    former = registry.board(board_id)
    if former is not None:
        require_not_ended(former)
    board = None if former is None else whose(line, [former])
    if board is None:
        raise OperatorError(
            f"The board on {line.port} is enrolled already, and not as {board_id} by this authority. In the clear it "
            "does not say as what: try the id that stands on its label, or use another authority, or end its "
            "service first: laterne board decommission, then laterne flash --order."
        )
    return board


def _proven(
    line: Line,
    kid: bytes,
    authority: Authority,
    registry: Registry,
    key: keys.SigningKey,
    board_id: str,
    place: Place | None,
    now: int,
    say: Callable[[str], None],
    decision: bool,
) -> Board:
    say("Asking for a proof that it holds its keys")
    proof, _ = proof_of(line, kid, secrets.token_bytes(credential.NONCE_BYTES))
    with registry.transaction():
        known = registry.board_with_key(proof.sign_key)
        if known is not None and known.id != board_id:
            raise _stands_there_as(line.port, known)
        former = registry.board(board_id)
        if former is not None:
            _require_same(former, proof)
            return former
        known = registry.board_with_key(proof.agree_key)
        if known is not None:
            raise OperatorError(
                f"The board on {line.port} says that it agrees by a key of {known.id}: one is a copy of the other, or "
                "lies. Wipe this one, so that it makes keys of its own."
            )
        issued = _credential(authority, key, board_id, proof, now)
        board = Board(
            board_id,
            PENDING,
            proof.sign_key,
            proof.agree_key,
            proof.tier,
            proof.model,
            proof.hardware,
            issued,
            credential.digest(issued),
            now,
            decision,
        )
        more: audit.Details = {
            "credential": board.credential_digest.hex(),
            "post": None if place is None else place.post,
        }
        authority.log.append("enrol", board_id, {**details_of(board), **more})
        registry.add(board)
        if place is not None:
            registry.hang(board_id, place, now)
        added = registry.board(board_id)
        assert added is not None
    return added


def details_of(board: Board) -> dict[str, audit.Json]:
    """What a record of the audit log says of a board and its state."""
    return {
        "kid": credential.kid(board.sign_key).hex(),
        "state": board.state,
        "tier": credential.TIERS[board.tier],
        "model": board.model,
        "post": None if board.place is None else board.place.post,
    }


def proof_of(line: Line, kid: bytes, nonce: bytes) -> tuple[credential.Possession, bytes]:
    """What the board with this kid proves over the nonce (16 bytes), and its COSE_Sign1. Raises OperatorError."""
    answer = line.ask(
        lambda number: messages.Enrolment(number, messages.PROVE, nonce),
        messages.Enrolment,
        WORK_AGAIN_S,
        WORK_WITHIN_S,
        lambda proven: proven.step == messages.POSSESSION,
    )
    try:
        proof = possession_in(answer.body, nonce)
    except WireError as why:
        raise OperatorError(
            f"The board on {line.port} has not proven its keys: {why}. Repeat; if it stays, flash the board anew."
        ) from why
    if credential.kid(proof.sign_key) != kid:
        raise OperatorError(
            f"The board on {line.port} has not proven its keys: it has first named the key {fingerprint(kid)} and then "
            "another. Flash the board anew."
        )
    return proof, answer.body


def possession_in(body: bytes, nonce: bytes) -> credential.Possession:
    """What a possession object proves over this nonce. Raises WireError."""
    signed = cose.parse(body, credential.MAX_POSSESSION_BYTES)
    # The key is inside: what it proves is that the speaker holds it, and heard the nonce.
    proof = credential.possession_of(signed.payload)
    cose.verify(signed, cose.POSSESSION, partial(primitives.is_signature, proof.sign_key))
    if proof.nonce != nonce:
        raise ObjectError("it answered an older question")
    if not primitives.is_point(proof.agree_key):
        raise ObjectError("its agreement key is none")
    return proof


def _require_same(former: Board, proof: credential.Possession) -> None:
    require_not_ended(former)
    if former.sign_key != proof.sign_key:
        raise belongs_to_another(former)
    if former.agree_key != proof.agree_key:
        raise OperatorError(
            f"{former.id} comes with another agreement key than it was enrolled with: wipe the board and give it "
            "a new id."
        )


def _stands_there_as(port: str, known: Board) -> OperatorError:
    return OperatorError(
        f"The board on {port} stands in the registry as {known.id} ({known.state}): "
        f"repeat with --id {known.id}, or take another board."
    )


def belongs_to_another(former: Board) -> OperatorError:
    """What to say when this id is asked for another board than the one that has it."""
    return OperatorError(
        f"The id {former.id} belongs to another board ({former.state}, key "
        f"{fingerprint(credential.kid(former.sign_key))}): choose another id for this one."
    )


def require_not_ended(board: Board) -> None:
    """Raises OperatorError: its id is used up."""
    if board.state in ENDED:
        raise OperatorError(
            f"{board.id} is {board.state} ({board.reason}): wipe the board and enrol it under a new id."
        )


def _credential(
    authority: Authority, key: keys.SigningKey, board_id: str, proof: credential.Possession, now: int
) -> bytes:
    claims = credential.Credential(
        authority.name,
        board_id,
        now,
        secrets.token_bytes(CREDENTIAL_NUMBER_BYTES),
        proof.sign_key,
        proof.agree_key,
        proof.tier,
        proof.model,
        (authority.trusted.version, LAST_EPOCH),
    )
    return sign_object(key, cose.CREDENTIAL, claims.to_payload())


def bundle(trust_file: bytes) -> bytes:
    """What a board is told of a trust file. Raises OperatorError: it does not fit."""
    try:
        return trust.pack(trust_file)
    except WireError as why:
        raise OperatorError(f"The trust file does not fit into a message to a board: {why}.") from why


def tell(line: Line, bundle: bytes) -> None:
    """Tell a board whom to believe: a trust bundle. Raises OperatorError."""
    answer = line.ask(
        lambda number: messages.Enrolment(number, messages.TRUST, bundle),
        messages.Enrolment,
        WORK_AGAIN_S,
        WORK_WITHIN_S,
        lambda taken: taken.step == messages.TRUST_TAKEN,
    )
    if answer.body != trust.digest(trust.unpack(bundle)[0].payload):
        raise OperatorError(f"The board on {line.port} has stored another trust than it was told: repeat the command.")


def deliver(line: Line, board: Board) -> None:
    """Give the board on this line the credential of this row. Raises BoardRefuses, OperatorError."""
    try:
        answer = line.ask(
            lambda number: messages.Enrolment(number, messages.ENROL, board.credential),
            messages.Enrolment,
            WORK_AGAIN_S,
            WORK_WITHIN_S,
            lambda enrolled: enrolled.step == messages.ENROLLED,
        )
    except Refused as why:
        raise BoardRefuses(f"{why} {board.id} stays pending; repeat the command, or wipe the board first.") from why
    if answer.body != board.credential_digest:
        raise OperatorError(
            f"The board on {line.port} has stored another credential than it was given: {board.id} stays pending; "
            "repeat the command."
        )
