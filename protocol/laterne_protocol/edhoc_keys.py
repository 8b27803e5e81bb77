"""What EDHOC computes: transcript hashes, keys and MACs of method 3 with P-256 and SHA-256 (RFC 9528, 4 and 5).

Both roles derive the same values in the same order, so the key schedule stands here once. Who sends what and when,
and what is refused, is the business of `edhoc` (protocol/README.md, 9). The primitives are passed in; those that take
long on a board are step generators: they yield while they work and return their result.
"""

from hashlib import sha256

from laterne_protocol import cbor, public_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Steps = Generator[None, None, bytes]
    KeySteps = Generator[None, None, tuple[bytes, bytes]]

METHOD = 3  # RFC 9528, 3.2: both sides authenticate with static Diffie-Hellman keys
POINT_BYTES = 32  # of an x-coordinate, all that is sent of an ephemeral key

# RFC 9528, 4.1.2 and 4.2.1: labels of EDHOC_KDF.
_KEYSTREAM_2, _SALT_3E2M, MAC_2, _KEY_3 = 0, 1, 2, 3
_SALT_4E3M, MAC_3, _PRK_OUT, _KEY_4, _PRK_EXPORTER = 5, 6, 7, 8, 10
_SECRET_BYTES, _KEY_BYTES, _NONCE_BYTES = 32, 16, 13

_HEADER_KID = 4  # RFC 9052, 3.1


class Suite:
    """A cipher suite (RFC 9528, 3.6) with AES-CCM, SHA-256 and P-256. mac_bytes: length of its MACs and tags."""

    def __init__(self, number: int, mac_bytes: int) -> None:
        self.number = number
        self.mac_bytes = mac_bytes


SUITES = {2: Suite(2, 8), 3: Suite(3, 16)}


class Primitives:
    """The ciphers of one end, collected from wherever it has them.

    make_key(): steps to a new (private key, public key); decompress(x): steps to a public key with this x, either of
    the two; agree(private key, public key): steps to the shared x-coordinate. A private key and an x have 32 bytes, a
    public key 64. hkdf_extract(salt, secret) and hkdf_expand(key, info, length): RFC 5869 with SHA-256.
    ccm_seal and ccm_open(key, nonce, bytes, associated bytes, length of the tag): AES-CCM, the tag at the end.
    decompress, agree and ccm_open raise a ValueError for what a peer got wrong: no point of the curve, not our tag.
    """

    def __init__(
        self,
        make_key: "Callable[[], KeySteps]",
        decompress: "Callable[[bytes], Steps]",
        agree: "Callable[[bytes, bytes], Steps]",
        hkdf_extract: "Callable[[bytes, bytes], bytes]",
        hkdf_expand: "Callable[[bytes, bytes, int], bytes]",
        ccm_seal: "Callable[[bytes, bytes, bytes, bytes, int], bytes]",
        ccm_open: "Callable[[bytes, bytes, bytes, bytes, int], bytes]",
    ) -> None:
        self.make_key = make_key
        self.decompress = decompress
        self.agree = agree
        self.hkdf_extract = hkdf_extract
        self.hkdf_expand = hkdf_expand
        self.ccm_seal = ccm_seal
        self.ccm_open = ccm_open


class Party:
    """Who takes part: kid of the agreement key, its credential CRED_x byte for byte, the key itself (64 bytes)."""

    def __init__(self, kid: bytes, ccs: bytes, public_key: bytes) -> None:
        self.kid = kid
        self.ccs = ccs
        self.public_key = public_key


def party(subject: str, public_key: bytes) -> Party:
    """The party with this id and agreement key, as both ends write it down (protocol/README.md, 9.2).

    The credential is a CCS (RFC 8392 claims, not signed): what binds the key to the id is the signed roster or
    credential in which the caller found both.
    """
    kid = public_keys.kid(public_key)
    return Party(kid, ccs(subject, kid, public_key), public_key)


def ccs(subject: str, kid: bytes, public_key: bytes) -> bytes:
    """CRED_x: the CWT claims set {sub, cnf: {COSE_Key with its kid}}, deterministic."""
    key = public_keys.cose_key(public_key)
    key[2] = kid
    return cbor.encode({2: subject, 8: {1: key}})


def byte_identifier(name: bytes) -> bytes:
    """RFC 9528, 3.3.2: a byte string that looks like a one-byte CBOR integer is sent as that integer."""
    if len(name) == 1 and (name[0] < 0x18 or 0x20 <= name[0] < 0x38):
        return name
    return cbor.encode(name)


def equal(left: bytes, right: bytes) -> bool:
    """Whether two byte strings are equal, in a time that does not say where they differ."""
    difference = len(left) ^ len(right)
    for a, b in zip(left, right):  # noqa: B905 - MicroPython's zip has no `strict`; lengths are compared above
        difference |= a ^ b
    return difference == 0


def kdf(primitives: Primitives, secret: bytes, label: int, context: bytes, size: int) -> bytes:
    """RFC 9528, 4.1.2: EDHOC_KDF. The exporter (4.2.1) is the same function of another secret."""
    info = cbor.encode(label) + cbor.encode(context) + cbor.encode(size)
    return primitives.hkdf_expand(secret, info, size)


