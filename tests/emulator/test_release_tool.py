"""Emulated boards get what `laterne release` builds, and the same sources are built once."""

from pathlib import Path

import pytest
from tests.provisioning.checkout import checkout

from laterne_emulator import release_tool


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    release_tool._release.cache_clear()
    return tmp_path / "cache" / "laterne" / "builds"


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if len(path.name) == 64)


def test_the_same_sources_are_built_once_also_in_a_copy_and_any_change_is_built_anew(
    cache: Path, tmp_path: Path
) -> None:
    firmware = checkout(tmp_path / "one", with_git=False)
    first = release_tool.release(firmware)
    (built,) = kept(cache)
    moment = (cache / built).stat().st_ino
    release_tool._release.cache_clear()
    assert release_tool.release(checkout(tmp_path / "two", with_git=False)).digest == first.digest
    assert [(cache / name).stat().st_ino for name in kept(cache)] == [moment]
    (firmware / "laterne_firmware" / "part.py").write_text(
        "class Counter:\n    counted = 5\n    def count(self): pass\n"
    )
    assert release_tool.release(firmware).digest != first.digest
    assert len(kept(cache)) == 2


def test_what_a_test_asks_for_is_another_release(cache: Path, tmp_path: Path) -> None:
    firmware = checkout(tmp_path / "one", with_git=False)
    plain = release_tool.release(firmware)
    later = release_tool.release(firmware, sequence=9, version="0.2.0", trial_s=60)
    assert (later.manifest.sequence, later.head.version, later.head.trial_s) == (9, "0.2.0", 60)
    assert later.contents == plain.contents
    used = release_tool.release(firmware, used_by=b"counter.counted")
    assert any(b"counted" in content for content in used.contents.values())
    named = release_tool.release(firmware, short=False)
    assert len(named.entries) > len(plain.entries)  # nothing is left out either


def test_a_firmware_that_does_not_compile_is_no_entry_of_the_cache(cache: Path, tmp_path: Path) -> None:
    firmware = checkout(tmp_path / "one", with_git=False)
    (firmware / "laterne_firmware" / "app.py").write_text("def run(:\n")
    with pytest.raises(release_tool.ReleaseNotBuilt, match=r"laterne_firmware\.app"):
        release_tool.release(firmware)
    assert kept(cache) == []


def test_the_oldest_builds_go_when_there_are_too_many(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_tool, "KEPT", 3)
    made = [release_tool._kept([b"%d" % number], lambda _: b"built") for number in range(5)]
    assert made == [b"built"] * 5
    assert len(kept(cache)) == 3
