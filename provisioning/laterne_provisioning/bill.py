"""The bill of materials of a release: CycloneDX 1.6 as JSON, the same for the same release."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from laterne_protocol import manifest


def bill_of_materials(
    version: str, index: bytes, files: Mapping[str, bytes], sources: Mapping[str, bytes], compiler: str, moment: int
) -> bytes:
    """What is in a release, and of what and by what it was made.

    version: of the release. index: of its files. files: {path: content}. sources: {path: source} of the files that were
    compiled. compiler: what it says of itself. moment: Unix seconds that stand for the time of the build.
    """
    # Only `release build` and `release show` write bills, and this library takes as long to come as all the others.
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(name="laterne-firmware", type=ComponentType.FIRMWARE, version=version, bom_ref="laterne-firmware")
    parts = [
        Component(
            name=path,
            type=ComponentType.FILE,
            bom_ref=path,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(content).hexdigest())],
            properties=[Property(name="laterne:source-sha256", value=hashlib.sha256(sources[path]).hexdigest())]
            if path in sources
            else [],
        )
        for path, content in files.items()
    ]
    # The interpreter is on the board and not in the release: named, because the release is nothing without it.
    parts.append(
        Component(
            name="micropython",
            type=ComponentType.PLATFORM,
            bom_ref="micropython",
            scope=ComponentScope.EXCLUDED,
            description="the interpreter on the board: not part of the release",
        )
    )
    compiled_by = Component(name="mpy-cross", type=ComponentType.APPLICATION, version=compiler, bom_ref="mpy-cross")
    bom = Bom(
        components=parts,
        serial_number=uuid.uuid5(uuid.UUID(bytes=manifest.VENDOR), hashlib.sha256(index).hexdigest()),
        metadata=BomMetaData(
            component=root,
            timestamp=datetime.fromtimestamp(moment, UTC),
            tools=ToolRepository(components=[compiled_by]),
        ),
    )
    bom.register_dependency(root, parts[:-1])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
