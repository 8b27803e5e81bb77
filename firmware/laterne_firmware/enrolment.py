"""How a board gets its keys and its credential: needed until it is enrolled, and taken out of memory then.

A credential is taken once, and only if it names exactly the keys that were made here; who signed it is for gateways
and platform to judge. What takes long is a generator of steps, so that line and watchdog go on.
"""

from laterne_firmware import p256_keys
from laterne_protocol import cose, credential
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.identity import Identity


class CredentialRefused(ValueError):
    """The credential is not one for this board: nothing was stored."""


def make_keys(identity: "Identity", random: "Callable[[int], bytes]") -> "Generator[None, None, None]":
    """Makes both key pairs and stores them."""
    private_sign, sign_key = yield from p256_keys.make_key(random)
    private_agree, agree_key = yield from p256_keys.make_key(random)
    identity.take_keys(private_sign + sign_key + private_agree + agree_key, credential.kid(sign_key))


def possession(
    identity: "Identity", nonce: bytes, tier: int, model: str, hardware: bytes, random: "Callable[[int], bytes]"
) -> "Generator[None, None, bytes]":
    """The signed possession object over the asker's nonce (protocol/README.md, 5)."""
    claims = credential.Possession(nonce, identity.sign_key, identity.agree_key, tier, model, hardware)
    return (yield from identity.sign(cose.POSSESSION, claims.to_payload(), random))


def enrol(identity: "Identity", signed: bytes) -> None:
    """Stores the credential and takes its name. Raises CredentialRefused; OSError when the flash refuses."""
    try:
        claims = credential.credential_of(cose.parse(signed, credential.MAX_CREDENTIAL_BYTES).payload)
    except WireError as why:
        raise CredentialRefused(str(why))
    # No check of the signature here: a new board knows nobody yet.
    if claims.sign_key != identity.sign_key or claims.agree_key != identity.agree_key:
        raise CredentialRefused("it names other keys")
    identity.take_credential(signed, claims.board)
