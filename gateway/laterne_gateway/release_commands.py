"""`laterne-gateway release add | list | remove`: releases by a USB stick, and what is stored.

Also while the gateway runs: it finds by itself what was added. The checks are those for a release from the broker.
"""

import json
import sys
from pathlib import Path

from laterne_gateway import primitives
from laterne_gateway.config import Config
from laterne_gateway.health import Health
from laterne_gateway.releases import ReleaseError, Releases
from laterne_gateway.trusts import RosterError, read_bounded
from laterne_protocol import release_file, trust
from laterne_protocol.errors import WireError

DONE, WRONG, BAD_USAGE = 0, 1, 2
MIN_NAME = 8  # characters of a digest's 32 that name it, if no other begins so


def run(config: Config, action: str, what: str, *, as_json: bool) -> int:
    """Does it and prints what came of it. what: the file to add, the digest to remove. Returns the exit code."""
    file = config.gateway.trust
    try:
        trusted = trust.trust_of(read_bounded(file, trust.MAX_TRUST_BYTES, "laterne trust export"), primitives.valid)
    except (RosterError, WireError) as why:
        print(f"{file}: {why}: bring the trust that the authority published last", file=sys.stderr)
        return BAD_USAGE
    releases = Releases(config.gateway.directory, lambda: trusted, Health())
    if action == "list":
        return _list(releases, as_json=as_json)
    return (
        run_add(releases, Path(what), as_json=as_json) if action == "add" else _remove(releases, what, as_json=as_json)
    )


def run_add(releases: Releases, file: Path, *, as_json: bool) -> int:
    """Stores the release in the file, which is read once: what is judged is what is stored. Returns the exit code."""
    try:
        with file.open("rb") as source:
            data = source.read(release_file.MAX_RELEASE_FILE_BYTES + 1)
        digest = releases.add_file(data)
    except OSError as why:
        print(
            f"{file}: cannot be read ({why.strerror}): name the file that `laterne release sign` wrote", file=sys.stderr
        )
        return BAD_USAGE
    except ReleaseError as why:
        print(f"{file}: {why}", file=sys.stderr)
        return WRONG
    print(json.dumps({"digest": digest.hex()}) if as_json else f"{digest.hex()}: stored")
    return DONE


def _list(releases: Releases, *, as_json: bool) -> int:
    found = [_about(releases, digest) for digest in releases.stored()]
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for one in found:
            said = f"WRONG: {one['problem']}"
            if one["problem"] is None:
                said = f"{one['version']}, sequence {one['sequence']}, {one['files']} files, {one['bytes']} bytes"
            print(f"{one['digest']}: {said}")
    return WRONG if any(one["problem"] is not None for one in found) else DONE


def _about(releases: Releases, digest: bytes) -> dict[str, object]:
    try:
        found = releases.read(digest)
    except (OSError, WireError) as why:
        return {"digest": digest.hex(), "problem": f"{why}: remove it, or add it again"}
    if found.digest != digest:
        return {"digest": digest.hex(), "problem": f"holds {found.digest.hex()}: remove it"}
    return {
        "digest": digest.hex(),
        "problem": None,
        "version": found.head.version,
        "sequence": found.manifest.sequence,
        "files": len(found.entries),
        "bytes": sum(size for _, size, _ in found.entries),
        "signed_by": [one.kid.hex() for one in found.manifest.signatures],
    }


def _remove(releases: Releases, name: str, *, as_json: bool) -> int:
    matching = [
        digest for digest in releases.stored() if len(name) >= MIN_NAME and digest.hex().startswith(name.lower())
    ]
    if len(matching) != 1:
        print(f"{name}: names {len(matching)} of the releases here: see laterne-gateway release list", file=sys.stderr)
        return BAD_USAGE
    releases.remove(matching[0])
    print(json.dumps({"digest": matching[0].hex()}) if as_json else f"{matching[0].hex()}: removed")
    return DONE
