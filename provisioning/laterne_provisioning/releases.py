"""Releases: built from sources, signed by release keys, judged by a trust (protocol/README.md, 11)."""

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from laterne_protocol import cose, credential, fields, manifest, manifest_writing, release_file, release_index, trust
from laterne_protocol.errors import SignatureError, WireError
from laterne_protocol.release_file import Release, release_of
from laterne_protocol.release_index import Head
from laterne_provisioning import audit, keys, output, primitives
from laterne_provisioning.authority import Authority
from laterne_provisioning.compiling.flat_names import flat, flat_name, flattened
from laterne_provisioning.compiling.mpy import CrossCompiler, abi_of
from laterne_provisioning.compiling.shortening import NotShortened, shortened
from laterne_provisioning.compiling.sources import needed_by
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.firmware_sources import Sources

ENTRY = "laterne_firmware.app"
LOADER = "laterne_firmware.loader"  # chooses the slot; lies in /l with all that it needs, and in no slot
SIGN = "release sign"  # in the audit log


@dataclass(frozen=True)
class Wanted:
    """What the operator says of a release. version: "" for that of the sources. The others as in release_index.Head."""

    sequence: int
    version: str = ""
    trial_s: int | None = None
    min_sequence: int = 0
    interpreters: tuple[int, int] | None = None
    long_names: bool = False
    used_by: tuple[bytes, ...] = ()


