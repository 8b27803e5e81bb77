"""What a handshake has to multiply, all at once, while nothing of EDHOC is in memory (`handshakes`)."""

from laterne_firmware.memory import unload
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.p256_scalars import KeyRefused
    from laterne_firmware.sessions import Half, Sessions


def half(sessions: "Sessions", message_1: bytes, gateway_key: bytes) -> "Generator[None, None, Half]":
    """What becomes of message_1: all of it that costs time. gateway_key: the one that message_3 will be by."""
    x, connection = _looked_at(sessions, message_1)
    identity, random = sessions.identity, sessions.random
    # After a rotation in turns, the one that was accepted last first: which of them the gateway's roster has, it knows.
    former = bool(identity.former_agree_key) and sessions.formerly
    sessions.formerly = not sessions.formerly
    own_key = identity.former_agree_key if former else identity.agree_key
    if x is None:  # EDHOC will say why, and ask for nothing
        return message_1, connection, b"", (b"", b""), b"", b"", b"", own_key
    from laterne_firmware.p256_scalars import KeyRefused

    try:
        point = yield from _point(x)  # of one forged x in two this is the end
    except KeyRefused as why:
        return message_1, connection, why, (b"", b""), b"", b"", b"", own_key
    unload("laterne_firmware.p256_peer")
    pair = yield from _key(random)
    unload("laterne_firmware.p256_keys", "laterne_firmware.p256_table")
    from laterne_firmware import p256_peer

    shared = yield from p256_peer.agree(pair[0], point, random)
    own_shared = yield from p256_peer.agree(identity.agree_private(former), point, random)
    gateway_shared: "bytes | KeyRefused" = b""
    try:
        gateway_shared = yield from p256_peer.agree(pair[0], gateway_key, random)
    except KeyRefused as why:
        gateway_shared = why
    return message_1, connection, point, pair, shared, own_shared, gateway_shared, own_key


def _point(x: bytes) -> "Generator[None, None, bytes]":
    from laterne_firmware import p256_peer

    return (yield from p256_peer.decompress(x))


def _key(random: "Callable[[int], bytes]") -> "Generator[None, None, tuple[bytes, bytes]]":
    from laterne_firmware import p256_keys

    return (yield from p256_keys.make_key(random))


def _looked_at(sessions: "Sessions", message_1: bytes) -> "tuple[bytes | None, bytes]":
    # x of the ephemeral key, None if message_1 will be refused, and a name that no session of ours has.
    from laterne_protocol.edhoc_messages import connections, parse_1

    taken = [session.connection for session in (sessions.session, sessions.following) if session is not None]
    free = [name for name in connections() if name not in taken]
    try:
        # All that is cheap comes first: whoever can write to the line can make us do the rest.
        return parse_1(message_1, (2,))[1], free[sessions.random(1)[0] % len(free)]
    except WireError:
        return None, free[0]
    finally:
        unload("laterne_protocol.edhoc_messages", "laterne_protocol.edhoc_keys", "laterne_protocol.public_keys")