class KeySchedule:
    """The secrets of one handshake, from message_1 on. The calls follow the messages; each is made once, in order:

    begin (message_2 is being made or read) - authenticate_responder - mac(MAC_2) - advance (TH_3) -
    authenticate_initiator - mac(MAC_3) - advance (TH_4) - seal_4 or open_4 - exporter_secret;
    seal_3 or open_3 anywhere between TH_3 and TH_4.
    """

    def __init__(self, primitives: Primitives, suite: Suite, message_1: bytes) -> None:
        self._primitives = primitives
        self._suite = suite
        self._transcript = sha256(message_1).digest()  # H(message_1), then TH_2, TH_3, TH_4
        self._prk_2e = b""
        self._prk_3e2m = b""
        self._prk_4e3m = b""

    def begin(self, g_y: bytes, g_xy: bytes) -> None:
        """TH_2 and PRK_2e (5.3.2, 4.1.1.1)."""
        self._transcript = sha256(cbor.encode(g_y) + cbor.encode(self._transcript)).digest()
        self._prk_2e = self._primitives.hkdf_extract(self._transcript, g_xy)

    def cipher_2(self, text: bytes) -> bytes:
        """PLAINTEXT_2 to CIPHERTEXT_2 and back: xor with KEYSTREAM_2 (5.3.2)."""
        stream = self._derive(self._prk_2e, _KEYSTREAM_2, len(text))
        return bytes([a ^ b for a, b in zip(text, stream)])  # noqa: B905 - equally long by construction

    def authenticate_responder(self, g_rx: bytes) -> None:
        """PRK_3e2m (4.1.1.2)."""
        salt = self._derive(self._prk_2e, _SALT_3E2M, _SECRET_BYTES)
        self._prk_3e2m = self._primitives.hkdf_extract(salt, g_rx)

    def authenticate_initiator(self, g_iy: bytes) -> None:
        """PRK_4e3m (4.1.1.3)."""
        salt = self._derive(self._prk_3e2m, _SALT_4E3M, _SECRET_BYTES)
        self._prk_4e3m = self._primitives.hkdf_extract(salt, g_iy)

    def mac(self, label: int, head: bytes, who: Party, ead: bytes) -> bytes:
        """MAC_2 or MAC_3 over context_2 or context_3 (5.3.2, 5.4.2). head: C_R as it is sent, empty for MAC_3."""
        # The full map here, while the bare kid is sent.
        header = cbor.encode({_HEADER_KID: who.kid})
        context = head + header + cbor.encode(self._transcript) + who.ccs + ead
        secret = self._prk_3e2m if label == MAC_2 else self._prk_4e3m
        return kdf(self._primitives, secret, label, context, self._suite.mac_bytes)

    def advance(self, plaintext: bytes, ccs: bytes) -> None:
        """TH_3 from PLAINTEXT_2 and CRED_R, TH_4 from PLAINTEXT_3 and CRED_I (5.4.2)."""
        self._transcript = sha256(cbor.encode(self._transcript) + plaintext + ccs).digest()

    def seal_3(self, plaintext: bytes) -> bytes:
        """CIPHERTEXT_3."""
        return self._seal(self._prk_3e2m, _KEY_3, plaintext)

    def open_3(self, ciphertext: bytes) -> bytes:
        """PLAINTEXT_3; a ValueError of the primitive if the tag is wrong."""
        return self._open(self._prk_3e2m, _KEY_3, ciphertext)

    def seal_4(self, plaintext: bytes) -> bytes:
        """CIPHERTEXT_4."""
        return self._seal(self._prk_4e3m, _KEY_4, plaintext)

    def open_4(self, ciphertext: bytes) -> bytes:
        """PLAINTEXT_4; a ValueError of the primitive if the tag is wrong."""
        return self._open(self._prk_4e3m, _KEY_4, ciphertext)

    def exporter_secret(self) -> bytes:
        """PRK_exporter (4.2.1). PRK_out is not kept: it would serve key updates only, and we shake hands again."""
        prk_out = self._derive(self._prk_4e3m, _PRK_OUT, _SECRET_BYTES)
        return kdf(self._primitives, prk_out, _PRK_EXPORTER, b"", _SECRET_BYTES)

    def _derive(self, secret: bytes, label: int, size: int) -> bytes:
        return kdf(self._primitives, secret, label, self._transcript, size)

    def _seal(self, secret: bytes, label: int, plaintext: bytes) -> bytes:
        key, nonce, associated = self._aead(secret, label)
        return self._primitives.ccm_seal(key, nonce, plaintext, associated, self._suite.mac_bytes)

    def _open(self, secret: bytes, label: int, ciphertext: bytes) -> bytes:
        key, nonce, associated = self._aead(secret, label)
        return self._primitives.ccm_open(key, nonce, ciphertext, associated, self._suite.mac_bytes)

    def _aead(self, secret: bytes, label: int) -> "tuple[bytes, bytes, bytes]":
        # The IV's label follows the key's: 3 and 4, 8 and 9. The associated data is an Enc_structure (RFC 9052, 5.3).
        return (
            self._derive(secret, label, _KEY_BYTES),
            self._derive(secret, label + 1, _NONCE_BYTES),
            cbor.encode(["Encrypt0", b"", self._transcript]),
        )
