"""Where the authority's private keys live: one URI for each key, opened through securesystemslib.

`file2:PATH` is a PEM file (PKCS#8, encrypted unless the operator declined); a path that is not absolute is
within the authority directory. Every other scheme that securesystemslib knows (`hsm:` for PKCS#11, the key
services of the clouds) is handed to it as it stands in authority.toml.

No private key leaves its place: what is asked for is a signature. Passphrases and PINs come from a file or from the
person at the terminal, never from an argument.
"""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import Error as SigningError

from laterne_provisioning import audit, files, hsm, output, pkcs8, primitives
from laterne_provisioning.errors import STOPPED, OperatorError, UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # its __all__ is missing

MAX_PASSPHRASE_BYTES = 1024
_FILE = "file2:"

# Signed to see whether the key is there and answers. No object of ours begins so: they are CBOR arrays.
_TRIAL = b"laterne: a trial of this key, which says nothing"


class Secrets:
    """The passphrase of the key files and the PIN of the token, each asked for once in a run.

    known: a passphrase that is known already (of keys that are just being made); "" when they have none.
    """

    def __init__(
        self, passphrase_file: Path | None = None, pin_file: Path | None = None, known: str | None = None
    ) -> None:
        self._passphrase_file = passphrase_file
        self._pin_file = pin_file
        self._passphrase = known
        self._pin: str | None = None

    def ask(self, what: str) -> str:
        """The passphrase. Raises UsageError: no terminal and no file."""
        if self._passphrase is None:
            self._passphrase = _secret(what, self._passphrase_file, "passphrase", False)
        return self._passphrase

    def choose(self, what: str) -> str:
        """A new passphrase, typed twice. Raises UsageError as ask() does."""
        if self._passphrase is None:
            self._passphrase = _secret(what, self._passphrase_file, "passphrase", True)
        return self._passphrase

    def pin(self, what: str) -> str:
        """The PIN of the token. Raises UsageError as ask() does."""
        if self._pin is None:
            self._pin = _secret(what, self._pin_file, "PIN", False)
        return self._pin


def _secret(what: str, file: Path | None, kind: str, twice: bool) -> str:
    return _from_terminal(what, kind, twice) if file is None else _from_file(file, kind)


def _from_file(path: Path, kind: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PASSPHRASE_BYTES + 1)
        secret = content.decode().rstrip("\r\n")
    except OSError as why:
        raise UsageError(f"The {kind} file cannot be read: {why.strerror}: {path}") from why
    except UnicodeDecodeError as why:
        raise UsageError(f"The {kind} file is not text in UTF-8: {path}") from why
    if not secret or len(content) > MAX_PASSPHRASE_BYTES:
        raise UsageError(f"The {kind} file holds no {kind} of 1 to {MAX_PASSPHRASE_BYTES} bytes: {path}")
    return secret


def _from_terminal(what: str, kind: str, twice: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"The {what} is needed and there is no terminal to ask at: give --{kind.lower()}-file FILE"
            + (", or --no-passphrase for keys that are not encrypted." if twice else ".")
        )
    try:
        with output.still():
            return str(typer.prompt(what[0].upper() + what[1:], hide_input=True, confirmation_prompt=twice, err=True))
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

    def __init__(self, name: str, uri: str, public: bytes, directory: Path, secrets: Secrets) -> None:
        self.name = name
        self.uri = uri
        self.public = public
        self.log: audit.Log | None = None  # where each signature of an object is written down before it is made
        self._directory = directory
        self._secrets = secrets
        self._signer: Signer | None = None
        self._turn = threading.RLock()  # a token has one login: one signature at a time

    def open(self) -> None:
        """Ask for what is needed now, so that nothing is begun with a key that cannot be used. Raises OperatorError."""
        with self._turn:
            if self._signer is None:
                self._signer = self._opened()
                if not self.uri.startswith(_FILE):
                    # Only a signature shows that the token is there, the PIN right and the key the one we mean.
                    try:
                        self.sign(_TRIAL)
                    except OperatorError:
                        self._signer = None
                        raise

    def sign(self, message: bytes) -> bytes:
        """r and s, 64 bytes, low s, over SHA-256 of the message. Raises OperatorError."""
        self.open()
        assert self._signer is not None
        try:
            with self._turn:
                der = bytes.fromhex(self._signer.sign(message).signature)
            signature = primitives.raw_signature(der)
        except (SigningError, ValueError, OSError, RuntimeError) as why:
            # RuntimeError is the base of all that python-pkcs11 raises.
            raise OperatorError(f"The {self.name} ({self.uri}) did not sign: {self._said(why)}.") from why
        # A token can hold another key than the one the configuration names.
        if not primitives.is_signature(self.public, message, signature):
            raise OperatorError(
                f"The {self.name} ({self.uri}) has signed, but it is not the key whose public part stands in "
                "authority.toml: correct its uri there."
            )
        return signature

    def _opened(self) -> "Signer":
        # Every kind of key store comes with it: only for commands that sign.
        from securesystemslib.signer import CryptoSigner, Signer, SSlibKey  # type: ignore[attr-defined]  # its __all__ is missing

        public = SSlibKey.from_crypto(primitives.public_key(self.public))
        if self.uri.startswith(_FILE):
            return CryptoSigner(self._from_file(self._directory / self.uri.removeprefix(_FILE)), public)
        try:
            return Signer.from_priv_key_uri(self.uri, public, lambda _: self._secrets.pin(f"PIN of the {self.name}"))
        except (SigningError, ValueError, OSError) as why:
            raise UsageError(f"The {self.name} ({self.uri}) cannot be opened: {self._said(why)}.") from why

    def _said(self, why: Exception) -> str:
        return hsm.sentence(why) if self.uri.startswith(hsm.SCHEME) else str(why)

    def _from_file(self, path: Path) -> ec.EllipticCurvePrivateKey:
        private = _read(path, self.name, self._secrets)
        if primitives.raw_key(private.public_key()) != self.public:
            raise UsageError(
                f"{path} is another key than the {self.name} whose public part stands in authority.toml: "
                "correct the uri there."
            )
        return private


def public_key(uri: str, name: str, directory: Path, secrets: Secrets) -> bytes:
    """The public part, 64 bytes, of a key that is there already: a file or in a token. Raises UsageError."""
    if uri.startswith(_FILE):
        return primitives.raw_key(_read(directory / uri.removeprefix(_FILE), name, secrets).public_key())
    if uri.startswith(hsm.SCHEME):
        return hsm.public_key(uri, lambda _: secrets.pin(f"PIN of the {name}"))
    raise UsageError(
        f"{uri!r} is no place where a key that is there already can be found: give file2:PATH or hsm:KEYID?label=TOKEN."
    )


def _read(path: Path, name: str, secrets: Secrets) -> ec.EllipticCurvePrivateKey:
    # securesystemslib's own loader for file2 reads only keys that are not encrypted.
    try:
        content = path.read_bytes()
    except OSError as why:
        raise UsageError(
            f"The {name} cannot be read: {why.strerror}: {path}. "
            "Bring the medium with the key, or correct its uri in authority.toml."
        ) from why
    encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in content
    passphrase = secrets.ask(f"passphrase of the {name}").encode() if encrypted else None
    try:
        private = load_pem_private_key(content, passphrase)
    except (ValueError, TypeError) as why:
        if encrypted:
            raise UsageError(f"The passphrase does not open the {name} ({path}): try again.") from why
        raise UsageError(f"{path} is no private key in PEM form: bring back the {name} from a backup.") from why
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise UsageError(f"{path} is no P-256 key: correct the uri of the {name} in authority.toml.")
    return private
