"""Which boards we may serve: the roster, verified, never older than once seen, the last good one kept.

A roster counts when a roster key of the trust in force (`trusts`) has signed it, it names this gateway, and its version
is not below any that was ever taken; the last good one is in the database, so that holds after a restart too. It stays
in force when a newer trust comes, until a roster comes that this trust's key has signed.
"""

import contextlib
import logging
from functools import partial
from pathlib import Path

from laterne_gateway import primitives
from laterne_gateway.buffer import Buffer
from laterne_gateway.health import Health
from laterne_gateway.trusts import RosterError, TrustKeeper, read_bounded
from laterne_gateway.writer import StoreError
from laterne_protocol import cose, credential, roster, trust
from laterne_protocol.errors import ObjectError, SignatureError, WireError

log = logging.getLogger("laterne")

SUBJECT = "roster"


def verified_roster(data: bytes, trusted: trust.Trust, gateway: str) -> roster.Roster:
    """The roster in these bytes, once a roster key is found to have signed it for this gateway. Raises WireError."""
    signed = cose.parse(data, roster.MAX_ROSTER_BYTES)
    for key in trusted.keys[trust.ROSTER]:
        if credential.kid(key) == signed.kid:
            payload = cose.verify(signed, cose.ROSTER, partial(primitives.valid, key))
            found = roster.roster_of(payload)
            if found.gateway != gateway:
                raise ObjectError(f"it is for gateway {found.gateway}, this one is {gateway}")
            return found
    raise SignatureError(f"key {signed.kid.hex()} is not a roster key of {trusted.authority}")


class RosterKeeper:
    """Holds the roster in force. load() before use; reload() when the files may have changed."""

    def __init__(self, gateway: str, trusts: TrustKeeper, roster_file: Path, buffer: Buffer, health: Health) -> None:
        self._gateway = gateway
        self._trusts = trusts
        self._roster_file = roster_file
        self._buffer = buffer
        self._health = health
        self._roster: roster.Roster | None = None
        self._digest = b""
        self._entries: dict[str, roster.Entry] = {}
        self._revoked: set[str] = set()
        # Of signing keys that orders on their way give to boards: a second rotation may come before the first's roster.
        self._next_kids: dict[str, frozenset[bytes]] = {}
        self._boards_of_keys: dict[bytes, str] = {}  # kid of the agreement key -> the board that has or had it

    @property
    def version(self) -> int | None:
        return None if self._roster is None else self._roster.version

    @property
    def boards(self) -> int:
        return len(self._entries)

    def entry(self, board: str) -> roster.Entry | None:
        """What the roster says of a board; None: we may not serve it."""
        return None if board in self._revoked else self._entries.get(board)

    def entry_of_key(self, kid: bytes) -> roster.Entry | None:
        """The board that may be served and whose agreement key has this kid; protocol/README.md, 9.2."""
        entry = self.entry(self._boards_of_keys.get(kid, ""))
        return entry if entry is not None and credential.kid(entry.agree_key) == kid else None

    def name_of_key(self, kid: bytes) -> str | None:
        """The board that has this agreement key, or had it when this process last saw it in a roster."""
        return self._boards_of_keys.get(kid)

    def expect(self, board: str, kid: bytes) -> None:
        """An order gives this board a signing key with this kid. No roster names it yet."""
        if board in self._entries:
            self._next_kids[board] = self._next_kids.get(board, frozenset()) | {kid}

    def awaits(self, board: str, kid: bytes) -> bool:
        """Whether this is the key that the board was to get, and no roster has come since that names it."""
        return kid in self._next_kids.get(board, ())

    @property
    def names(self) -> list[str]:
        """The boards that may be served."""
        return list(self._entries)

    def is_revoked(self, board: str) -> bool:
        return board in self._revoked

    async def load(self) -> None:
        """At start: the last good files from the database, then the files. Raises RosterError: neither can be used."""
        await self._trusts.load()
        for data in (await self._buffer.kept_files("roster")).values():
            for trusted in reversed(self._trusts.all):
                # It was taken under one of these. A newer trust, whose roster is still to come, does not end our
                # service; only what is new must be signed by a key of the newest (_take_roster).
                with contextlib.suppress(WireError):
                    self._use(verified_roster(data, trusted, self._gateway))
                    break
        problem = await self.reload()
        if self._roster is None:
            raise RosterError(problem or "no roster")

    async def reload(self) -> str | None:
        """Takes the files when they are good; else keeps what is in force, raises an alarm and returns the problem."""
        try:
            await self._trusts.take()
            await self._take_roster()
        except (RosterError, StoreError) as why:  # what cannot be kept does not come into force
            self._health.count(SUBJECT, "refused")
            self._health.alarm(
                SUBJECT,
                "refused",
                f"{why}; {'none is' if self.version is None else f'version {self.version} stays'} in force",
            )
            return str(why)
        self._health.clear(SUBJECT, "refused")
        return None

    async def _take_roster(self) -> None:
        data = read_bounded(self._roster_file, roster.MAX_ROSTER_BYTES)
        try:
            found = verified_roster(data, self._trusts.newest, self._gateway)
        except WireError as why:
            raise RosterError(f"{self._roster_file}: {why}: export this gateway's roster anew") from why
        digest = roster.digest(found.to_payload())
        if self._roster is not None:
            former = self._roster.version
            if found.version < former:
                raise RosterError(
                    f"{self._roster_file}: version {found.version} is older than {former}: export the newest roster"
                )
            if found.version == former and digest != self._digest:
                raise RosterError(
                    f"{self._roster_file}: another roster with the version {former} that is in force: "
                    "export one with a new version"
                )
        if digest != self._digest:
            await self._buffer.keep_file("roster", found.version, data)
            self._use(found)
            log.info("%s: version %d, %d boards, %d revoked", SUBJECT, found.version, self.boards, len(self._revoked))

    def _use(self, found: roster.Roster) -> None:
        # A board may stand in both lists after it got new keys: the kid tells which key is revoked.
        revoked_kids = {(board, kid) for board, kid, _ in found.revoked}
        self._roster = found
        self._digest = roster.digest(found.to_payload())
        self._entries = {
            entry.board: entry
            for entry in found.entries
            if (entry.board, credential.kid(entry.sign_key)) not in revoked_kids
        }
        self._next_kids = {
            board: kids - _kids(self._entries[board])
            for board, kids in self._next_kids.items()
            if board in self._entries
        }
        self._revoked = {board for board, _, _ in found.revoked} - self._entries.keys()
        # Keys of boards that are not named any more are forgotten, so this cannot grow.
        named = self._entries.keys() | self._revoked
        # One before the present one is kept: a board whose keys are rotated shows it once more.
        present = {credential.kid(entry.agree_key): entry.board for entry in found.entries}
        former = {board: kid for kid, board in self._boards_of_keys.items() if board in named and kid not in present}
        self._boards_of_keys = {kid: board for board, kid in former.items()} | present
        self._health.note(SUBJECT, "version", found.version)
        self._health.note(SUBJECT, "boards", self.boards)


def _kids(entry: roster.Entry) -> set[bytes]:
    return {credential.kid(key) for key in (entry.sign_key, *(one.sign_key for one in entry.former))}
