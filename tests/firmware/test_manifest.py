"""firmware/manifest.py as MicroPython's tools/manifestfile.py runs it: in its own folder, without `__file__`."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from laterne_emulator.image import find_firmware
from laterne_provisioning.compiling import sources

PORT = "$(PORT_DIR)"  # what the port brings itself: its folders are not here
THE_PORTS_OWN = {"$(MPY_DIR)/extmod/asyncio", "rp2.py"}


def frozen(firmware: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> dict[str, Path]:
    """{name in the interpreter: file} of what the manifest names."""
    found: dict[str, Path] = {}

    def include(path: str) -> None:
        assert path in THE_PORTS_OWN

    def module(path: str, base_path: str = ".") -> None:
        if base_path.startswith(PORT):
            assert path in THE_PORTS_OWN
            return
        file = Path(base_path, path).resolve()
        assert file.is_file(), f"{path} is not in {base_path}"
        found[path] = file

    monkeypatch.chdir(firmware)
    monkeypatch.setenv("LATERNE_MODEL", model)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = (firmware / "manifest.py").read_text(encoding="utf-8")
    names = {"include": include, "module": module}
    exec(compile(source, "manifest.py", "exec"), names)  # noqa: S102 - runpy would give it a __file__
    return found


@pytest.mark.parametrize("model", [file.stem for file in sorted((find_firmware() / "boards").glob("pico*.py"))])
def test_everything_that_a_board_imports_is_frozen_and_its_start_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    ours = find_firmware()
    for name in ("firmware", "protocol"):
        shutil.copytree(ours.parent / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    found = frozen(tmp_path / "firmware", monkeypatch, model)
    boot = (ours / "frozen" / "_boot.py").read_bytes()
    assert found["_boot.py"].read_bytes() == boot.replace(b"from laterne_firmware import ram", b"import ram") != boot
    assert found["pins.py"].read_bytes() == (ours / "boards" / f"{model}.py").read_bytes()
    assert {"boot.py", "main.py", "loader.py", "app.py", "ram.py", "sht4x.py"} <= found.keys()
    for folder in (ours / "laterne_firmware", ours.parent / "protocol" / "laterne_protocol"):
        for file in folder.rglob("*.py"):
            assert file.name in found or file.name == "__init__.py", f"{file.name} is not frozen"
    for name, file in found.items():
        asked = [statement.module or "" for statement in sources.read(name, file.read_bytes()).imports]
        assert not [one for one in asked if "." in one], f"{name} asks for what lies in a package"
    assert os.getcwd() == str(tmp_path / "firmware")
