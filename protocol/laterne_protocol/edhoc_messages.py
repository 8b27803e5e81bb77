"""The bytes of EDHOC's messages, and what of them is refused before any key is touched (RFC 9528, 3 to 6).

All of it is read by the strict decoder: one value has one encoding. EdhocError and CborError end the handshake
(protocol/README.md, 9).
"""

from laterne_protocol import cbor
from laterne_protocol.edhoc_keys import METHOD, POINT_BYTES, byte_identifier
from laterne_protocol.errors import CborError, MessageError, WireError

MAX_MESSAGE_BYTES = 512  # ours have at most 53; the rest is room for padding
MAX_KID_BYTES = 16  # ours has 8
MAX_ERROR_TEXT_BYTES = 64
_MAX_ITEMS = 16  # the one array of a message: suites

# Error codes (RFC 9528, 6). 0 is success and never sent.
UNSPECIFIED, WRONG_SUITE, UNKNOWN_CREDENTIAL = 1, 2, 3


# Messages --------------------------------------------------------------------------------------------------------


class EdhocError(WireError):
    """A handshake that cannot go on: drop it.

    answer: the EDHOC error message that tells the peer so (RFC 9528, 6); empty when nothing is to be sent.
    """

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.answer = answer


def parse_1(message: bytes, ours: "tuple[int, ...]") -> "tuple[int, bytes, bytes]":
    """message_1: the suite that is spoken, x of the peer's ephemeral key (32 bytes), the peer's connection.

    ours: the suites that we speak.
    """
    method, at = _item(message, 0)
    offered, at = _decode_suites(message, at)
    g_x, at = _item(message, at)
    connection, at = connection_at(message, at)
    check_ead(message, at)
    if type(method) is not int or method != METHOD:
        raise refused("not method %d" % METHOD)
    # RFC 9528, 5.2.3: the suite selected, the last one, is ours, and none that the peer prefers to it is.
    selected = offered[-1]
    if selected not in ours or any(suite in ours for suite in offered[:-1]):
        raise EdhocError("cipher suites %s, ours are %s" % (offered, ours), error_message(WRONG_SUITE, ours))
    if not isinstance(g_x, bytes) or len(g_x) != POINT_BYTES:
        raise refused("the ephemeral key is not a byte string of %d" % POINT_BYTES)
    return selected, g_x, connection


def only_byte_string(message: bytes) -> bytes:
    """What message_2, message_3 and message_4 hold: one byte string and nothing after it."""
    content = cbor.decode(message, MAX_MESSAGE_BYTES, (), 0)
    if not isinstance(content, bytes):
        raise refused("the message is not one byte string")
    return content


def encode_suites(suites: "tuple[int, ...]") -> bytes:
    """SUITES_I or SUITES_R (RFC 9528, 5.2.1): one suite stands without an array."""
    return cbor.encode(suites[0] if len(suites) == 1 else list(suites))


def _decode_suites(message: bytes, at: int) -> "tuple[list[int], int]":
    value, at = cbor.decode_first(message, at, MAX_MESSAGE_BYTES, (), _MAX_ITEMS)
    suites = []
    for suite in value if isinstance(value, list) else [value]:
        if type(suite) is not int:
            raise refused("a cipher suite is not an integer")
        suites.append(suite)
    if isinstance(value, list) and len(suites) < 2:
        raise refused("an array around fewer than two cipher suites")
    return suites, at


def connection_at(text: bytes, at: int) -> "tuple[bytes, int]":
    """The peer's connection identifier. Of the profile: one byte, so that a record names it in one byte."""
    value, end = _item(text, at)
    if type(value) is not int or not -24 <= value <= 23:
        raise refused("the connection identifier is not one byte")
    return text[at:end], end


def authentication_at(plaintext: bytes, at: int) -> "tuple[bytes, bytes, bytes]":
    """kid, MAC and EAD as they follow one another in PLAINTEXT_2 and PLAINTEXT_3.

    The MAC's length is judged when it is compared.
    """
    value, end = _item(plaintext, at)
    if type(value) is int and -24 <= value <= 23:
        kid = plaintext[at:end]
    elif isinstance(value, bytes) and len(value) <= MAX_KID_BYTES and byte_identifier(value) == plaintext[at:end]:
        kid = value  # RFC 9528, 3.5.3.2: what can be sent as one byte must be
    else:
        raise refused("the credential is not named by its kid alone")
    mac, at = _item(plaintext, end)
    if not isinstance(mac, bytes):
        raise refused("the MAC is not a byte string")
    check_ead(plaintext, at)
    return kid, mac, plaintext[at:]


def check_ead(text: bytes, at: int) -> None:
    """External authorization data (RFC 9528, 3.8): a label, perhaps followed by a byte string, any number of times.

    We know none. Padding (label 0) and others that are not critical are left unread; a critical one, its label
    negative, ends the handshake.
    """
    labelled = False
    while at < len(text):
        value, at = _item(text, at)
        if type(value) is int:
            if value < 0:
                raise refused("critical external authorization data %d" % value)
            labelled = True
        elif isinstance(value, bytes) and labelled:
            labelled = False  # at most one value for each label
        else:
            raise refused("bytes behind the end that are no external authorization data")


def _item(text: bytes, at: int) -> "tuple[object, int]":
    """One item of a CBOR sequence; no array or map with anything in it belongs here."""
    return cbor.decode_first(text, at, MAX_MESSAGE_BYTES, (), 0)


def connections() -> "list[bytes]":
    """The names that a side may give its end of a session: the 48 byte strings that are sent as one byte."""
    return [bytes((name,)) for name in range(0x38) if not 0x18 <= name < 0x20]


# Error messages --------------------------------------------------------------------------------------------------


def error_message(code: int, about: object) -> bytes:
    """RFC 9528, 6. about: a text for UNSPECIFIED, our suites for WRONG_SUITE, True for UNKNOWN_CREDENTIAL.

    Never sent in answer to an error.
    """
    if code == WRONG_SUITE:
        assert isinstance(about, tuple)
        return cbor.encode(code) + encode_suites(about)
    return cbor.encode(code) + cbor.encode(about)


def error_of(message: bytes) -> "tuple[int, object]":
    """Code and information of an error message: a text, a list of suites, or True.

    Anybody can send one: log it, and let no session that works end by it. Raises MessageError.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise MessageError("%d bytes, an EDHOC message has at most %d" % (len(message), MAX_MESSAGE_BYTES))
    about = None  # type: object
    try:
        code, at = _item(message, 0)
        if type(code) is int and code == WRONG_SUITE:
            about, at = _decode_suites(message, at)
        else:
            about, at = _item(message, at)
    except (CborError, EdhocError) as why:
        raise MessageError("not an EDHOC error: %s" % why)
    if (
        at != len(message)
        or type(code) is not int
        or code not in (UNSPECIFIED, WRONG_SUITE, UNKNOWN_CREDENTIAL)
        or (code == UNSPECIFIED and not (isinstance(about, str) and len(about) <= MAX_ERROR_TEXT_BYTES))
        or (code == UNKNOWN_CREDENTIAL and about is not True)
    ):
        raise MessageError("not an EDHOC error that we know")
    return code, about


def refused(reason: str) -> EdhocError:
    """The error for a message that ends the handshake. The reason is for our own log: the peer learns none."""
    return EdhocError(reason, error_message(UNSPECIFIED, "refused"))
