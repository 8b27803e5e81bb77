"""What `pip install .` in a checkout puts onto a gateway: all of it is in the wheel, and it runs without the checkout.

The libraries are those of this environment: nothing is downloaded.
"""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tests.readmes.commands import ROOT

from laterne_gateway.install import CONFIGURATION, RULES, UNIT
from laterne_protocol import channels

PACKAGES = {
    "laterne_protocol": "protocol", "laterne_gateway": "gateway", "laterne_provisioning": "provisioning",
    "laterne_emulator": "hil_tests",
}  # fmt: skip
# What `laterne-gateway install` lays out lies beside its package in a checkout: (there, in the wheel).
BESIDE = (("gateway/systemd", "systemd"), ("gateway/laterne-gateway.example.toml", "laterne-gateway.example.toml"))
WITHIN_S = 60.0


class Installed:
    """A virtual environment that has the wheel."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
        self._run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
        (self.wheel,) = folder.glob("*.whl")
        self._run(sys.executable, "-m", "venv", "--without-pip", self.bin.parent)
        self._run(*pip, "--python", self.bin / "python", "install", "--no-index", "--no-deps", self.wheel)
        # Of a folder that is named so no .pth is read: the libraries are there, our editable install is not.
        (site,) = self.bin.parent.glob("lib/python*/site-packages")
        (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(self, program: str, *words: object, code: int = 0) -> str:
        """What it said, on both."""
        return self._run(self.bin / program, *words, code=code)

    def _run(self, *command: object, code: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [*map(str, command)], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S,
            check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{command}: {done.returncode}\n{said}"
        assert "Traceback" not in said, said
        return said


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


def files_of(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_every_file_of_the_packages_is_in_the_wheel(installed: Installed) -> None:
    wanted: dict[str, Path] = {}
    for package, folder in PACKAGES.items():
        source = ROOT / folder / package
        wanted |= {f"{package}/{name}": source / name for name in files_of(source)}
    for there, here in BESIDE:
        source = ROOT / there
        names = files_of(source) if source.is_dir() else {"."}
        wanted |= {str(Path("laterne_gateway", "files", here, name)): source / name for name in names}
    assert {Path(name).suffix for name in wanted} == {".py", ".toml", ".typed", ".service", ".rules"}
    with zipfile.ZipFile(installed.wheel) as wheel:
        held = {name for name in wheel.namelist() if not name.startswith("laterne-")}
        assert held == set(wanted)
        assert [name for name, path in wanted.items() if wheel.read(name) != path.read_bytes()] == []


def test_the_programs_come_from_the_wheel_with_all_their_commands(installed: Installed) -> None:
    where = "import {}; print({}.__path__[0])"
    for package in PACKAGES:
        found = installed.run("python", "-c", where.format(package, package)).strip()
        assert Path(found).is_relative_to(installed.bin.parent), f"{package} is not the wheel's, but {found}"
    said = installed.run("laterne", "--help")
    assert [name for name in ("flash", "verify", "release", "emulate", "demo") if name not in said] == []
    assert installed.run("laterne", "--version").split()[-1] in installed.wheel.name


def test_the_service_is_laid_out_from_the_wheel_and_its_example_is_understood(installed: Installed) -> None:
    image = installed.folder / "image"
    installed.run("laterne-gateway", "install", "--prefix", image)
    assert f"ExecStart={installed.bin / 'laterne-gateway'} run" in (image / UNIT).read_text()
    assert (image / RULES).read_bytes() == (ROOT / "gateway/systemd" / RULES.name).read_bytes()
    # It is an example: nothing of what it names is there, and that is said of each.
    said = installed.run("laterne-gateway", "check", "--config", image / CONFIGURATION, code=1)
    assert f"{image / CONFIGURATION}: good, gateway gw-harbour-1, 2 lines" in said
    assert "(laterne trust export)" in said
    for named in ("trust.cbor: cannot be read", "line post-14", "line quay", "broker.password"):
        assert named in said, said


def test_the_table_of_quantities_is_read_from_the_wheel(installed: Installed) -> None:
    ask = "from laterne_gateway.routes.quantities import quantity_of; print(quantity_of({}).ucum)"
    assert installed.run("python", "-c", ask.format(channels.TEMPERATURE)) == "Cel\n"


def test_a_release_is_built_in_a_checkout_by_the_installed_program(installed: Installed) -> None:
    build = ("release", "build", "--uncommitted", "--sequence", 7, "-o", "r.laterne")
    assert "run from a checkout of laterne" in installed.run("laterne", *build, code=2)
    installed.run("laterne", *build, "--firmware", ROOT / "firmware")
    assert "7" in installed.run("laterne", "release", "show", "r.laterne")