_BLOCK_BYTES = 5800  # what a block holds, more or less: its code has 4,096 bytes (protocol/README.md, 3.1)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a release. sources: of the modules that it holds. all_sources: also of those that no board loads.

    files: as they lie on a board. packed: as they travel to a board that has none of them.
    """

    sources: int
    all_sources: int
    files: int
    packed: int


def build(sources: Sources, compiler: CrossCompiler, wanted: Wanted) -> Release:
    """The release of these sources, signed by nobody. Raises UsageError, OperatorError."""
    from laterne_provisioning import bill  # a quarter of the time in which `laterne` starts: only here

    texts = _texts(sources, wanted)
    made = compiler.compiled(texts)
    entry, loader = (name if wanted.long_names else flat_name(name) for name in (ENTRY, LOADER))
    base = _base(sources, compiler, wanted)
    if loader in made:
        base |= {f"l/{_path(name)}": made[name] for name in needed_by(loader, texts)}
        del made[loader]
    files = {_path(name): content for name, content in made.items()}
    version = wanted.version or sources.version
    abi = abi_of(files)
    try:
        fields.integer(wanted.sequence, "sequence", 1)
        head = Head(
            version, abi, 0, release_index.LOADER, entry, wanted.min_sequence, wanted.trial_s, wanted.interpreters
        )
        index = manifest_writing.index_bytes(head, files)
        held = dict(zip(files, _sources_of(files, sources), strict=True))
        listed = bill.bill_of_materials(version, index, files, held, compiler.version, sources.moment() or 0)
        text = manifest_writing.text_bytes(_description(sources, version), listed, release_file.base_bytes(base))
        envelope = manifest_writing.envelope_bytes(wanted.sequence, index, text, class_id=class_of(abi))
        contents = {hashlib.sha256(content).digest(): content for content in files.values()}
        return Release(envelope, contents, listed, base)
    except WireError as why:
        raise OperatorError(f"These sources make no release: {why}.") from why


def _texts(sources: Sources, wanted: Wanted) -> dict[str, bytes]:
    """{module: source} of what boards load, as it is compiled."""
    if wanted.long_names:
        return dict(sources.modules)
    try:
        return flattened(shortened(sources.modules, ENTRY.encode(), *sources.around, *wanted.used_by))
    except (NotShortened, SyntaxError) as why:
        raise OperatorError(f"The sources cannot be compiled: {why}.") from why


def _base(sources: Sources, compiler: CrossCompiler, wanted: Wanted) -> dict[str, bytes]:
    """{path: bytes} of what is written at flashing, but the loader: three sources and the pin maps.

    The loader's names are those of the release that it comes with: it shares no object with what it starts.
    """
    base = {name: text if wanted.long_names else flat(text, sources.modules) for name, text in sources.started.items()}
    for model, content in compiler.compiled({f"pins/{model}": text for model, text in sources.pins.items()}).items():
        base[f"{model}.mpy"] = content
    return base


def _path(module: str) -> str:
    return module.replace(".", "/") + ".mpy"


def _sources_of(paths: Iterable[str], sources: Sources) -> list[bytes]:
    """The source of each file of a release, with the names of its modules as they are or flat."""
    flat_names = {flat_name(name): source for name, source in sources.modules.items()}
    modules = [path.removesuffix(".mpy").replace("/", ".") for path in paths]
    return [sources.modules.get(name, flat_names.get(name, b"")) for name in modules]


def class_of(abi: int) -> bytes:
    """The class of all boards with a pin map of ours and bytecode of this ABI (protocol/README.md, 11.1)."""
    return uuid.uuid5(uuid.UUID(bytes=manifest.VENDOR), f"laterne/micropython/{abi}").bytes


def _description(sources: Sources, version: str) -> str:
    commit = sources.commit
    if commit is None:
        return f"laterne firmware {version}, from sources without version control"
    changed = f", with {len(commit.changed)} files that are not in it" if commit.changed else ""
    return f"laterne firmware {version}, commit {commit.name}{changed}"


def sizes(release: Release, sources: Sources) -> Sizes:
    """What a release takes, against the sources."""
    held = _sources_of([path for path, _, _ in release.entries], sources)
    files = [release.contents[digest] for _, _, digest in release.entries]
    return Sizes(
        sum(map(len, held)),
        sum(map(len, sources.modules.values())),
        sum(map(len, files)),
        packed_bytes(release, [path for path, _, _ in release.entries]),
    )


def again(release: Release, sequence: int) -> Release:
    """The same files under another sequence, signed by nobody: how boards go back (protocol/README.md, 11.1)."""
    made, index = release.manifest, release.manifest.index
    assert index is not None  # a release file holds it
    envelope = manifest_writing.envelope_bytes(sequence, index, made.text, class_id=made.class_id)
    return Release(envelope, release.contents, release.bill, release.base)


def read(path: Path) -> Release:
    """The release in a file. Raises UsageError: there is none, OperatorError: it is damaged or not one."""
    try:
        with path.open("rb") as file:
            data = file.read(release_file.MAX_RELEASE_FILE_BYTES + 1)
    except OSError as why:
        raise UsageError(f"The release cannot be read: {why.strerror}: {path}") from why
    try:
        return release_of(data)
    except WireError as why:
        raise OperatorError(f"{path} is no release that can be used: {why}. Build it or fetch it again.") from why


# Signing -------------------------------------------------------------------------------------------------------------


def signing_key(authority: Authority, release: Release, kid: str | None, secrets: keys.Secrets) -> keys.SigningKey:
    """The release key that signs next: the one named by the beginning of its kid, or the first that has not signed.

    Raises UsageError: there is none; OperatorError: it has signed already.
    """
    places = [place for place in authority.places if place.role == trust.RELEASE]
    if not places:
        raise UsageError(f"{authority.directory} names no release key: add it to authority.toml.")
    done = {one.kid for one in release.manifest.signatures}
    if kid is not None:
        named = [place for place in places if credential.kid(place.public).hex().startswith(kid.lower())]
        if len(named) != 1:
            known = ", ".join(credential.kid(place.public).hex() for place in places)
            raise UsageError(f"--key {kid} names {len(named)} of the release keys here, which are {known}: name one.")
        places = named
    places = [place for place in places if credential.kid(place.public) not in done]
    if not places:
        raise OperatorError(
            f"All release keys in {authority.directory} have signed this release: `laterne release verify` says "
            "whether that is enough, or another key's holder must sign, too."
        )
    key = keys.SigningKey("release key", places[0].uri, places[0].public, authority.directory, secrets)
    key.log = authority.log
    return key


def signed(authority: Authority, release: Release, key: keys.SigningKey, again: bool = False) -> Release:
    """The release with the signature of this key, written down in the audit log before.

    again: although the log tells of another release with this sequence or a higher one. Raises OperatorError.
    """
    require_ours(release)
    if len(release.manifest.signatures) == manifest.MAX_SIGNATURES:
        raise OperatorError(f"The release has {manifest.MAX_SIGNATURES} signatures already: no more fit.")
    highest = newest(authority.log)
    sequence, name = release.manifest.sequence, release.digest.hex()
    if highest is not None and not again and sequence <= highest[0] and name != highest[1]:
        raise OperatorError(
            f"Sequence {highest[0]} has been signed here for release {highest[1]}, and this one is {sequence}: boards "
            f"that have that one will refuse it. Build it with --sequence {highest[0] + 1} or higher, or say --again."
        )
    key.open()
    protected = cose.protected_header(credential.kid(key.public))
    message = release.manifest.to_be_signed(protected)
    details: audit.Details = {
        "kid": credential.kid(key.public).hex(),
        "version": release.head.version,
        "sequence": sequence,
        "files": len(release.entries),
        "sha256": hashlib.sha256(message).hexdigest(),
    }
    authority.log.append(SIGN, name, details)
    envelope = manifest_writing.with_signature(release.envelope, protected, key.sign(message))
    return Release(envelope, release.contents, release.bill, release.base)


def newest(log: audit.Log) -> tuple[int, str] | None:
    """The highest sequence that the log tells of, and the release that has it."""
    found = []
    for record in log.of(SIGN):
        sequence = record.details.get("sequence")
        if isinstance(sequence, int):
            found.append((sequence, record.subject))
    return max(found, default=None)


# Judging -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """signers: kids of the trust's release keys that have signed. strangers: kids of other signatures, or bad ones."""

    signers: tuple[str, ...]
    strangers: tuple[str, ...]
    needed: int
    known: int

    @property
    def is_good(self) -> bool:
        return len(self.signers) >= self.needed


