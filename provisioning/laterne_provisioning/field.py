"""Enrolment away from the authority: under a grant, with the technician's own key, written into a journal.

The steps with the board are those of enrol.py; what the registry is there, the journal is here. The entry that
holds the credential is on the disk before the board gets it, so that the same command finishes what was interrupted:

    the board says       the journal says         what happens
    not enrolled         nothing of id or key     proof, new entry, credential to the board, confirmed
    not enrolled         this id, this key        the same credential again, confirmed
    enrolled             this id                  the same credential again, confirmed; or done already
    anything else                                 refused, with the reason

What the grant allows is judged here so that nobody enrols in vain; it is judged again by who merges the journal.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from laterne_protocol import cose, credential
from laterne_protocol.errors import WireError
from laterne_protocol.grant import digest
from laterne_provisioning import enrol, grant_journal, keys, output
from laterne_provisioning.authority import sign_object
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.grant_journal import Confirm, Enrol, Entry, Hang
from laterne_provisioning.grants import GrantFile
from laterne_provisioning.line import Line
from laterne_provisioning.registry import ENROLLED, PENDING, Board, Hanging, Place


class Errand:
    """A grant at work: what it allows, and what was done with it so far.

    boards: by id, as the registry would show them; pending until they have confirmed. Make one with begun().
    """

    def __init__(self, file: GrantFile, key: keys.SigningKey, journal: int, chain: grant_journal.Chain) -> None:
        self.granted = file
        self.boards: dict[str, Board] = {}
        self._key = key
        self._journal = journal
        self._chain = chain
        for entry in chain.entries:
            self._take(entry)

    def require(self, board_id: str, place: Place | None, now: int) -> None:
        """Raises OperatorError: the grant does not allow to enrol this board there now, Unix seconds."""
        given = self.granted.given
        problem = given.why_not(board_id, now) or given.why_not_there(None if place is None else place.post)
        if problem is None and len(self.boards) >= given.most:
            problem = f"the grant is for {given.most} boards, and so many are enrolled"
        if problem is not None:
            raise OperatorError(f"{board_id} cannot be enrolled: {problem}. Ask the operator for another grant.")

    def salt(self) -> tuple[bytes, bytes]:
        """A new salt, and the nonce that it makes for this grant."""
        salt = secrets.token_bytes(grant_journal.SALT_BYTES)
        return salt, grant_journal.nonce(self._chain.start, salt)

    def enrol(
        self, board_id: str, salt: bytes, proof: credential.Possession, proven: bytes, place: Place | None, now: int
    ) -> Board:
        """A credential for a board that has proven its keys; on the disk when this returns. Raises OperatorError."""
        given = self.granted.given
        claims = credential.Credential(
            given.authority,
            board_id,
            now,
            given.credential_number(len(self._chain.entries) + 1),
            proof.sign_key,
            proof.agree_key,
            proof.tier,
            proof.model,
            (self.granted.trusted.version, enrol.LAST_EPOCH),
        )
        issued = sign_object(self._key, cose.CREDENTIAL, claims.to_payload())
        self._write(Enrol(salt, proven, issued, place), now)
        return self.boards[board_id]

    def confirm(self, board: Board, now: int) -> Board:
        """The board holds its credential."""
        self._write(Confirm(board.id, board.credential_digest), now)
        return self.boards[board.id]

    def hang(self, board: Board, place: Place, now: int) -> Board:
        """The board hangs there from now on. Raises OperatorError: the grant does not allow it."""
        problem = self.granted.given.why_not_there(place.post)
        if problem is not None:
            raise OperatorError(f"{board.id} cannot hang at {place.post}: {problem}.")
        self._write(Hang(board.id, place), now)
        return self.boards[board.id]

    def _write(self, said: Enrol | Confirm | Hang, now: int) -> None:
        last = self._chain.entries[-1].time if self._chain.entries else 0
        if now < last:
            raise OperatorError(
                f"The clock of this computer says {output.moment(now)}, and the journal was written at "
                f"{output.moment(last)}: set the clock, an entry that goes back in time is not merged."
            )
        entry = Entry(len(self._chain.entries) + 1, self._chain.head, now, said)
        signed = sign_object(self._key, grant_journal.DOMAIN, entry.to_payload())
        try:
            grant_journal.append(self._journal, signed)
        except OSError as why:
            raise OperatorError(f"The journal cannot be written, so nothing is done: {why.strerror}.") from why
        self._chain.entries.append(entry)
        self._chain.digests.append(grant_journal.digest(signed))
        self._take(entry)

    def _take(self, entry: Entry) -> None:
        said = entry.said
        if isinstance(said, Enrol):
            board = board_of(said, entry.time)
            if said.place is not None:
                board = replace(board, hangings=(Hanging(said.place, entry.time, None),))
            self.boards[board.id] = board
            return
        if said.board not in self.boards:
            raise grant_journal.NotAJournal(f"entry {entry.number} is of {said.board}, which was never enrolled")
        board = self.boards[said.board]
        if isinstance(said, Confirm):
            self.boards[board.id] = replace(board, state=ENROLLED, delivered=entry.time, enrolled=entry.time)
        else:
            self.boards[board.id] = replace(board, hangings=(Hanging(said.place, entry.time, None),))


@contextmanager
def begun(file: GrantFile, key: keys.SigningKey, path: Path) -> Iterator[Errand]:
    """The errand of a grant, with its journal, which is ours until the end. key: the technician's, opened.

    Raises UsageError: it cannot be read or written, or is not the journal of this grant.
    """
    with ExitStack() as stack:
        try:
            journal = stack.enter_context(grant_journal.opened(path))
            chain = grant_journal.read(grant_journal.content_of(journal), digest(file.body), file.given.key)
            errand = Errand(file, key, journal, chain)
        except BlockingIOError as why:
            raise UsageError(f"Another command is writing to {path}: wait for it.") from why
        except OSError as why:
            raise UsageError(f"The journal cannot be opened: {why.strerror}: {path}") from why
        except (grant_journal.NotAJournal, WireError) as why:
            raise UsageError(
                f"{path} is not the journal of this grant: {why}. Name the one that was begun with it, or a new file."
            ) from why
        yield errand


def enrol_here(
    line: Line, errand: Errand, board_id: str, place: Place | None, now: int, say: Callable[[str], None]
) -> enrol.Enrolment:
    """Enrol the board on this line under the grant. now: Unix seconds. say: what happens, for people.

    Raises UsageError, OperatorError; then the same command can be given again.
    """
    enrol.check_ids(board_id, place)
    told = enrol.bundle(errand.granted.trust_file)
    former = errand.boards.get(board_id)
    if former is None:
        errand.require(board_id, place, now)
    say(f"Asking who is on {line.port}")
    found = enrol.identity(line)
    if found is None:
        say(f"It is enrolled: asking whether as {board_id}")
        board = None if former is None else enrol.whose(line, [former])
        if board is None:
            raise OperatorError(
                f"The board on {line.port} is enrolled already, and not as {board_id} in this journal. In the clear it "
                "does not say as what: try the id that stands on its label, or end its service first: "
                "laterne flash --order, with the operator's order."
            )
    else:
        assert found.kid is not None
        say(enrol.met(found, found.kid))
        board = former or _proven(line, errand, board_id, found.kid, place, now, say)
        if credential.kid(board.sign_key) != found.kid:
            raise OperatorError(
                f"The id {board_id} belongs to another board, key "
                f"{enrol.fingerprint(credential.kid(board.sign_key))}: choose another id for this one."
            )
        say(f"Telling {board_id} whom to believe")
        enrol.tell(line, told)
        say(f"Giving {board_id} its credential")
        enrol.deliver(line, board)
    already = board.delivered is not None
    if not already:
        board = errand.confirm(board, now)
    if place is not None and place != board.place:
        board = errand.hang(board, place, now)
    return enrol.Enrolment(board, already)


def board_of(said: Enrol, time: int) -> Board:
    """The row of a board that was to get this credential at that time, Unix seconds. Raises WireError."""
    claims = credential.credential_of(cose.parse(said.credential, credential.MAX_CREDENTIAL_BYTES).payload)
    proof = credential.possession_of(cose.parse(said.possession, credential.MAX_POSSESSION_BYTES).payload)
    return Board(
        claims.board,
        PENDING,
        claims.sign_key,
        claims.agree_key,
        claims.tier,
        claims.model,
        proof.hardware,
        said.credential,
        credential.digest(said.credential),
        time,
        False,
    )


def _proven(
    line: Line, errand: Errand, board_id: str, kid: bytes, place: Place | None, now: int, say: Callable[[str], None]
) -> Board:
    for other in errand.boards.values():
        if credential.kid(other.sign_key) == kid:
            raise OperatorError(
                f"The board on {line.port} stands in the journal as {other.id}: repeat with --id {other.id}, or take "
                "another board."
            )
    say("Asking for a proof that it holds its keys")
    salt, nonce = errand.salt()
    proof, proven = enrol.proof_of(line, kid, nonce)
    taken = [key for other in errand.boards.values() for key in (other.sign_key, other.agree_key)]
    if proof.agree_key in taken:
        raise OperatorError(
            f"The board on {line.port} says that it agrees by a key of another board: one is a copy of the other, or "
            "lies. Wipe this one, so that it makes keys of its own."
        )
    return errand.enrol(board_id, salt, proof, proven, place, now)
