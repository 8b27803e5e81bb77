"""`laterne-gateway install`: files where they belong, nothing of anybody else's touched, safe to repeat."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from laterne_gateway.__main__ import run_command
from laterne_gateway.install import CONFIGURATION, RULES, SECRETS, STATE, UNIT, InstallError, require_visible
from laterne_gateway.install import install as laterne_install

EXPOSURE_AT_MOST = 1.5


def install(prefix: Path) -> int:
    return run_command(["install", "--prefix", str(prefix)])


def test_files_are_laid_out_and_a_second_time_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(tmp_path) == 0
    assert "an example, to be filled in" in capsys.readouterr().out
    program = shutil.which("laterne-gateway")
    assert f"ExecStart={program} run --config /etc/laterne/gateway.toml" in (tmp_path / UNIT).read_text()
    for path in (STATE, SECRETS):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o700
    (tmp_path / CONFIGURATION).write_text("mine\n")
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in (UNIT, RULES, CONFIGURATION)}
    assert install(tmp_path) == 0
    assert {path: (tmp_path / path).stat().st_mtime_ns for path in before} == before
    assert "left as it is" in capsys.readouterr().out


def test_a_unit_that_somebody_has_written_himself_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).write_text("[Unit]\nDescription=mine\n")
    assert install(tmp_path) == 1
    assert "somebody has written his own" in capsys.readouterr().err
    assert (tmp_path / UNIT).read_text() == "[Unit]\nDescription=mine\n"


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etc").write_text("a file where a directory belongs")
    for command in ("install", "uninstall"):
        run_command([command, "--prefix", str(tmp_path)])
    assert install(tmp_path) == 1
    assert f"{tmp_path / 'etc'}" in capsys.readouterr().err
    (tmp_path / "other" / UNIT).parent.mkdir(parents=True)
    (tmp_path / "other" / UNIT).write_bytes(b"\xff")
    assert install(tmp_path / "other") == 1
    assert "give the command again" in capsys.readouterr().err


def test_the_service_can_read_its_configuration_whatever_umask_root_has(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert install(tmp_path / "image") == 0
    finally:
        os.umask(before)
    for path in (CONFIGURATION, CONFIGURATION.parent, UNIT, STATE.parent):
        assert (tmp_path / "image" / path).stat().st_mode & 0o044, path
    for path in (STATE, SECRETS):
        assert stat.S_IMODE((tmp_path / "image" / path).stat().st_mode) == 0o700


def test_a_program_that_the_service_could_not_start_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert laterne_install(tmp_path, Path("/opt/my things/bin/laterne-gateway")) == 1
    assert "a unit cannot name this path" in capsys.readouterr().err
    good, homes = Path("/opt/laterne/bin/laterne-gateway"), Path("/home/anna/venv/bin/laterne-gateway")
    elsewhere = Path("/tmp/venv/bin/laterne-gateway")
    for program, python in ((homes, "/usr"), (elsewhere, "/usr"), (good, "/root/.local/share/uv/python/cpython-3.12")):
        with pytest.raises(InstallError, match="python3 -m venv /opt/laterne"):
            require_visible(program, None, Path(python))
    require_visible(homes, tmp_path, Path("/usr"))
    require_visible(good, None, Path("/usr"))


def test_an_empty_prefix_is_not_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("install", "uninstall"):
        with pytest.raises(SystemExit, match="2"):
            run_command([command, "--prefix", ""])
        assert "names no directory" in capsys.readouterr().err


def test_the_service_starts_the_program_that_has_installed_it_and_not_an_older_one_in_the_path(tmp_path: Path) -> None:
    found = shutil.which("laterne-gateway")
    assert found is not None
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "laterne-gateway").symlink_to(found)
    new, path = tmp_path / "new" / "laterne-gateway", f"{tmp_path / 'old'}:{os.environ['PATH']}"
    image = tmp_path / "an image"
    subprocess.run([new, "install", "--prefix", image], env={**os.environ, "PATH": path}, check=True, timeout=60)
    assert f"ExecStart={new} run " in (image / UNIT).read_text()


def test_an_older_unit_of_ours_is_brought_up_to_date(tmp_path: Path) -> None:
    install(tmp_path)
    wanted = (tmp_path / UNIT).read_text()
    (tmp_path / UNIT).write_text(wanted.replace("WatchdogSec=60", "WatchdogSec=90"))
    assert install(tmp_path) == 0
    assert (tmp_path / UNIT).read_text() == wanted


def test_uninstall_leaves_configuration_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(tmp_path)
    (tmp_path / STATE / "gateway.sqlite3").write_bytes(b"reports")
    assert run_command(["uninstall", "--prefix", str(tmp_path)]) == 0
    assert not (tmp_path / UNIT).exists()
    assert not (tmp_path / RULES).exists()
    assert (tmp_path / CONFIGURATION).exists()
    assert (tmp_path / STATE / "gateway.sqlite3").read_bytes() == b"reports"
    assert "kept:" in capsys.readouterr().out
    assert run_command(["uninstall", "--prefix", str(tmp_path)]) == 0


def test_the_unit_leaves_little_exposed(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("systemd-analyze is not here (Debian: systemd)")
    install(tmp_path)
    checked = subprocess.run(
        [program, "security", "--offline=true", f"--threshold={EXPOSURE_AT_MOST * 10:.0f}", str(tmp_path / UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout[-3000:] + checked.stderr
    verified = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / UNIT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert str(UNIT.name) not in verified.stderr, verified.stderr
