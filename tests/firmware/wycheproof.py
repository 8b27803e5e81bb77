"""Wycheproof's vectors (C2SP/wycheproof), which lie beside the repository in ../shared/vectors/wycheproof.

A clone without them skips by name what it cannot run; where CI is set their absence is a failure.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "shared/vectors/wycheproof"


def vectors(name: str) -> list[dict[str, Any]]:
    """All vectors of one file in order; what their group says (key, sizes) is merged into each."""
    path = FOLDER / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is missing, and in CI no vector may be left out")
        pytest.skip(f"left out: the vectors of {name}, they are not in ../shared/vectors/wycheproof")
    content = json.loads(path.read_text())
    found = []
    for group in content["testGroups"]:
        common = {key: value for key, value in group.items() if key != "tests"}
        found += [{**common, **test} for test in group["tests"]]
    assert len(found) == content["numberOfTests"]
    return found
