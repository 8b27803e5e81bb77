"""What is written to the disk is counted by the kernel, for our process."""

import os
from pathlib import Path

import pytest

from laterne_gateway import wear


def test_what_is_written_is_counted(tmp_path: Path) -> None:
    before = wear.written_bytes()
    if before is None:
        pytest.skip("this kernel does not count what a process writes")
    if os.statvfs(tmp_path).f_fsid == 0:
        pytest.skip("no disk is below TMPDIR")
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(1_000_000))
        file.flush()
        os.fsync(file.fileno())
    after = wear.written_bytes()
    assert after is not None
    assert 1_000_000 <= after - before < 4_000_000


def test_a_kernel_that_does_not_count_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wear, "COUNTS", tmp_path / "nothing")
    assert wear.written_bytes() is None
    monkeypatch.setattr(wear, "COUNTS", tmp_path / "other")
    (tmp_path / "other").write_text("rchar: 5\n")
    assert wear.written_bytes() is None
