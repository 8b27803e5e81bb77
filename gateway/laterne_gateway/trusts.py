"""Whom to believe: each trust that this gateway has followed, and which of them the boards hold.

The first trust is installed by hand. A later one counts when a threshold of the roots trusted before has signed it, too
(TUF 5.3). Boards judge by the same rule, from the one that they hold: a board that was switched off for a year follows
in one step while the roots are the same, and else in the steps in which they changed. So every trust is kept, and
a board is told the newest that it can believe, then the next.

Nothing here decides when a board is told (`bus`). That one is told only what will leave us believed is `identity`'s.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from laterne_gateway import primitives
from laterne_gateway.buffer import Buffer
from laterne_gateway.health import Health
from laterne_gateway.writer import StoreError
from laterne_protocol import cose, public_keys, trust
from laterne_protocol.errors import WireError

log = logging.getLogger("laterne")

SUBJECT = "trust"
MAX_KEPT = 64  # a trust changes once a year or less; a board that has missed more is for people

Held = tuple[int, bytes]  # version, and digest of the payload, as a board says it


class RosterError(Exception):
    """A trust, a roster or a credential cannot be used; the sentence says what to do."""


def read_bounded(file: Path, max_bytes: int, made_by: str = "laterne roster export") -> bytes:
    """A file of at most max_bytes. made_by: the operator's command. Raises RosterError."""
    try:
        with file.open("rb") as source:
            data = source.read(max_bytes + 1)
    except OSError as why:
        raise RosterError(f"{file}: cannot be read ({why.strerror}): bring it from the authority ({made_by})") from why
    if len(data) > max_bytes:
        raise RosterError(f"{file}: more than {max_bytes} bytes: it is not what the authority exports")
    return data


@dataclass(frozen=True)
class Followed:
    """A trust that counts, or has counted. digest: of its payload, 16 bytes. data: the trust file."""

    trust: trust.Trust
    digest: bytes
    data: bytes


@dataclass(frozen=True)
class Telling:
    """What a board is to be told: the bundle, and what it then holds."""

    held: Held
    bundle: bytes


