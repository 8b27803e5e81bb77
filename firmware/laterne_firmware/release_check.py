"""Whether the envelope of an ordered release is good, and for this board (protocol/README.md, 11 and 12.6).

In memory only while it is judged; begins again after each signature (`judging`). Nothing is written.
"""

from laterne_firmware.identity import TRUST
from laterne_firmware.judging import verify
from laterne_firmware.store import Record
from laterne_protocol import cbor, fields, manifest, trust
from laterne_protocol.errors import SignatureError, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from laterne_firmware.sessions import Sessions

NOT_THE_ORDERED_ONE, NOT_SIGNED, FOR_OTHERS, TOO_OLD, TOO_LARGE = 16, 17, 18, 20, 21
NOT_THE_ONE_ON_FLASH = 255


def work(sessions: "Sessions", body: bytes) -> "Generator[None, None, bytes]":
    """Fills `judged` of the sessions. body: release digest as ordered, sequence as ordered, floor, envelope,
    whether that lay on flash: if it is refused, the gateway is to be asked for another one.
    """
    items = fields.array(cbor.decode(body, 1200), "body", 5, 5)
    release = fields.byte_string(items[0], "release", 16)
    data = fields.byte_string(items[3], "envelope", 1, manifest.MAX_SEVERED_BYTES)
    index, size = b"", 0
    try:
        envelope = manifest.envelope_of(data)
        index, size = envelope.index_digest, envelope.index_size
        refused = yield from _judge(envelope, release, items[1], fields.integer(items[2], "floor"))
    except SignatureError as why:
        sessions.log("a release is refused: %s" % why)
        refused = NOT_SIGNED
    except WireError as why:
        sessions.log("a release is refused: %s" % why)
        refused = NOT_THE_ORDERED_ONE
    if refused and items[4]:
        refused = NOT_THE_ONE_ON_FLASH
    sessions.judged = release, refused, data, index, size
    return b""


def _judge(envelope: manifest.Envelope, release: bytes, sequence: object, floor: int) -> "Generator[None, None, int]":
    if envelope.digest[:16] != release:
        return NOT_THE_ORDERED_ONE
    if (envelope.vendor, envelope.class_id) != (manifest.VENDOR, manifest.CLASS_ID):
        return FOR_OTHERS
    if envelope.sequence != sequence or envelope.sequence < floor:
        return TOO_OLD
    if envelope.index_size > manifest.MAX_INDEX_BYTES:
        return TOO_LARGE
    believed = trust.trust_payload_of(Record(TRUST).load() or b"")
    yield from manifest.verified(envelope, believed.keys[trust.RELEASE], believed.release_threshold, verify)
    return 0
