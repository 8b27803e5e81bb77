"""Who this board is: two key pairs that never leave it, and the name that a credential gave it.

On flash are three records: the keys, the credential as received, and what a running board needs of it. `recovery`
reads them at a start, `enrolment` writes them. A fourth holds the trust: whom this board believes. `executed` replaces
all three at once when keys are rotated, and keeps the former agreement key for a while.
"""

from laterne_firmware.memory import unload
from laterne_firmware.store import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

DIRECTORY = "/k"
KEYS = "/k/keys"  # two private keys of 32 bytes, two public ones of 64, the kid of the first
CREDENTIAL = "/k/credential"
NAME = "/k/name"  # kid, board id, digest of the credential
_ARITHMETIC = (
    "laterne_firmware.p256_peer",
    "laterne_firmware.p256_keys",
    "laterne_firmware.p256",
    "laterne_firmware.p256_scalars",
    "laterne_firmware.p256_points",
    "laterne_firmware.p256_table",
    "laterne_protocol.cose_writing",
)
TRUST = "/k/trust"  # the payload of the trust, as its roots signed it
ORDER = "/k/order"  # the order that was executed last, and its receipt
FORMER = "/k/former"  # private and public agreement key before a rotation, until a gateway has accepted the present one


class Identity:
    """board: its id, or None before enrolment. kid: of its signing key, or None before it has keys.

    sign_key, agree_key: public keys, 64 bytes each. credential_digest: what its first report names as predecessor.
    former_agree_key: empty, or that of FORMER. silent: out of service, nothing can be signed any more.
    release: digest of the release that runs, 16 bytes, or empty. trial: whether it is only tried. rescue: whether it is
    the rescue that runs, which makes no reports (README.md, "Two slots"), or a release whose flash has refused.
    """

    def __init__(self) -> None:
        self._private = b""
        self.sign_key = b""
        self.agree_key = b""
        self.kid = None  # type: bytes | None
        self.board = None  # type: str | None
        self.credential_digest = b""
        self.former_agree_key = b""
        self.silent = False
        self.rescue = False
        self.trial = False
        self.release = b""

    def take_keys(self, keys: bytes) -> None:
        """Private and public signing key, private and public agreement key, kid, as they stand on flash."""
        self._private = keys[:32]
        self.sign_key = keys[32:96]
        self.agree_key = keys[128:192]
        self.kid = keys[192:]

    def silence(self) -> None:
        """From now on nothing is signed. On flash the key is erased elsewhere (`executed`)."""
        self._private = b""
        self.silent = True

    def agree_private(self, former: bool) -> bytes:
        """The private agreement key, or the former one, 32 bytes: in memory for a handshake only. OSError when flash
        has lost it."""
        keys = Record(FORMER if former else KEYS).load()
        if keys is None:
            raise OSError("the keys on flash cannot be read any more")
        return keys[:32] if former else keys[96:128]

    def sign(self, domain: str, payload: bytes, random: "Callable[[int], bytes]") -> "Generator[None, None, bytes]":
        """The COSE_Sign1 of a payload under this board's key, in steps."""
        # Not in memory while something else is worked at that takes much (`supervisor.stepping`).
        from laterne_firmware import p256
        from laterne_protocol import cose_writing

        protected = cose_writing.protected_header(self.kid or b"")
        message = cose_writing.to_be_signed(domain, protected, payload)
        signature = yield from p256.sign(self._private, message, random)
        return cose_writing.assemble(protected, payload, signature)


def unload_arithmetic() -> None:
    """What signing, verifying and agreeing need leaves memory, until somebody does that again."""
    unload(*_ARITHMETIC)
