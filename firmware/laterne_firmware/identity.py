"""Who this board is: two key pairs that never leave it, and the name that a credential gave it (see enrolment).

On flash are three records: the keys, the credential as received, and what a running board needs of it. The last is
written after the credential: a board that finds a credential without it finishes the enrolment at its start.
"""

from laterne_firmware import p256
from laterne_firmware.store import Record, make_directory
from laterne_protocol import cbor, cose_writing, fields
from laterne_protocol.errors import WireError
from laterne_protocol.report import DIGEST_BYTES, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_KEYS_BYTES = 192 + cose_writing.KID_BYTES  # two private keys of 32, two public ones of 64, the kid of the first


class Identity:
    """board: its id, or None before enrolment. kid: of its signing key, or None before it has keys.

    sign_key, agree_key: public keys, 64 bytes each. credential_digest: what its first report names as predecessor.
    """

    def __init__(self, log: "Callable[[str], None]", directory: str = "/k") -> None:
        make_directory(directory)
        self._log = log
        self._keys = Record(directory + "/keys")
        self._credential = Record(directory + "/credential")
        self._name = Record(directory + "/name")
        self._private = b""
        self.sign_key = b""
        self.agree_key = b""
        self.kid = None  # type: bytes | None
        self.board = None  # type: str | None
        self.credential_digest = b""
        self._load()

    def _load(self) -> None:
        keys = self._keys.load()
        if keys is not None and len(keys) == _KEYS_BYTES:
            self._take(keys)
        elif keys is not None or self._keys.damaged:
            self._log("the keys cannot be read and are set aside: this board must be enrolled again")
            self._keys.set_aside()
        signed = self._credential.load()
        if self.kid is None:
            if signed is not None:
                self._log("a credential without keys is set aside")
                self._credential.set_aside()
            return
        try:
            kid, board, digest_stored = fields.array(cbor.decode(self._name.load() or b"", 128), "name", 3, 3)
            if kid == self.kid:  # else the keys are newer than the name
                self.credential_digest = fields.byte_string(digest_stored, "digest", DIGEST_BYTES)
                self.board = fields.board_id(board)
                return
        except WireError:
            if signed is None:
                return
        if signed is not None:
            self._finish_enrolment(signed)

    def _finish_enrolment(self, signed: bytes) -> None:
        from laterne_firmware import enrolment

        try:
            enrolment.enrol(self, signed)
        except enrolment.CredentialRefused as why:
            self._log("the stored credential is set aside: %s" % why)
            self._credential.set_aside()

    def take_keys(self, keys: bytes, kid: bytes) -> None:
        """Private and public signing key, private and public agreement key; on flash when this returns."""
        self._keys.save(keys + kid)
        self._take(keys + kid)

    def _take(self, keys: bytes) -> None:
        self._private = keys[:32]
        self.sign_key = keys[32:96]
        self.agree_key = keys[128:192]
        self.kid = keys[192:]

    def take_credential(self, signed: bytes, board: str) -> None:
        """A credential that was found to be for these keys; on flash when this returns."""
        self._credential.save(signed)
        self.credential_digest = digest(signed)
        self._name.save(cbor.encode([self.kid, board, self.credential_digest]))
        self.board = board

    def sign(self, domain: str, payload: bytes, random: "Callable[[int], bytes]") -> "Generator[None, None, bytes]":
        """The COSE_Sign1 of a payload under this board's key, in steps."""
        protected = cose_writing.protected_header(self.kid or b"")
        message = cose_writing.to_be_signed(domain, protected, payload)
        signature = yield from p256.sign(self._private, message, random)
        return cose_writing.assemble(protected, payload, signature)
