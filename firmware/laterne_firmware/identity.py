"""Who this board is: two key pairs that never leave it, and the credential that an operator gave it.

Keys are made at the first start. A credential is taken once, and only if it names exactly these keys; who signed it
is for the gateways to judge. Everything long is a generator of steps, so that line and watchdog go on.
"""

from laterne_firmware import p256
from laterne_firmware.store import Record, make_directory
from laterne_protocol import cose, credential
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_PRIVATE_BYTES = 32
_KEYS_BYTES = 2 * (_PRIVATE_BYTES + credential.KEY_BYTES)


class CredentialRefused(ValueError):
    """The credential is not one for this board: nothing was stored."""


class AlreadyEnrolled(ValueError):
    """The board has another credential already; it takes no second one."""


class Identity:
    """board: its id, or None before enrolment. kid: of its signing key, or None before it has keys."""

    def __init__(self, log: "Callable[[str], None]", directory: str = "/k") -> None:
        make_directory(directory)
        self._log = log
        self._keys = Record(directory + "/keys")
        self._credential = Record(directory + "/credential")
        self.sign_key = b""
        self.agree_key = b""
        self._private_sign = b""
        self._private_agree = b""
        self.kid = None  # type: bytes | None
        self.board = None  # type: str | None
        self.credential_digest = b""
        self._load()

    def _load(self) -> None:
        keys = self._keys.load()
        if keys is not None and len(keys) == _KEYS_BYTES:
            self._take_keys(keys)
        elif keys is not None or self._keys.damaged:
            self._log("the keys cannot be read and are set aside: this board must be enrolled again")
            self._keys.set_aside()
        stored = self._credential.load()
        if stored is None and not self._credential.damaged:
            return
        try:
            self._take_credential(stored or b"")
        except CredentialRefused as why:
            self._log("the stored credential is set aside: %s" % why)
            self._credential.set_aside()

    def make_keys(self, random: "Callable[[int], bytes]") -> "Generator[None, None, None]":
        """Makes both key pairs and stores them."""
        private_sign, sign_key = yield from p256.make_key(random)
        private_agree, agree_key = yield from p256.make_key(random)
        keys = private_sign + sign_key + private_agree + agree_key
        yield from self._keys.saving(keys)
        self._take_keys(keys)

    def _take_keys(self, keys: bytes) -> None:
        self._private_sign = keys[:32]
        self.sign_key = keys[32:96]
        self._private_agree = keys[96:128]
        self.agree_key = keys[128:]
        self.kid = credential.kid(self.sign_key)

    def possession(
        self, nonce: bytes, tier: int, model: str, hardware: bytes, random: "Callable[[int], bytes]"
    ) -> "Generator[None, None, bytes]":
        """The signed possession object over the asker's nonce (protocol/README.md, 5)."""
        claims = credential.Possession(nonce, self.sign_key, self.agree_key, tier, model, hardware)
        return (yield from self._sign(cose.POSSESSION, claims.to_payload(), random))

    def sign_report(self, payload: bytes, random: "Callable[[int], bytes]") -> "Generator[None, None, bytes]":
        """The signed report."""
        return (yield from self._sign(cose.REPORT, payload, random))

    def _sign(
        self, domain: str, payload: bytes, random: "Callable[[int], bytes]"
    ) -> "Generator[None, None, bytes]":
        protected = cose.protected_header(self.kid or b"")
        message = cose.to_be_signed(domain, protected, payload)
        signature = yield from p256.sign(self._private_sign, message, random)
        return cose.assemble(protected, payload, signature)

    def enrol(self, signed: bytes) -> bytes:
        """Stores the credential; its digest. The same bytes again are no error: the answer may have been lost.

        Raises AlreadyEnrolled, CredentialRefused, OSError.
        """
        digest = credential.digest(signed)
        if self.board is not None:
            if digest != self.credential_digest:
                raise AlreadyEnrolled("this board is %s already" % self.board)
            return digest
        self._check(signed)
        self._credential.save(signed)
        self._take_credential(signed)
        return digest

    def _check(self, signed: bytes) -> str:
        try:
            claims = credential.credential_of(cose.parse(signed, credential.MAX_CREDENTIAL_BYTES).payload)
        except WireError as why:
            raise CredentialRefused(str(why))
        # No check of the signature here: a new board knows nobody yet. Gateways and platform check it.
        if claims.sign_key != self.sign_key or claims.agree_key != self.agree_key:
            raise CredentialRefused("it names other keys")
        return claims.board

    def _take_credential(self, signed: bytes) -> None:
        self.board = self._check(signed)
        self.credential_digest = credential.digest(signed)
