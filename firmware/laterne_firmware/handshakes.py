"""The board's part of a handshake: EDHOC with this board's keys and ciphers. In memory for handshakes only.

The order of messages and every check are those of laterne_protocol.edhoc_responder; when one is made is the business of
`sessions`.
"""

from laterne_firmware import ciphers, p256_keys, p256_peer
from laterne_protocol import edhoc_keys, session
from laterne_protocol import edhoc_responder as edhoc
from laterne_protocol.edhoc_messages import EdhocError, connections
from laterne_protocol.errors import MessageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.identity import Identity
    from laterne_protocol.edhoc_keys import Steps


def responder(
    identity: "Identity", gateway: str, agree_key: bytes, taken: "list[bytes]", random: "Callable[[int], bytes]"
) -> edhoc.Responder:
    """A new handshake, for the one gateway with this id and agreement key (64 bytes).

    taken: connection identifiers that sessions of ours have.
    """
    primitives = edhoc_keys.Primitives(
        lambda: p256_keys.make_key(random),
        p256_peer.decompress,
        lambda private, public: p256_peer.agree(private, public, random),
        ciphers.hkdf_extract,
        ciphers.hkdf_expand,
        ciphers.ccm_seal,
        ciphers.ccm_open,
    )
    peer = edhoc_keys.party(gateway, agree_key)
    free = [name for name in connections() if name not in taken]
    return edhoc.Responder(
        primitives,
        edhoc_keys.party(identity.board or "", identity.agree_key),
        lambda public: p256_peer.agree(identity.agree_private(), public, random),
        lambda kid: peer if kid == peer.kid else None,
        free[random(1)[0] % len(free)],
    )


def answer(handshake: edhoc.Responder, step: int, message: bytes, log: "Callable[[str], None]") -> "Steps":
    """The payload that answers a message: the next one, or an error when the handshake has failed.

    None for what has no place in it. log: told why it failed; the gateway is not (protocol/README.md, 9.5).
    """
    try:
        made = yield from handshake.take(step, message)
    except EdhocError as why:
        log("a handshake was refused: %s" % why)
        return bytes((edhoc.ERROR,)) + why.answer if why.answer else None
    except MessageError:
        return None
    return bytes((step + 1,)) + made


def failed(handshake: edhoc.Responder) -> bool:
    return handshake.state not in (edhoc.AWAITS_3, edhoc.DONE)


def session_of(handshake: edhoc.Responder, address: int, now_ms: int) -> session.Session:
    """As session.session_of(), but nothing in it keeps the handshake's modules in memory."""
    sending = session.link_key(handshake.exporter, address, session.BOARD)
    receiving = session.link_key(handshake.exporter, address, session.GATEWAY)
    handshake.forget_keys()
    return session.Session(
        ciphers, sending, receiving, handshake.connection, handshake.peer_connection, now_ms
    )  # a module has ccm_seal and ccm_open, all that a session wants of Primitives