class TrustKeeper:
    """load() before use; take() when the file may have changed."""

    def __init__(self, file: Path, buffer: Buffer, health: Health) -> None:
        self._file = file
        self._buffer = buffer
        self._health = health
        self._followed: list[Followed] = []  # in the order of their versions
        self._held: dict[str, Held | None] = {}  # by board, as it said last

    @property
    def newest(self) -> trust.Trust:
        """The trust in force, once there is one."""
        return self._followed[-1].trust

    @property
    def all(self) -> list[trust.Trust]:
        """Every trust that was followed and is kept, the one in force last."""
        return [one.trust for one in self._followed]

    async def load(self) -> None:
        """At start: those in the database."""
        for kind, data in (await self._buffer.kept_files("trust")).items():
            try:
                # Whether it may follow the one before was judged when it was taken.
                self._followed.append(_followed(trust.trust_of(data, primitives.valid), data))
            except WireError as why:
                log.warning("%s: %s in the database is of no use any more: %s", SUBJECT, kind, why)

    async def take(self) -> None:
        """Follows the file if it is newer and good. Raises RosterError; what was followed before stays in force."""
        data = read_bounded(self._file, trust.MAX_TRUST_BYTES, "laterne trust export")
        former = self._followed[-1] if self._followed else None
        try:
            steps = self._steps(data, former)
        except WireError as why:
            raise RosterError(f"{self._file}: {why}: bring the trust that the authority published last") from why
        for one in steps:
            try:
                await self._buffer.keep_file(f"trust {one.trust.version}", one.trust.version, one.data)
                for old in self._followed[: 1 - MAX_KEPT]:
                    await self._buffer.forget_file(f"trust {old.trust.version}")
            except StoreError as why:
                raise RosterError(f"{self._file}: cannot be stored ({why}): it is taken when there is space") from why
            self._followed = [*self._followed[1 - MAX_KEPT :], one]
            log.info("%s: version %d of %s", SUBJECT, one.trust.version, one.trust.authority)
        self._health.note(SUBJECT, "version", self.newest.version)

    def _steps(self, data: bytes, former: Followed | None) -> list[Followed]:
        """What is to be followed, one after the other, to be at this file; nothing if we are. Raises WireError."""
        if former is None:
            return [_followed(trust.trust_of(data, primitives.valid), data)]
        # First by itself: who signs it is believed by its own roots at least, and tells its version.
        found = trust.trust_of(data, primitives.valid)
        steps: list[Followed] = []
        while True:
            try:
                trust.trust_of(data, primitives.valid, former.trust)
                return steps if found.version == former.trust.version else [*steps, _followed(found, data)]
            except WireError:
                # Versions were skipped in which the roots changed: those in between may lie beside it.
                between = self._between(former.trust, found.version)
                if between is None:
                    raise
                steps.append(between)
                former = between

    def _between(self, former: trust.Trust, version: int) -> Followed | None:
        file = self._file.with_name(f"{self._file.stem}-{former.version + 1}{self._file.suffix}")
        if former.version + 1 >= version or not file.exists():
            return None
        data = read_bounded(file, trust.MAX_TRUST_BYTES, "laterne trust export")
        found = _followed(trust.trust_of(data, primitives.valid, former), data)
        return found if former.version < found.trust.version < version else None

    # What boards hold -------------------------------------------------------------------------------------------------

    def note(self, board: str, held: Held | None) -> None:
        """A board has said in its session what it holds; None: nothing that it could read."""
        self._held[board] = held
        self._health.note(board, "trust version", None if held is None else held[0])
        problem = self._problem(held)
        if problem is None:
            self._health.clear(board, SUBJECT, f"{board}: holds a trust of ours again")
        else:
            self._health.alarm(board, SUBJECT, problem)

    def _problem(self, held: Held | None) -> str | None:
        if held is None:
            return "it holds no trust, so it would believe no other gateway: enrol it anew when it is at hand"
        version, digest = held
        if version > self.newest.version:
            return f"it holds trust version {version}, we have {self.newest.version}: bring the trust published last"
        if any(one.trust.version == version and one.digest != digest for one in self._followed):
            return f"it holds another trust of version {version} than ours: was it another authority's?"
        return None

    def next_for(self, held: Held | None) -> Telling | None:
        """What a board that holds this is to be told now; None: nothing, it follows us as far as it can."""
        if held is None or held[0] >= self.newest.version or self._problem(held) is not None:
            return None
        former = next((one for one in self._followed if one.digest == held[1]), None)
        if former is None:  # older than all that we keep: it will judge itself whether it can follow in one step
            return self._telling(self._followed[-1], None)
        for one in reversed(self._followed):
            if one.trust.version > held[0]:
                with contextlib.suppress(WireError):
                    trust.trust_of(one.data, primitives.valid, former.trust)
                    return self._telling(one, former.trust)
        return None

    def _telling(self, one: Followed, former: trust.Trust | None) -> Telling | None:
        try:
            bundle = trust.pack(_with_fewest_signatures(one, former))
        except WireError as why:
            self._health.alarm(SUBJECT, "bundle", f"version {one.trust.version} cannot be told to boards: {why}")
            return None
        return Telling((one.trust.version, one.digest), bundle)

    def boards_by_version(self, boards: Iterable[str]) -> dict[str, int]:
        """How many of these boards hold which version; "unknown": not heard since this process began."""
        counts: Counter[str] = Counter()
        for board in boards:
            held = self._held.get(board)
            counts["unknown" if held is None else str(held[0])] += 1
        return dict(sorted(counts.items()))


def _followed(found: trust.Trust, data: bytes) -> Followed:
    return Followed(found, trust.digest(found.to_payload()), data)


def _with_fewest_signatures(one: Followed, former: trust.Trust | None) -> bytes:
    # Each signature costs a board more than a second, and a bundle has no room for many (protocol/README.md, 8).
    twice = set() if former is None else {public_keys.kid(key) for key in former.roots if key in one.trust.roots}
    # Those that count for both trusts are left out last.
    parts = [
        cose.assemble(signed.protected, signed.payload, signed.signature)
        for signed in sorted(trust.signed_of(one.data), key=lambda signed: signed.kid in twice)
    ]
    for part in list(parts):
        fewer = [other for other in parts if other is not part]
        with contextlib.suppress(WireError):
            trust.trust_of(trust.trust_file(fewer), primitives.valid, former)
            parts = fewer
    return trust.trust_file(parts)
