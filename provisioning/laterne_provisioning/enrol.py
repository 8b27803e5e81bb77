"""Enrolment: a board proves its keys, gets its id and its credential, and stands in the registry.

The order is what makes it safe to be killed anywhere: the row (pending) is on the disk before the credential
goes to the board, and becomes enrolled when the board has confirmed. Repeating the same command finishes:

    the board says       the registry says        what happens
    not enrolled         nothing of id or key     proof, new row, credential to the board, confirmed
    not enrolled         pending, this key        proof, the same credential again, confirmed
    not enrolled         enrolled, this key       proof, the same credential again (the board had lost it)
    this id              pending, this key        the same credential again, confirmed
    this id              enrolled, this key       done already
    anything else                                 refused, with the reason
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from laterne_protocol import cose, credential, fields, messages
from laterne_protocol.errors import ObjectError, WireError
from laterne_provisioning import audit, keys, primitives
from laterne_provisioning.authority import Authority, sign_object
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.line import Line, Refused
from laterne_provisioning.registry import ENROLLED, PENDING, REVOKED, Board, Place, Registry
from laterne_provisioning.words import words

AGAIN_S = 1.0  # a question is 20 bytes, its answer 80: 9 ms on the line, and a board reads its line every 0.1 s
HELLO_WITHIN_S = 10.0  # a board takes 2 s to start, and may be plugged in after the command
# The first start makes two keys, each 0.24 s on an RP2040, and waits for randomness before.
KEYS_WITHIN_S = 60.0
WORK_AGAIN_S = 4.0  # a signature takes up to 0.5 s on an RP2040, a write to flash 0.4 s for each 4 KiB
WORK_WITHIN_S = 30.0

# A credential is valid from the trust epoch it was made in until the roster drops it (protocol/README.md, 5).
LAST_EPOCH = 0xFFFFFFFF
CREDENTIAL_NUMBER_BYTES = 8


@dataclass(frozen=True)
class Enrolment:
    """What enrolling has come to. already: the board was enrolled before, nothing was to be done."""

    board: Board
    already: bool


def fingerprint(kid: bytes) -> str:
    """How a person sees a key: its kid in hexadecimal, and as words."""
    return f"{kid.hex()} ({words(kid)})"


def enrol(
    line: Line,
    authority: Authority,
    registry: Registry,
    key: keys.SigningKey,
    board_id: str,
    place: Place | None,
    now: int,
    say: Callable[[str], None],
) -> Enrolment:
    """Enrol the board on this line. key: the enrolment key. now: Unix seconds. say: what happens, for people.

    Raises UsageError, OperatorError; then the same command can be given again.
    """
    check_ids(board_id, place)
    key.open()
    say(f"Asking who is on {line.port}")
    identity = _identity(line)
    kid = identity.kid
    assert kid is not None
    say(f"A {identity.model} with firmware {identity.release}, key {fingerprint(kid)}")
    if identity.board is not None:
        board = _enrolled_before(line.port, identity.board, kid, board_id, registry)
        already = board.state == ENROLLED
    else:
        board, already = _proven(line, kid, authority, registry, key, board_id, place, now, say), False
    if not already:
        say(f"Giving {board_id} its credential")
        _deliver(line, board)
    with registry.transaction():
        if board.state == PENDING:
            authority.log.append("confirm", board_id, _details(board) | {"state": ENROLLED})
        registry.confirm(board_id, now)
        if place is not None:
            if place != board.place:
                authority.log.append("hang", board_id, {"post": place.post})
            registry.hang(board_id, place)
    authority.sign_log(key, every=audit.SIGN_EVERY)
    enrolled = registry.board(board_id)
    assert enrolled is not None
    return Enrolment(enrolled, already)


def check_ids(board_id: str, place: Place | None) -> None:
    """Raises UsageError: an id that could not stand in a topic or a credential."""
    for value, name in ((board_id, "board id"), (None if place is None else place.post, "post id")):
        try:
            if value is not None:
                fields.board_id(value, name)
        except ObjectError as why:
            raise UsageError(f"{value!r} will not do: {why}.") from why


def _identity(line: Line) -> messages.Identity:
    identity = line.ask(messages.Hello, messages.Identity, AGAIN_S, HELLO_WITHIN_S)
    if identity.kid is not None:
        return identity
    return line.ask(
        messages.Hello, messages.Identity, AGAIN_S, KEYS_WITHIN_S, ready=lambda found: found.kid is not None
    )


def _enrolled_before(port: str, says: str, kid: bytes, board_id: str, registry: Registry) -> Board:
    board = registry.board(says)
    if board is None or credential.kid(board.sign_key) != kid:
        raise OperatorError(
            f"The board on {port} is enrolled already as {says}, by another authority: this one does not know "
            f"its key {fingerprint(kid)}. Use that authority, or wipe the board first."
        )
    if says != board_id:
        raise OperatorError(
            f"The board on {port} is enrolled already as {says} (key {fingerprint(kid)}): "
            f"take another board, or name it with --id {says}."
        )
    _require_not_revoked(board)
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
) -> Board:
    say("Asking for a proof that it holds its keys")
    proof = _proof(line, kid)
    with registry.transaction():
        known = registry.board_with_key(proof.sign_key)
        if known is not None and known.id != board_id:
            raise OperatorError(
                f"The board on {line.port} stands in the registry as {known.id} ({known.state}): "
                f"repeat with --id {known.id}, or take another board."
            )
        former = registry.board(board_id)
        if former is not None:
            _require_same(former, proof)
            return former
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
            place,
            now,
            None,
            None,
            None,
        )
        authority.log.append("enrol", board_id, _details(board) | {"credential": board.credential_digest.hex()})
        registry.add(board)
    return board


def _details(board: Board) -> dict[str, audit.Json]:
    return {
        "kid": credential.kid(board.sign_key).hex(),
        "state": board.state,
        "tier": credential.TIERS[board.tier],
        "model": board.model,
        "post": None if board.place is None else board.place.post,
    }


def _proof(line: Line, kid: bytes) -> credential.Possession:
    nonce = secrets.token_bytes(credential.NONCE_BYTES)
    answer = line.ask(
        lambda number: messages.Enrolment(number, messages.PROVE, nonce),
        messages.Enrolment,
        WORK_AGAIN_S,
        WORK_WITHIN_S,
        lambda proven: proven.step == messages.POSSESSION,
    )
    try:
        signed = cose.parse(answer.body, credential.MAX_POSSESSION_BYTES)
        # The key is inside: what it proves is that the speaker holds it, and heard our nonce.
        proof = credential.possession_of(signed.payload)
        cose.verify(
            signed,
            cose.POSSESSION,
            partial(primitives.is_signature, proof.sign_key),
        )
    except WireError as why:
        raise OperatorError(
            f"The board on {line.port} has not proven its keys: {why}. Repeat; if it stays, flash the board anew."
        ) from why
    problem = None
    if proof.nonce != nonce:
        problem = "it answered an older question"
    elif credential.kid(proof.sign_key) != kid:
        problem = f"it has first named the key {fingerprint(kid)} and then another"
    elif proof.sign_key == proof.agree_key or not primitives.is_point(proof.agree_key):
        problem = "its agreement key is none"
    if problem is not None:
        raise OperatorError(f"The board on {line.port} has not proven its keys: {problem}. Flash the board anew.")
    return proof


def _require_same(former: Board, proof: credential.Possession) -> None:
    _require_not_revoked(former)
    if former.sign_key != proof.sign_key:
        raise OperatorError(
            f"The id {former.id} belongs to another board ({former.state}, key "
            f"{fingerprint(credential.kid(former.sign_key))}): choose another id for this one."
        )
    if former.agree_key != proof.agree_key:
        raise OperatorError(
            f"{former.id} comes with another agreement key than it was enrolled with: wipe the board and give it "
            "a new id."
        )


def _require_not_revoked(board: Board) -> None:
    if board.state == REVOKED:
        raise OperatorError(f"{board.id} is revoked ({board.reason}): wipe the board and enrol it under a new id.")


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


def _deliver(line: Line, board: Board) -> None:
    try:
        answer = line.ask(
            lambda number: messages.Enrolment(number, messages.ENROL, board.credential),
            messages.Enrolment,
            WORK_AGAIN_S,
            WORK_WITHIN_S,
            lambda enrolled: enrolled.step == messages.ENROLLED,
        )
    except Refused as why:
        raise OperatorError(f"{why} {board.id} stays pending; repeat the command, or wipe the board first.") from why
    if answer.body != board.credential_digest:
        raise OperatorError(
            f"The board on {line.port} has stored another credential than it was given: {board.id} stays pending; "
            "repeat the command."
        )
