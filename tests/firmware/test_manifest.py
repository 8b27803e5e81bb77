"""firmware/manifest.py as MicroPython's tools/manifestfile.py runs it: in its own folder, without `__file__`."""

import os
import shutil
from pathlib import Path

import pytest

from laterne_emulator.image import find_firmware

PORT = "$(PORT_DIR)"  # what the port brings itself: its folders are not here
THE_PORTS_OWN = {"$(MPY_DIR)/extmod/asyncio", "rp2.py"}


def frozen(firmware: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> dict[str, Path]:
    """{name in the interpreter: file} of what the manifest names; a folder's files each by themselves."""
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

    def package(path: str, base_path: str = ".") -> None:
        folder = Path(base_path, path).resolve()
        files = sorted(folder.rglob("*.py"))
        assert files, f"{path} is not in {base_path}"
        for file in files:
            found[str(Path(path) / file.relative_to(folder))] = file

    monkeypatch.chdir(firmware)
    monkeypatch.setenv("LATERNE_MODEL", model)
    source = (firmware / "manifest.py").read_text(encoding="utf-8")
    names = {"include": include, "module": module, "package": package}
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
    assert found["_boot.py"].read_bytes() == (ours / "frozen" / "_boot.py").read_bytes()
    assert found["pins.py"].read_bytes() == (ours / "boards" / f"{model}.py").read_bytes()
    assert {"boot.py", "main.py", "laterne_firmware/loader.py", "laterne_firmware/app.py"} <= found.keys()
    for package in ("laterne_firmware", "laterne_protocol"):
        folder = ours if package == "laterne_firmware" else ours.parent / "protocol"
        for file in (folder / package).rglob("*.py"):
            assert str(file.relative_to(folder)) in found, f"{file.name} is not frozen"
    assert os.getcwd() == str(tmp_path / "firmware")
