"""Whom a board believes: a gateway's credential and a newer trust, both judged by the trust on flash.

In memory only while one of them is judged. Each signature takes more than a second on a board: all of this comes in
steps, and begins again after each of them (`judging`). What is refused is told to the console, not to the line.
"""

from laterne_firmware import known_gateway
from laterne_firmware.identity import TRUST
from laterne_firmware.judging import verify
from laterne_firmware.sessions import INTRODUCED, INTRODUCTION
from laterne_firmware.store import Record
from laterne_protocol import cose, gateway_credential, public_keys, trust
from laterne_protocol.errors import ObjectError, SignatureError, WireError
from laterne_protocol.report import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.sessions import Sessions
    from laterne_protocol.edhoc_keys import Steps


def work(sessions: "Sessions", step: int, body: bytes) -> "Generator[None, None, bytes | None]":
    """What `sessions` answers to an introduction, None for one that is refused, or to a trust; it is told of both."""
    if step == INTRODUCTION:
        found = yield from gateway_in(body, sessions.log)
        if found is None:
            return None
        found.save()
        sessions.gateway_digest, sessions.gateway_kid = found.digest, found.kid
        sessions.log("gateway %s was introduced" % found.gateway)
        return bytes((INTRODUCED,)) + found.kid
    taken = yield from trust_in(body, sessions.log)
    if taken:
        # A release may have been signed by a key that is none any more: what is not armed yet is judged again.
        sessions.begin_updating_anew()
    if sessions.gateway_digest and known_gateway.load() is None:
        sessions.gateway_digest = sessions.gateway_kid = b""
        sessions.following, sessions.leaving = None, True
    return taken


def gateway_in(
    signed: bytes, log: "Callable[[str], None]"
) -> "Generator[None, None, known_gateway.KnownGateway | None]":
    """The gateway of a credential that is believed; None of any other."""
    try:
        believed = _stored()
        one = cose.parse(signed, gateway_credential.MAX_GATEWAY_CREDENTIAL_BYTES)
        found = gateway_credential.gateway_credential_of(one.payload)
        if not found.is_valid_under(believed.version):
            raise ObjectError("not valid under trust version %d" % believed.version)
        cose.check_low_s(one.signature)
        message = cose.to_be_signed(cose.GATEWAY, one.protected, one.payload)
        for key in believed.keys[trust.ROSTER]:
            # Only the key that it names: each try costs more than a second.
            if public_keys.kid(key) == one.kid and (yield from verify(key, message, one.signature)):
                kid = public_keys.kid(found.agree_key)
                return known_gateway.KnownGateway(
                    digest(signed), kid, found.gateway, found.agree_key, one.kid, found.versions
                )
        raise SignatureError("not signed by a roster key of ours")
    except WireError as why:
        log("a gateway's introduction was refused: %s" % why)
        return None


def trust_in(bundle: bytes, log: "Callable[[str], None]") -> "Steps":
    """The digest of the stored trust, after it was replaced if this one is newer and good; empty when it is refused.

    A gateway that the newer trust does not believe is forgotten.
    """
    try:
        former = _stored()
        signed = trust.unpack(bundle)
        payload = signed[0].payload
        if payload != former.to_payload():
            found = yield from trust.verified(signed, verify, former)
            # Forgotten first: if the power fails in between, the gateway is introduced and believed once more. The
            # other way round it would stay known to a board whose trust does not believe it.
            known = known_gateway.load()
            if known is not None and not _is_believed(known, found):
                known_gateway.forget()
                log("the gateway is not believed any more")
            Record(TRUST).save(payload)
            log("trust version %d replaces version %d" % (found.version, former.version))
        return trust.digest(payload)
    except WireError as why:
        log("a trust was refused: %s" % why)
        return b""


def _is_believed(known: known_gateway.KnownGateway, believed: trust.Trust) -> bool:
    # Whether the trust has the signer among its roster keys, and a version for which the credential was made.
    first, last = known.versions
    kids = [public_keys.kid(key) for key in believed.keys[trust.ROSTER]]
    return first <= believed.version <= last and known.signer in kids


def _stored() -> trust.Trust:
    payload = Record(TRUST).load()
    if payload is None:
        raise ObjectError("there is no trust on flash")
    return trust.trust_payload_of(payload)
