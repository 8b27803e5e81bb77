"""How a board with keys gets its credential: needed until it is enrolled, and taken out of memory then.

First the trust: a board that knows nobody believes whoever holds it, once. Then the credential, taken once, and only
if it names exactly the keys that were made here; who signed it is for gateways and platform to judge.
"""

from laterne_firmware.identity import CREDENTIAL, NAME, TRUST
from laterne_firmware.memory import unload
from laterne_firmware.store import Record
from laterne_firmware.supervisor import stepping
from laterne_protocol import board_messages as messages
from laterne_protocol import cbor, cose, credential
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.identity import Identity

    # What is claimed of a board beside its keys: protection tier, model, hardware id.
    About = tuple[int, str, bytes]


class CredentialRefused(ValueError):
    """The credential, or the trust, is not one for this board: nothing was stored."""


async def answer(
    question: messages.Enrolment,
    identity: "Identity",
    about: "About",
    random: "Callable[[int], bytes]",
    log: "Callable[[str], None]",
    beat: "Callable[[], None]",
) -> "messages.Enrolment | messages.Refusal":
    """The answer of a board that has keys and no credential yet. OSError when the flash refuses."""
    if question.step == messages.PROVE:
        tier, model, hardware = about
        claims = credential.Possession(question.body, identity.sign_key, identity.agree_key, tier, model, hardware)
        steps = identity.sign(cose.POSSESSION, claims.to_payload(), random)
        return messages.Enrolment(question.number, messages.POSSESSION, await stepping(steps, beat))
    try:
        if question.step == messages.TRUST:
            return messages.Enrolment(question.number, messages.TRUST_TAKEN, take_trust(question.body))
        if Record(TRUST).load() is None:
            return messages.Refusal(question.number, messages.NOT_READY)
        enrol(identity, question.body)
    except CredentialRefused as why:
        log("a credential was refused: %s" % why)
        return messages.Refusal(question.number, messages.CREDENTIAL_REFUSED)
    log("enrolled as %s" % identity.board)
    return messages.Enrolment(question.number, messages.ENROLLED, identity.credential_digest)


def take_trust(bundle: bytes) -> bytes:
    """Stores the payload of a trust bundle; its digest. Raises CredentialRefused; OSError when the flash refuses.

    A gateway from before is forgotten: this trust may be another authority's.
    """
    from laterne_firmware import known_gateway
    from laterne_protocol import trust

    try:
        payload = trust.unpack(bundle)[0].payload
        # No check of the signatures: by whose keys? It has to be a trust, so that it can be read when it is needed.
        trust.trust_payload_of(payload)
        taken = trust.digest(payload)
    except WireError as why:
        raise CredentialRefused(str(why))
    finally:
        unload("laterne_protocol.trust")
    if known_gateway.load() is not None:
        known_gateway.forget()  # first, as in introductions.trust_in
    del known_gateway
    unload("laterne_firmware.known_gateway")
    Record(TRUST).save(payload)
    return taken


def enrol(identity: "Identity", signed: bytes) -> None:
    """Stores the credential and takes its name. Raises CredentialRefused; OSError when the flash refuses.

    The name is written after the credential: a start that finds only the latter finishes the enrolment.
    """
    try:
        claims = credential.credential_of(cose.parse(signed, credential.MAX_CREDENTIAL_BYTES).payload)
    except WireError as why:
        raise CredentialRefused(str(why))
    # No check of the signature here: a new board knows nobody yet.
    if claims.sign_key != identity.sign_key or claims.agree_key != identity.agree_key:
        raise CredentialRefused("it names other keys")
    Record(CREDENTIAL).save(signed)
    identity.credential_digest = credential.digest(signed)
    Record(NAME).save(cbor.encode([identity.kid, claims.board, identity.credential_digest]))
    identity.board = claims.board
