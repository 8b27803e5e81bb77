"""The board's part of a handshake: EDHOC with this board's keys and ciphers. In memory for handshakes only.

The order of messages and every check are those of laterne_protocol.edhoc_responder; when one is made is the business of
`sessions`.
"""

from laterne_firmware import ciphers, known_gateway, p256_keys, p256_peer
from laterne_firmware.identity import FORMER
from laterne_protocol import edhoc_keys, session
from laterne_protocol import edhoc_responder as edhoc
from laterne_protocol.edhoc_messages import EdhocError, connections
from laterne_protocol.errors import MessageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from laterne_firmware.sessions import Sessions

    Work = Generator[None, None, bytes | None]


def work(sessions: "Sessions", step: int, message: bytes) -> "Work":
    """What `sessions` answers to message_1 or message_3: the next message, or the error that ends the handshake.

    None for what has no place in it. Why it failed is told to the console, not to the line (protocol/README.md, 9.5).
    """
    if step == edhoc.MESSAGE_1:
        handshake = _responder(sessions)
        if handshake is None:
            return None
        sessions.begun += 1
        sessions.log("handshake %d begins" % sessions.begun)
    else:
        handshake, sessions.responder = sessions.responder, None
    assert handshake is not None  # sessions lets no message_3 through without one
    sessions.stepped_ms = None
    try:
        made = yield from handshake.take(step, message)
    except EdhocError as why:
        sessions.log("a handshake was refused: %s" % why)
        return bytes((edhoc.ERROR,)) + why.answer if why.answer else None
    except MessageError:
        return None
    sessions.stepped_ms = sessions.clock.now_ms()
    if step == edhoc.MESSAGE_1:
        sessions.responder = handshake
    else:
        sessions.following = session_of(handshake, sessions.address, sessions.stepped_ms)
        sessions.log("handshake %d is done" % sessions.begun)
        if sessions.identity.former_agree_key:
            _accepted(sessions)
    return bytes((step + 1,)) + made


def _accepted(sessions: "Sessions") -> None:
    # Message_3 is by a gateway that has verified our key: the one of this handshake, after which `formerly` was turned.
    sessions.formerly = not sessions.formerly
    if not sessions.formerly:
        from laterne_firmware.executed import erase

        erase(FORMER)
        sessions.identity.former_agree_key = b""
        sessions.log("the former agreement key is erased")


def _responder(sessions: "Sessions") -> "edhoc.Responder | None":
    # A new handshake with the one gateway that is known, under a name that no session of ours has.
    known = known_gateway.load()
    if known is None:
        return None
    identity, random = sessions.identity, sessions.random
    # After a rotation in turns, the one that was accepted last first: which of them the gateway's roster has, it knows.
    former = bool(identity.former_agree_key) and sessions.formerly
    sessions.formerly = not sessions.formerly
    primitives = edhoc_keys.Primitives(
        lambda: p256_keys.make_key(random),
        p256_peer.decompress,
        lambda private, public: p256_peer.agree(private, public, random),
        ciphers.hkdf_extract,
        ciphers.hkdf_expand,
        ciphers.ccm_seal,
        ciphers.ccm_open,
    )
    peer = edhoc_keys.party(known.gateway, known.agree_key)
    taken = [session.connection for session in (sessions.session, sessions.following) if session is not None]
    free = [name for name in connections() if name not in taken]
    return edhoc.Responder(
        primitives,
        edhoc_keys.party(identity.board or "", identity.former_agree_key if former else identity.agree_key),
        lambda public: p256_peer.agree(identity.agree_private(former), public, random),
        lambda kid: peer if kid == peer.kid else None,
        free[random(1)[0] % len(free)],
    )


def session_of(handshake: edhoc.Responder, address: int, now_ms: int) -> session.Session:
    """As session.session_of(), but nothing in it keeps the handshake's modules in memory."""
    sending = session.link_key(handshake.exporter, address, session.BOARD)
    receiving = session.link_key(handshake.exporter, address, session.GATEWAY)
    handshake.forget_keys()
    return session.Session(
        ciphers,  # type: ignore[arg-type]  # a module with ccm_seal and ccm_open, all that a session wants of Primitives
        sending,
        receiving,
        handshake.connection,
        handshake.peer_connection,
        now_ms,
    )
