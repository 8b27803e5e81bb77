"""The authority: the operator's directory with the keys by reference, the trust file and the registry.

    authority.toml   its name; for each key its role, its public part and the URI where the private part lives
    trust.cbor       the public keys by role, signed by the roots (protocol/README.md, 8): public, copy it anywhere
    trust-N.cbor     what trust.cbor was in version N: for whoever has missed a rotation of the roots
    registry.db      boards, posts, rosters (registry.py)
    audit.log        what was done with it, one line for each act (audit.py)
    keys/*.pem       private keys, as far as they live in files

A directory is an authority when it has its name: it is built beside and renamed at the end (building.py).
"""

import hashlib
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from laterne_protocol import cose, credential, fields, trust
from laterne_protocol.errors import ObjectError, WireError
from laterne_provisioning import audit, building, files, keys, primitives, registry
from laterne_provisioning.errors import UsageError

ROTATION: Final = "rotation"  # what the next trust file brings, complete and on its way to its place (rotation.py)
CONFIGURATION, TRUST_FILE, REGISTRY, KEYS = "authority.toml", "trust.cbor", "registry.db", "keys"
FORMER_TRUST_FILES: Final = "trust-*.cbor"
ROOT: Final = "root"
ROOTS = 3
THRESHOLD = 2
MAX_CONFIGURATION_BYTES = 65536


@dataclass(frozen=True)
class KeyPlace:
    """One key in authority.toml. role: root or one of trust.ROLES. public: 64 bytes. uri: where the private part is."""

    role: str
    public: bytes
    uri: str


@dataclass(frozen=True)
class Authority:
    """An authority that has been opened. trust_file: the bytes of trust.cbor, whose signatures have been checked."""

    directory: Path
    name: str
    places: tuple[KeyPlace, ...]
    trusted: trust.Trust
    trust_file: bytes

    def signing_key(self, role: str, secrets: keys.Secrets) -> keys.SigningKey:
        """The first key of a role. Raises UsageError: there is none."""
        for place in self.places:
            if place.role == role:
                key = keys.SigningKey(f"{role} key", place.uri, place.public, self.directory, secrets)
                key.log = self.log
                return key
        raise UsageError(f"{self.directory / CONFIGURATION} names no {role} key: add it there.")

    def registry(self) -> registry.Registry:
        """The registry, opened. Raises UsageError: not there or not readable."""
        return registry.Registry(self.directory / REGISTRY)

    @property
    def log(self) -> audit.Log:
        """The audit log."""
        return audit.Log(self.directory / audit.LOG)

    def sign_log(self, key: keys.SigningKey, every: int = 0) -> bytes:
        """Sign the audit log with a key of audit.SIGNERS; the COSE_Sign1.

        every: only when as many records are not signed yet; else nothing is done and b"" returned.
        Raises OperatorError: the key or the disk failed.
        """
        key.open()
        if every and self.log.since_signature() < every:
            return b""
        role = next(place.role for place in self.places if place.public == key.public)
        return self.log.sign(
            self.name, role, credential.kid(key.public), lambda payload: _object(key, audit.DOMAIN, payload)
        )


def sign_object(key: keys.SigningKey, domain: str, payload: bytes) -> bytes:
    """The COSE_Sign1 of a payload, written down in the key's audit log before. Raises OperatorError: not signed."""
    if key.log is not None:
        key.log.append(
            audit.KEY_USE,
            key.name,
            {
                "kid": credential.kid(key.public).hex(),
                "domain": domain,
                "payload": hashlib.sha256(payload).hexdigest(),
            },
        )
    return _object(key, domain, payload)


def trust_details(trusted: trust.Trust) -> dict[str, audit.Json]:
    """What a record of a new trust file says, so that former signatures over the log stay verifiable."""
    return {
        "version": trusted.version,
        "keys": {role: [key.hex() for key in trusted.keys[role]] for role in audit.SIGNERS},
        "roots": [credential.kid(root).hex() for root in trusted.roots],
    }


def _object(key: keys.SigningKey, domain: str, payload: bytes) -> bytes:
    protected = cose.protected_header(credential.kid(key.public))
    return cose.assemble(protected, payload, key.sign(cose.to_be_signed(domain, protected, payload)))


