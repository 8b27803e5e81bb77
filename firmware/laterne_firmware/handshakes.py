"""The board's part of a handshake: EDHOC with this board's keys and ciphers. In memory for handshakes only.

The order of messages and every check are those of laterne_protocol.edhoc_responder; when one is made is the business of
`sessions`. What reads messages and what multiplies points are never in memory together: all that a handshake has to
multiply is known from message_1 on, because there is one gateway that may talk. So message_1 is looked at first, then
everything is multiplied, also what is for message_3, and then EDHOC is given the results. Between message_1 and
message_3 only those are kept, as bytes: EDHOC answers message_1 once more, with the same bytes, and takes message_3.
"""

from laterne_firmware import ciphers
from laterne_firmware.identity import FORMER, unload_arithmetic
from laterne_firmware.memory import unload
from laterne_firmware.sessions import MESSAGE_1
from laterne_protocol import session
from laterne_protocol.errors import MessageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import TypeVar

    from laterne_firmware.known_gateway import KnownGateway
    from laterne_firmware.sessions import Half, Sessions
    from laterne_protocol.edhoc_responder import Responder

    Work = Generator[None, None, bytes | None]
    Made = TypeVar("Made")


def work(sessions: "Sessions", step: int, message: bytes) -> "Work":
    """What `sessions` answers to message_1 or message_3: the next message, or the error that ends the handshake.

    None for what has no place in it. Why it failed is told to the console, not to the line (protocol/README.md, 9.5).
    """
    known = _known()
    half, sessions.half = sessions.half, None
    sessions.stepped_ms = None
    if known is None:
        return None
    if step == MESSAGE_1:
        sessions.begun += 1
        sessions.log("handshake %d begins" % sessions.begun)
        half = yield from _multiplied(sessions, message, known.agree_key)
    assert half is not None  # sessions lets no message_3 through without one
    unload_arithmetic()
    from laterne_protocol.edhoc_messages import EdhocError

    handshake = _responder(sessions, known, half)
    try:
        made = yield from handshake.take(MESSAGE_1, half[0])
        if step != MESSAGE_1:
            made = yield from handshake.take(step, message)
    except EdhocError as why:
        sessions.log("a handshake was refused: %s" % why)
        return bytes((5,)) + why.answer if why.answer else None  # edhoc_responder.ERROR
    except MessageError:
        return None
    sessions.stepped_ms = sessions.clock.now_ms()
    if step == MESSAGE_1:
        sessions.half = half
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


def _known() -> "KnownGateway | None":
    from laterne_firmware import known_gateway

    known = known_gateway.load()
    unload("laterne_firmware.known_gateway")
    return known


def _multiplied(sessions: "Sessions", message_1: bytes, gateway_key: bytes) -> "Generator[None, None, Half]":
    from laterne_firmware import multiplying

    try:
        return (yield from multiplying.half(sessions, message_1, gateway_key))
    finally:
        unload("laterne_firmware.multiplying")


def _ready(made: "Made | ValueError") -> "Generator[None, None, Made]":
    """As steps to a result, for one that is there."""
    if isinstance(made, ValueError):
        raise made
    return made
    yield


def _responder(sessions: "Sessions", known: "KnownGateway", half: "Half") -> "Responder":
    # A handshake with the one gateway that is known.
    from laterne_protocol import edhoc_keys
    from laterne_protocol.edhoc_responder import Responder

    _, connection, point, pair, shared, own_shared, gateway_shared, own_key = half
    primitives = edhoc_keys.Primitives(
        lambda: _ready(pair),
        lambda x: _ready(point),
        # With our ephemeral key, once with message_1's and once with the gateway's static one.
        lambda private, public: _ready(gateway_shared if public == known.agree_key else shared),
        ciphers.hkdf_extract,
        ciphers.hkdf_expand,
        ciphers.ccm_seal,
        ciphers.ccm_open,
    )
    peer = edhoc_keys.party(known.gateway, known.agree_key)
    return Responder(
        primitives,
        edhoc_keys.party(sessions.identity.board or "", own_key),
        lambda public: _ready(own_shared),
        lambda kid: peer if kid == peer.kid else None,
        connection,
    )


def session_of(handshake: "Responder", address: int, now_ms: int) -> session.Session:
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
