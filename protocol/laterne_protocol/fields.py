"""Checks of decoded values: the right type, length and range, or an error that names the field.

A bool is no integer here, although Python says so: 1 and true are different CBOR.
"""

from laterne_protocol.errors import ObjectError

MAX_UINT = (1 << 53) - 1  # what SQLite, JSON and JavaScript can all hold
MAX_UINT32 = 0xFFFFFFFF
MAX_UTC_S = 253402300799  # 9999-12-31T23:59:59Z, the last second that RFC 3339 and datetime can write
MAX_UTC_MS = MAX_UTC_S * 1000 + 999

# Sizes that messages and signed objects share; a running board needs them without the objects' modules.
DIGEST_BYTES = 16  # of a credential, of a report; and of a nonce
MAX_CREDENTIAL_BYTES = 512  # of a possession object, too
MAX_MODEL_BYTES = 32
MAX_AUTHORITY_BYTES = 64
MAX_ORDER_BYTES = 700  # the longest carries a credential
MAX_RECEIPT_BYTES = 700  # the longest carries a possession object; a board keeps one in a record of 1,024
MAX_TRUST_BUNDLE_BYTES = 960  # as a report: what a record and the message around it leave of a frame

_ID_INSIDE = "._-"
_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + _ID_INSIDE


def integer(value: object, name: str, low: int = 0, high: int = MAX_UINT) -> int:
    """The value as an integer in low..high, both included. Raises ObjectError."""
    if type(value) is not int or not low <= value <= high:
        raise ObjectError("%s is not an integer in %d..%d" % (name, low, high))
    return value


def byte_string(value: object, name: str, low: int, high: "int | None" = None) -> bytes:
    """The value as bytes of low..high length (exactly low when high is left out). Raises ObjectError."""
    if not isinstance(value, bytes) or not low <= len(value) <= (low if high is None else high):
        raise ObjectError("%s has the wrong type or length" % name)
    return value


def text(value: object, name: str, high: int) -> str:
    """The value as text of 1..high bytes without control characters. Raises ObjectError.

    Texts end up on terminals and in logs: an escape sequence would let a stranger's board write there.
    """
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= high:
        raise ObjectError("%s is not a text of 1..%d bytes" % (name, high))
    for character in value:
        if character < " " or "\x7f" <= character <= "\x9f":
            raise ObjectError("%s has a control character" % name)
    return value


def array(value: object, name: str, low: int, high: int) -> "list[object]":
    """The value as an array of low..high items. Raises ObjectError."""
    if not isinstance(value, list) or not low <= len(value) <= high:
        raise ObjectError("%s is not an array of %d..%d items" % (name, low, high))
    return value


def mapping(
    value: object, name: str, required: "tuple[int, ...]", optional: "tuple[int, ...]" = ()
) -> "dict[int, object]":
    """The value as a map with all of the required keys and no other than the optional ones. Raises ObjectError."""
    if not isinstance(value, dict):
        raise ObjectError("%s is not a map" % name)
    for key in required:
        if key not in value:
            raise ObjectError("%s lacks key %d" % (name, key))
    for key in value:
        if key not in required and key not in optional:
            raise ObjectError("%s has a key that is not ours" % name)
    return value


def board_id(value: object, name: str = "board id") -> str:
    """The value as the id of a board, gateway or post: 1..32 of A-Z a-z 0-9 . _ -, safe in topics and paths.

    The first character is a letter or a digit. Raises ObjectError.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= 32:
        raise ObjectError("%s is not a text of 1..32 bytes" % name)
    if value.strip(_ID_CHARACTERS) or value[0] in _ID_INSIDE:  # strip() leaves what is not ours, and is quick
        raise ObjectError("%s may hold letters, digits, and after the first also . _ -" % name)
    return value