def create(
    directory: Path,
    name: str,
    passphrase: str | None,
    there: Sequence[tuple[str, str]] = (),
    secrets: keys.Secrets | None = None,
    release_keys: tuple[int, int] = (1, 1),
) -> Authority:
    """A new authority with three roots (two must sign) and one key for each other role.

    directory: not there, or empty. name: 1..64 bytes, goes into every credential. passphrase: None for key files that
    are not encrypted. there: (role, URI) of keys that are there already, such as in a token; the others are made in
    files. secrets: for those that are there. release_keys: how many, and how many of them must sign a release.
    Raises UsageError, OperatorError; then the directory is as it was before.
    """
    try:
        fields.text(name, "name", credential.MAX_AUTHORITY_BYTES)
    except ObjectError as why:
        raise UsageError(f"The authority's {why}: give it with --name.") from why
    for role, uri in there:
        if uri.startswith("file2:") and not uri.startswith("file2:/"):
            raise UsageError(f"The {role} key {uri} must be named from the slash on: the authority is not there yet.")
    secrets = secrets or keys.Secrets(known=passphrase or "")
    found = [KeyPlace(role, keys.public_key(uri, f"{role} key", Path.cwd(), secrets), uri) for role, uri in there]
    directory = directory.resolve()
    with building.built(directory) as place:
        _fill(place, name, passphrase, found, secrets, release_keys)
    return open_authority(directory)


def open_authority(directory: Path) -> Authority:
    """The authority in this directory, its trust file checked. Raises UsageError."""
    path = directory / CONFIGURATION
    _finish_rotation(directory)
    if not path.is_file():
        raise UsageError(f"There is no authority in {directory}: make one with `laterne init {directory}`.")
    name, places = _configuration(path)
    data, trusted = read_trust(directory / TRUST_FILE)
    for place in places:
        known = trusted.roots if place.role == ROOT else trusted.keys[place.role]
        if place.public not in known:
            raise UsageError(
                f"{path} names a {place.role} key (kid {credential.kid(place.public).hex()}) that {TRUST_FILE} "
                "does not name: nobody would believe what it signs. Correct its public part."
            )
    if trusted.authority != name:
        raise UsageError(f"{path} is of {name!r} and {TRUST_FILE} of {trusted.authority!r}: bring back the right one.")
    return Authority(directory.resolve(), name, places, trusted, data)


def read_trust(path: Path) -> tuple[bytes, trust.Trust]:
    """A trust file's bytes and what is in it, signed by enough of its roots. Raises UsageError."""
    try:
        with path.open("rb") as file:
            data = file.read(trust.MAX_TRUST_BYTES + 1)
        return data, trust.trust_of(data, primitives.is_signature)
    except OSError as why:
        raise UsageError(f"The trust file cannot be read: {why.strerror}: {path}") from why
    except WireError as why:
        raise UsageError(f"{path} is no trust file that can be believed: {why}. Fetch it again.") from why


def _finish_rotation(directory: Path) -> None:
    """Move what a rotation has made to its place; a rotation that was interrupted after it counted is finished so."""
    made = directory / ROTATION
    if not made.is_dir():
        return
    try:
        for path in sorted((made / KEYS).glob("*")):
            path.rename(directory / KEYS / path.name)
        files.sync_directory(directory / KEYS)
        for path in (*sorted(made.glob(FORMER_TRUST_FILES)), made / TRUST_FILE, made / CONFIGURATION):
            if path.exists():
                path.replace(directory / path.name)
        files.sync_directory(directory)
        shutil.rmtree(made)
        files.sync_directory(directory)
    except OSError as why:
        raise UsageError(
            f"{directory} has new keys that cannot be moved to their place: {why.strerror}. Repeat the command."
        ) from why


