"""Makes the vector files beside it: `python protocol/vectors/generate.py` writes them, the tests compare them.

Everything is deterministic: keys come from names, signatures follow RFC 6979. What RFC 8949 says is transcribed in
rfc8949.py, not computed. A vector is {"name", "kind", "hex", "gives"} and, where its kind needs it, "more"
(described.py). What the objects are: objects.py; which vectors there are: wire.py, signed.py, releases.py.
"""

import json
from collections.abc import Callable
from pathlib import Path

import hexdump
import making
import releases
import signed
import wire

HERE = Path(__file__).parent

FILES: dict[str, tuple[str, Callable[[], list[making.Vector]]]] = {
    "cbor": ("protocol/README.md, 1; accepted ones from RFC 8949, appendix A", wire.cbor_vectors),
    "frame": ("protocol/README.md, 2", wire.frame_vectors),
    "messages": ("protocol/README.md, 3", wire.message_vectors),
    "cose": ("protocol/README.md, 4", wire.cose_vectors),
    "credential": ("protocol/README.md, 5", signed.credential_vectors),
    "gateway": ("protocol/README.md, 5.4", signed.gateway_vectors),
    "order": ("protocol/README.md, 12", signed.order_vectors),
    "receipt": ("protocol/README.md, 12", signed.receipt_vectors),
    "grant": ("protocol/README.md, 5.5", signed.grant_vectors),
    "report": ("protocol/README.md, 6", signed.report_vectors),
    "roster": ("protocol/README.md, 7", signed.roster_vectors),
    "trust": ("protocol/README.md, 8", signed.trust_vectors),
    "envelope": ("protocol/README.md, 11", releases.envelope_vectors),
    "index": ("protocol/README.md, 11.3", releases.index_vectors),
}


def text_of(name: str) -> str:
    """What stands in the file NAME.json."""
    about, vectors = FILES[name]
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, sort_keys=True) for one in vectors())
    return f'{{"about": {json.dumps(about)}, "vectors": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes all files, and the hexdumps of the specification."""
    for name in FILES:
        (HERE / f"{name}.json").write_text(text_of(name), encoding="utf-8")
    readme = HERE.parent / "README.md"
    readme.write_text(hexdump.with_dumps(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
