"""A small checkout whose firmware can be built: three modules, a loader, two pin maps, under version control or not."""

import subprocess
from pathlib import Path

FILES = {
    "firmware/boot.py": "import gc\n",
    "firmware/self_test.py": "from laterne_firmware import app\n\napp.run()\n",
    "firmware/main.py": "from laterne_firmware import app, loader\n\nloader.choose()\napp.run()\n",
    "firmware/boards/pico.py": 'MODEL = "pico"\n',
    "firmware/boards/esp32.py": 'MODEL = "esp32"\n',
    "firmware/laterne_firmware/__init__.py": 'RELEASE = "0.1.0"\n',
    "firmware/laterne_firmware/app.py": (
        "from laterne_firmware.part import Counter\n\n\ndef run():\n    counter = Counter()\n    counter.count()\n"
        '    print("counted", counter.counted)\n'
    ),
    "firmware/laterne_firmware/part.py": (
        '"""Counts."""\n\n\nclass Counter:\n    def __init__(self):\n        self.counted = 0\n\n'
        "    def count(self):\n        self.counted += 1\n"
    ),
    "firmware/laterne_firmware/loader.py": "from laterne_firmware import part\n\n\ndef choose():\n    part.Counter()\n",
    "firmware/laterne_firmware/never_loaded.py": "def never():\n    return 1\n",
    "protocol/laterne_protocol/__init__.py": "",
}


def checkout(folder: Path, *, with_git: bool = True) -> Path:
    """The folder firmware/ of a new checkout."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if with_git:
        git(folder, "init", "--quiet")
        commit(folder)
    return folder / "firmware"


def commit(folder: Path) -> None:
    """Everything in the checkout, at a moment that is always the same."""
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "changed")


def git(folder: Path, *arguments: str) -> None:
    moment = {"GIT_AUTHOR_DATE": "1790000000 +0000", "GIT_COMMITTER_DATE": "1790000000 +0000", "HOME": str(folder)}
    command = ["git", "-C", str(folder), *arguments]
    subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin:/usr/local/bin", **moment}, capture_output=True)
