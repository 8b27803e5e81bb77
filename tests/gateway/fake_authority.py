"""An authority in memory: root and roster keys by `cryptography`, and the signed files that a gateway is given."""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from laterne_protocol import cose, credential, gateway_credential, order, roster, trust

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Key:
    """A P-256 key pair. public: 64 bytes x and y."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        numbers = self._private.public_key().public_numbers()
        self.public = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        self.kid = credential.kid(self.public)

    @property
    def secret(self) -> bytes:
        """The private key, 32 bytes."""
        return self._private.private_numbers().private_value.to_bytes(32, "big")

    def pem(self) -> bytes:
        """The private key as `laterne-gateway key` writes it."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, domain: str, payload: bytes) -> bytes:
        """The COSE_Sign1 of a payload under a domain."""
        protected = cose.protected_header(self.kid)
        return cose.assemble(protected, payload, self.signature(cose.to_be_signed(domain, protected, payload)))

    def signature(self, message: bytes) -> bytes:
        """The 64 bytes r and s of a signature over a message."""
        r, s = decode_dss_signature(self._private.sign(message, ec.ECDSA(SHA256())))
        s = min(s, ORDER - s)  # our signatures have the low form
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class FakeAuthority:
    def __init__(self, gateway: str = "gw-1") -> None:
        self.gateway = gateway
        self.roots = [Key(), Key(), Key()]
        self.roster_key = Key()
        self.enrolment_key, self.release_key, self.order_key = Key(), Key(), Key()
        self.release_keys = [self.release_key]
        self.release_threshold = 1
        self._counter = 0

    def trust(self, version: int = 1) -> trust.Trust:
        keys = {
            trust.ENROLMENT: [self.enrolment_key.public],
            trust.RELEASE: [key.public for key in self.release_keys],
            trust.ORDER: [self.order_key.public],
            trust.ROSTER: [self.roster_key.public],
        }
        roots = [key.public for key in self.roots]
        return trust.Trust(version, "Testingen", 2, roots, keys, self.release_threshold)

    def trust_file(self, version: int = 1, signed_by: int = 2) -> bytes:
        """The trust file, signed by so many of the three roots; two are needed."""
        payload = self.trust(version).to_payload()
        return trust.trust_file([key.sign(cose.TRUST, payload) for key in self.roots[:signed_by]])

    def gateway_file(
        self, public: bytes, *, gateway: str | None = None, versions: tuple[int, int] = (1, 10), key: Key | None = None
    ) -> bytes:
        """The credential of a gateway with this agreement key."""
        found = gateway_credential.GatewayCredential(gateway or self.gateway, public, versions, 1_770_000_000)
        return (key or self.roster_key).sign(cose.GATEWAY, found.to_payload())

    def order(
        self,
        board: str,
        kid: bytes,
        action: int,
        argument: bytes | bool | list[bytes | int] | None = None,
        key: Key | None = None,
    ) -> bytes:
        """An order signed by the order key, or by another one; its counter is one more than the last one's."""
        self._counter += 1
        said = order.Order(board, kid, self._counter, action, argument)
        return (key or self.order_key).sign(cose.ORDER, said.to_payload())

    def credential(self, board: str, sign_key: bytes, agree_key: bytes) -> bytes:
        """A board's credential for these keys."""
        claims = credential.Credential(
            "Testingen", board, 1_770_000_000, bytes(8), sign_key, agree_key, 0, "fake", (1, 10)
        )
        return self.enrolment_key.sign(cose.CREDENTIAL, claims.to_payload())

    def roster_file(
        self,
        entries: list[roster.Entry],
        version: int = 1,
        *,
        gateway: str | None = None,
        revoked: list[tuple[str, bytes, str]] | None = None,
        key: Key | None = None,
    ) -> bytes:
        """A roster signed by the roster key, or by another one."""
        found = roster.Roster(gateway or self.gateway, version, 1_770_000_000, entries, revoked or [], None)
        return (key or self.roster_key).sign(cose.ROSTER, found.to_payload())