def require_signed(release: Release, trusted: trust.Trust) -> None:
    """Raises OperatorError: fewer signatures of this trust's release keys than it needs."""
    verdict = judged(release, trusted)
    if not verdict.is_good:
        raise OperatorError(
            f"The release is not signed by {output.foreign(trusted.authority)}: {len(verdict.signers)} of "
            f"{verdict.needed} signatures that are needed. Nothing was written. Sign it: laterne release sign."
        )


def require_ours(release: Release) -> None:
    """That a release is for boards of ours. Raises OperatorError."""
    if (release.manifest.vendor, release.manifest.class_id) != (manifest.VENDOR, class_of(release.head.abi)):
        raise OperatorError(
            "The release is for boards of another vendor or class: no board of ours would take it. Build it with "
            "`laterne release build`."
        )


def judged(release: Release, trusted: trust.Trust) -> Verdict:
    """Who has signed a release, by a trust."""
    signers: list[str] = []
    strangers: list[str] = []
    for one in release.manifest.signatures:
        good = any(
            credential.kid(key) == one.kid
            and primitives.is_signature(key, release.manifest.to_be_signed(one.protected), one.signature)
            and _is_low(one.signature)
            for key in trusted.keys[trust.RELEASE]
        )
        (signers if good else strangers).append(one.kid.hex())
    return Verdict(tuple(signers), tuple(strangers), trusted.release_threshold, len(trusted.keys[trust.RELEASE]))


def _is_low(signature: bytes) -> bool:
    try:
        cose.check_low_s(signature)
    except SignatureError:
        return False
    return True


def changed_files(release: Release, former: Release) -> Sequence[str]:
    """Paths of a release whose content the former one does not have under the same path."""
    known = {path: digest for path, _, digest in former.entries}
    return [path for path, _, digest in release.entries if known.get(path) != digest]


def packed_bytes(release: Release, paths: Sequence[str]) -> int:
    """How many bytes these files of a release are as they travel, one behind the other in blocks."""
    contents: Mapping[str, bytes] = {path: release.contents[digest] for path, _, digest in release.entries}
    whole = b"".join(contents[path] for path in paths)
    blocks = [whole[at : at + _BLOCK_BYTES] for at in range(0, len(whole), _BLOCK_BYTES)]
    return sum(min(len(block), len(release_file.deflated(block))) for block in blocks)
