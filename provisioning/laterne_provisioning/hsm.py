"""Keys in a hardware security module (PKCS#11), through securesystemslib's `hsm:` signer: its errors as sentences.

The URI is `hsm:KEYID?label=TOKEN`, KEYID in decimal. Which module speaks to the device is told by the environment
variable PYKCS11LIB. Keys are made with the vendor's tool; here they are only found and used.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import UnsupportedLibraryError

from laterne_provisioning import primitives
from laterne_provisioning.errors import UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # its __all__ is missing

SCHEME: Final = "hsm:"
MODULE = "PYKCS11LIB"  # securesystemslib's name for it
_DEFAULT_KEY = 2  # securesystemslib's: a PIV card's slot for signatures

# What python-pkcs11 raises has no text of its own, only a class (all of them RuntimeErrors): PKCS #11 2.40, 5.1.
_SENTENCES = {
    "PinIncorrect": "the PIN is wrong. Tokens count wrong PINs and lock: look it up before you try again",
    "PinLenRange": "the PIN is wrong (too short or too long). Look it up before you try again",
    "PinInvalid": "the PIN has characters that the token does not take. Look it up before you try again",
    "PinLocked": "the token has locked itself after too many wrong PINs: unlock it with the security officer's PIN",
    "PinExpired": "the PIN has expired: set a new one with the token's own tool",
    "UserPinNotInitialized": "the token has no PIN yet: set one with the token's own tool",
    "TokenNotPresent": "the token is not there: plug it in",
    "DeviceRemoved": "the token was taken away: plug it in and repeat",
    "DeviceError": "the token reports a fault: plug it in anew and repeat",
    "TokenNotRecognised": "there is something the module does not know: is it the module of this token?",
    "MechanismInvalid": "the token cannot sign with ECDSA: use one that can",
    "KeyHandleInvalid": "the key has vanished from the token: repeat",
    "UserAlreadyLoggedIn": "another program is logged in at the token: wait for it",
}

AskPin = Callable[[str], str]
"""Given what is wanted, the PIN."""


def sentence(why: Exception) -> str:
    """What has gone wrong, for the person at the terminal, without a full stop."""
    if isinstance(why, UnsupportedLibraryError):
        return "python-pkcs11 is not installed: pip install 'laterne[hsm]'"
    if MODULE in str(why):
        return f"{MODULE} is not set: give it the path of your device's PKCS#11 module"
    known = _SENTENCES.get(type(why).__name__)
    return known or str(why) or f"the PKCS#11 module says {type(why).__name__}: see its manual"


def public_key(uri: str, ask_pin: AskPin) -> bytes:
    """The public part, 64 bytes, of a key that is in the token already. ask_pin: asked if the token hides it.

    Raises UsageError: no such module, token or key, or a key of another kind.
    """
    from securesystemslib.signer import HSMSigner  # type: ignore[attr-defined]  # its __all__ is missing

    keyid, label = _parts(uri)
    try:
        _, found = HSMSigner.import_(keyid, label, ask_pin)
        return primitives.raw_key(_crypto_key(found))
    # RuntimeError is the base of all that python-pkcs11 raises.
    except (ValueError, RuntimeError, OSError, UnsupportedLibraryError) as why:
        raise UsageError(
            f"There is no usable P-256 key at {uri}: {sentence(why)}. "
            'Keys are made with the token\'s own tool (provisioning/README.md, "Keys in a token").'
        ) from why


def _parts(uri: str) -> tuple[int, str | None]:
    parts = urlsplit(uri)
    query = parse_qs(parts.query)
    try:
        if query.keys() - {"label"} or not uri.startswith(SCHEME) or parts.netloc:
            raise ValueError
        return int(parts.path or str(_DEFAULT_KEY)), query.get("label", [None])[0]
    except ValueError as why:
        raise UsageError(
            f"{uri!r} names no key in a token: write it as hsm:KEYID?label=TOKEN, KEYID a number."
        ) from why


def _crypto_key(key: "SSlibKey") -> ec.EllipticCurvePublicKey:
    found = load_pem_public_key(key.keyval["public"].encode())
    if not isinstance(found, ec.EllipticCurvePublicKey):
        raise ValueError("it is no key on an elliptic curve")
    return found
