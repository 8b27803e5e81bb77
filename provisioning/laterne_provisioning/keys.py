"""Where the authority's private keys live: one URI for each key, opened through securesystemslib.

`file2:PATH` is a PEM file (PKCS#8, encrypted unless the operator declined); a path that is not absolute is
within the authority directory. Every other scheme that securesystemslib knows (`hsm:` for PKCS#11, the key
services of the clouds) is handed to it as it stands in authority.toml.

No private key leaves its place: what is asked for is a signature.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey  # type: ignore[attr-defined]  # its __all__ is missing

from laterne_provisioning import files, pkcs8, primitives
from laterne_provisioning.errors import OperatorError, UsageError

MAX_PASSPHRASE_BYTES = 1024
STOPPED = 130  # the exit code of what Ctrl-C has ended: 128 + SIGINT, as shells count
_FILE = "file2:"

AskSecret = Callable[[str], str]
"""Given what is wanted ("passphrase of the enrolment key", "pin"), the secret."""


class Secrets:
    """The passphrase of this run: from a file or from the person at the terminal, never from an argument."""

    def __init__(self, passphrase_file: Path | None = None) -> None:
        self._file = passphrase_file
        self._known: str | None = None

    def ask(self, what: str) -> str:
        """The passphrase. It is asked for once in a run. Raises UsageError: no terminal and no file."""
        if self._known is None:
            self._known = self._from_file() if self._file is not None else self._from_terminal(what, False)
        return self._known

    def choose(self, what: str) -> str:
        """A new passphrase, typed twice. Raises UsageError as ask() does."""
        if self._known is None:
            self._known = self._from_file() if self._file is not None else self._from_terminal(what, True)
        return self._known

    def _from_file(self) -> str:
        assert self._file is not None
        try:
            with self._file.open("rb") as file:
                content = file.read(MAX_PASSPHRASE_BYTES + 1)
            passphrase = content.decode().rstrip("\r\n")
        except OSError as why:
            raise UsageError(f"The passphrase file cannot be read: {why.strerror}: {self._file}") from why
        except UnicodeDecodeError as why:
            raise UsageError(f"The passphrase file is not text in UTF-8: {self._file}") from why
        if not passphrase or len(content) > MAX_PASSPHRASE_BYTES:
            raise UsageError(
                f"The passphrase file holds no passphrase of 1 to {MAX_PASSPHRASE_BYTES} bytes: {self._file}"
            )
        return passphrase

    def _from_terminal(self, what: str, twice: bool) -> str:
        if not sys.stdin.isatty():
            raise UsageError(
                f"The {what} is needed and there is no terminal to ask at: give --passphrase-file FILE"
                + (", or --no-passphrase for keys that are not encrypted." if twice else ".")
            )
        try:
            return str(typer.prompt(what.capitalize(), hide_input=True, confirmation_prompt=twice, err=True))
        except typer.Abort as why:  # Ctrl-C or the end of input
            raise typer.Exit(STOPPED) from why


def make_key_file(path: Path, passphrase: str | None) -> bytes:
    """A new P-256 key in a new file (0600). Its public key, 64 bytes. Raises FileExistsError, OSError."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = pkcs8.plain_pem(private) if passphrase is None else pkcs8.encrypted_pem(private, passphrase.encode())
    files.write_private(path, pem)
    return primitives.raw_key(private.public_key())


def file_uri(path: Path) -> str:
    """The URI of a key file; the path is relative to the authority directory."""
    return _FILE + path.as_posix()


class SigningKey:
    """A private key that can be asked for signatures, wherever it lives.

    name: for messages, such as "enrolment key". uri: where it lives. public: what it must be, 64 bytes.
    directory: of the authority.
    """

    def __init__(self, name: str, uri: str, public: bytes, directory: Path, ask_secret: AskSecret) -> None:
        self.name = name
        self.uri = uri
        self.public = public
        self._directory = directory
        self._ask_secret = ask_secret
        self._signer: Signer | None = None

    def open(self) -> None:
        """Ask for what is needed now, so that nothing is begun with a key that cannot be used. Raises OperatorError."""
        if self._signer is None:
            self._signer = self._opened()

    def sign(self, message: bytes) -> bytes:
        """r and s, 64 bytes, low s, over SHA-256 of the message. Raises OperatorError."""
        self.open()
        assert self._signer is not None
        try:
            der = bytes.fromhex(self._signer.sign(message).signature)
            signature = primitives.raw_signature(der)
        except (SigningError, ValueError, OSError) as why:
            raise OperatorError(f"The {self.name} ({self.uri}) did not sign: {why}") from why
        # A token can hold another key than the one the configuration names.
        if not primitives.is_signature(self.public, message, signature):
            raise OperatorError(
                f"The {self.name} ({self.uri}) has signed, but it is not the key whose public part stands in "
                "authority.toml: correct its uri there."
            )
        return signature

    def _opened(self) -> Signer:
        public = SSlibKey.from_crypto(primitives.public_key(self.public))
        if self.uri.startswith(_FILE):
            return CryptoSigner(self._from_file(self._directory / self.uri.removeprefix(_FILE)), public)
        try:
            return Signer.from_priv_key_uri(self.uri, public, self._ask_secret)
        except (SigningError, ValueError, OSError) as why:
            raise UsageError(f"The {self.name} ({self.uri}) cannot be opened: {why}") from why

    def _from_file(self, path: Path) -> ec.EllipticCurvePrivateKey:
        # securesystemslib's own loader for file2 reads only keys that are not encrypted.
        try:
            content = path.read_bytes()
        except OSError as why:
            raise UsageError(
                f"The {self.name} cannot be read: {why.strerror}: {path}. "
                "Bring the medium with the key, or correct its uri in authority.toml."
            ) from why
        encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in content
        passphrase = self._ask_secret(f"passphrase of the {self.name}").encode() if encrypted else None
        try:
            private = load_pem_private_key(content, passphrase)
        except (ValueError, TypeError) as why:
            if encrypted:
                raise UsageError(f"The passphrase does not open the {self.name} ({path}): try again.") from why
            raise UsageError(
                f"{path} is no private key in PEM form: bring back the {self.name} from a backup."
            ) from why
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise UsageError(f"{path} is no P-256 key: correct the uri of the {self.name} in authority.toml.")
        if primitives.raw_key(private.public_key()) != self.public:
            raise UsageError(
                f"{path} is another key than the {self.name} whose public part stands in authority.toml: "
                "correct the uri there."
            )
        return private