def _fill(
    directory: Path,
    name: str,
    passphrase: str | None,
    there: list[KeyPlace],
    secrets: keys.Secrets,
    release_keys: tuple[int, int],
) -> None:
    (directory / KEYS).mkdir(mode=files.PRIVATE_DIRECTORY)
    names = [(ROOT, f"{ROOT}-{number}") for number in range(1, ROOTS + 1)] + [(role, role) for role in trust.ROLES]
    names += [(trust.RELEASE, f"{trust.RELEASE}-{number}") for number in range(2, release_keys[0] + 1)]
    waiting = list(there)
    places = []
    for role, stem in names:
        place = next((place for place in waiting if place.role == role), None)
        if place is not None:
            waiting.remove(place)
        else:
            path = Path(KEYS) / f"{stem}.pem"
            place = KeyPlace(role, keys.make_key_file(directory / path, passphrase), keys.file_uri(path))
        places.append(place)
    if waiting:
        raise UsageError(
            f"--key {waiting[0].role} was given too often: there are {ROOTS} roots, {release_keys[0]} release keys "
            "(--release-keys) and one key for each other role."
        )
    roots = [place for place in places if place.role == ROOT]
    payload = trust.Trust(
        1,
        name,
        THRESHOLD,
        [place.public for place in roots],
        {role: [place.public for place in places if place.role == role] for role in trust.ROLES},
        release_keys[1],
    ).to_payload()
    try:
        trust.trust_payload_of(payload)
    except ObjectError as why:
        raise UsageError(f"These keys make no authority: {why}. Give each role a key of its own.") from why
    signed = [
        sign_object(keys.SigningKey("root key", place.uri, place.public, directory, secrets), cose.TRUST, payload)
        for place in roots
    ]
    registry.create(directory / REGISTRY)
    files.write_public(directory / TRUST_FILE, trust.trust_file(signed))
    files.write_private(directory / CONFIGURATION, configuration_text(name, places).encode())
    audit.create(directory / audit.LOG)
    made = Authority(directory, name, tuple(places), trust.trust_payload_of(payload), trust.trust_file(signed))
    made.log.append(audit.INIT, name, trust_details(made.trusted))
    made.sign_log(made.signing_key(trust.ENROLMENT, secrets))


def configuration_text(name: str, places: Sequence[KeyPlace]) -> str:
    """The text of authority.toml."""
    parts = [
        "# Where the keys of this authority live (provisioning/README.md). Nothing here is secret.\n"
        "# A uri is one of securesystemslib's: file2:PATH, PATH within this directory unless it begins with a slash;\n"
        "# hsm:KEYID?label=TOKEN for a key in a token.\n"
        f"name = {_quoted(name)}\n"
    ]
    for place in places:
        parts.append(
            f"\n[[key]]\nrole = {_quoted(place.role)}\npublic = {_quoted(place.public.hex())}"
            f"\nuri = {_quoted(place.uri)}\n"
        )
    return "".join(parts)


def _quoted(text: str) -> str:
    # TOML 1.0, "String": backslash, quotation mark and control characters are escaped.
    return '"' + "".join(f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 32 or ord(c) == 127 else c for c in text) + '"'


def _configuration(path: Path) -> tuple[str, tuple[KeyPlace, ...]]:
    try:
        with path.open("rb") as file:
            content = tomllib.loads(file.read(MAX_CONFIGURATION_BYTES).decode())
    except OSError as why:
        raise UsageError(f"{path} cannot be read: {why.strerror}.") from why
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as why:
        raise UsageError(f"{path} is no TOML: {why}.") from why
    name, items = content.get("name"), content.get("key")
    if content.keys() != {"name", "key"} or not isinstance(name, str) or not isinstance(items, list):
        raise UsageError(f"{path} must hold `name` and [[key]] tables and nothing else.")
    return name, tuple(_place(path, item) for item in items)


def _place(path: Path, item: object) -> KeyPlace:
    if not isinstance(item, dict) or item.keys() != {"role", "public", "uri"}:
        raise UsageError(f"Each [[key]] of {path} must hold role, public and uri and nothing else.")
    role, public, uri = item["role"], item["public"], item["uri"]
    if role not in (ROOT, *trust.ROLES):
        raise UsageError(f"{path}: the role {role!r} is none of {', '.join((ROOT, *trust.ROLES))}.")
    try:
        key = bytes.fromhex(public)
    except (TypeError, ValueError):
        key = b""
    if len(key) != primitives.KEY_BYTES or not primitives.is_point(key):
        raise UsageError(f"{path}: the public part of a {role} key is not the 128 hexadecimal digits of a P-256 key.")
    if not isinstance(uri, str) or ":" not in uri:
        raise UsageError(f"{path}: the uri of a {role} key is no text such as file2:keys/{role}.pem.")
    return KeyPlace(role, key, uri)
