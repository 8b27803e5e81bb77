"""The commands in the READMEs: found in their blocks, and run as somebody who reads them would type them.

A block that begins with ```sh holds commands, one with ```console holds them after "$ " and between them what they say.
In no other block may a command stand: it would be run by no test.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("README.md"), *ROOT.glob("[!.]*/README.md")))
OURS = ("laterne", "laterne-gateway")
PROGRAMS = (*OURS, "make", "pytest", "mpremote", "pkcs11-tool", "export", "sudo", "systemctl", "pip", "git")
BUILD = f"laterne release build --firmware '{ROOT / 'firmware'}' --uncommitted"
ASSIGNMENT = re.compile(r"[A-Z_]+=\S+ ")
WITHIN_S = 90.0
STDERR_SHOWN = 3000


@dataclass(frozen=True)
class Command:
    """text: on one line, without its comment."""

    readme: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.readme}:{self.line}: {self.text}"

    @property
    def program(self) -> str:
        text = self.text
        while assigned := ASSIGNMENT.match(text):
            text = text[assigned.end() :]
        return text.split()[0]

    @property
    def options(self) -> set[str]:
        return set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", self.text))


def commands(readme: Path) -> list[Command]:
    """In their order."""
    found: list[Command] = []
    began, text = 0, ""
    for number, language, line in _block_lines(readme):
        if language == "console" and not line.startswith("$ ") and not text:
            continue  # what a command has said
        if not text:
            began = number
        text += line.removeprefix("$ ")
        if text.endswith("\\"):
            text = text[:-1]
            continue
        text = re.sub(r"\s+# .*", "", text)
        if text.strip():
            found.append(Command(readme, began, " ".join(text.split())))
        text = ""
    return found


def stray(readme: Path) -> list[str]:
    """Lines of other blocks that look like commands."""
    lines = (ROOT / readme).read_text(encoding="utf-8").splitlines()
    found, fence = [], None
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            fence = line[3:] if fence is None else None
            continue
        # Indented lines are a block when an empty one stands before them.
        is_block = fence == "" or (fence is None and line.startswith("    ") and not lines[number - 2].strip())
        if is_block and line.strip() and line.split()[0] in PROGRAMS:
            found.append(f"{readme}:{number}: {line}")
    return found


def tomls_of(readme: Path) -> list[str]:
    """The configurations, and parts of one, that stand in it."""
    return re.findall(r"^```toml\n(.*?)^```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def inline(readme: Path) -> list[str]:
    """What stands in the text as `laterne ...`, to its first word that is no command or option."""
    text = re.sub(r"```.*?```", "", (ROOT / readme).read_text(encoding="utf-8"), flags=re.DOTALL)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))
    return sorted({span for span in spans if span.split()[0] in OURS and len(span.split()) > 1})


def _block_lines(readme: Path) -> Iterator[tuple[int, str, str]]:
    language = None
    for number, line in enumerate((ROOT / readme).read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language in ("sh", "console"):
            yield number, language, line


@dataclass
class Place:
    """A fresh folder, and what the commands of a README find there.

    instead: (what stands in the README, what is typed here), for all of them. exactly: the same for whole commands.
    elsewhere: those that another test gives ("file::function"; a README: its commands with these options and more).
    cannot: those that no test gives; only what they name is looked at. strangers: nor even that, and why.
    codes: exit codes that are right, if not 0. before: what else must have happened. background: those that run on;
    until: those that are repeated until they succeed. said: what each has said on stdout.
    """

    folder: Path
    instead: list[tuple[str, str]] = field(default_factory=list)
    exactly: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)
    strangers: dict[str, str] = field(default_factory=dict)
    codes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    background: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    before: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    running: list[asyncio.subprocess.Process] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)

    def typed(self, command: Command) -> str:
        return self.here(self.exactly.get(command.text, command.text))

    def here(self, text: str) -> str:
        """With what stands for ports, addresses and folders of the README."""
        for said, here in self.instead:
            text = text.replace(said, here)
        return text

    async def run(self, command: Command) -> None:
        """As it is typed here. AssertionError: it did not end as it should."""
        if command.text in self.background:
            await self.start(self.typed(command))
            return
        async with asyncio.timeout(WITHIN_S):
            while True:
                process = await self.start(self.typed(command), subprocess.PIPE)
                try:
                    out, errors = await process.communicate()
                finally:
                    _end(process)
                if process.returncode == 0 or command.text not in self.until:
                    break
                await asyncio.sleep(0.3)
        said = f"{command}\ntyped: {self.typed(command)}\n{(out + errors).decode()[-STDERR_SHOWN:]}"
        assert process.returncode in self.codes.get(command.text, (0,)), said
        assert b"Traceback" not in errors, said
        self.said[command.text] = out.decode()

    def require_running(self) -> None:
        """What was to run on still does, or was told to end and has ended well."""
        said = (self.folder / "log").read_text()[-STDERR_SHOWN:] if self.running else ""
        assert {process.returncode for process in self.running} <= {None, 0}, said
        assert "Traceback" not in said, said

    async def end(self) -> None:
        """All that runs on."""
        while self.running:
            process = self.running.pop()
            _end(process, signal.SIGTERM)
            await process.wait()

    async def start(self, typed: str, out: int | None = None) -> asyncio.subprocess.Process:
        """out: where it speaks to; None: into the log, and it runs until end()."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
        }
        with (self.folder / "log").open("ab") as log:
            said = log if out is None else out
            process = await asyncio.create_subprocess_exec(
                "sh", "-c", typed if "&&" in typed or ">" in typed else f"exec {typed}",
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        if out is None:
            self.running.append(process)
        return process


def _end(process: asyncio.subprocess.Process, how: signal.Signals = signal.SIGKILL) -> None:
    if process.returncode is None:
        os.killpg(process.pid, how)
