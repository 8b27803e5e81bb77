"""A gateway's part of sessions, for tests of the real firmware: its key and credential, handshakes with a board.

Made of laterne_protocol.edhoc and the gateway's primitives; which frames go when is up to the test.
"""

from __future__ import annotations

import time

from tests.gateway.fake_authority import FakeAuthority, Key
from tests.protocol.edhoc_primitives import run

from laterne_gateway import primitives
from laterne_protocol import edhoc, edhoc_keys, session
from laterne_protocol.edhoc_messages import connections


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class GatewayEnd:
    """One gateway of an authority. credential: what boards are shown."""

    def __init__(self, authority: FakeAuthority, gateway: str = "gw-1", versions: tuple[int, int] = (1, 10)) -> None:
        self.authority = authority
        self.key = Key()
        self.party = edhoc_keys.party(gateway, self.key.public)
        self.credential = authority.gateway_file(self.key.public, gateway=gateway, versions=versions)
        self._made = 0

    def handshake(self, board: edhoc_keys.Party) -> edhoc.Initiator:
        """A new handshake with this board and no other; its names for sessions follow one another."""
        names = connections()
        self._made += 1
        return edhoc.Initiator(
            primitives.PRIMITIVES,
            self.party,
            primitives.agreement(self.key.secret),
            {board.kid: board}.get,
            names[self._made % len(names)],
        )


def take(handshake: edhoc.Initiator, step: int, message: bytes = b"") -> bytes:
    """One step, at once."""
    return run(handshake.take(step, message))


def session_of(handshake: edhoc.Initiator, address: int) -> session.Session:
    """The gateway's end of the session with the board at this address."""
    return session.session_of(handshake, session.GATEWAY, address, now_ms())
