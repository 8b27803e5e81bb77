"""Child processes that are started together and end together.

Each child is a session of its own, so that Ctrl-C at the terminal reaches only us: we then end the children in the
order that loses nothing. Should we be killed outright, setpriv (util-linux) has asked the kernel to end them.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from types import TracebackType

ENDS_WITHIN_S = 10.0  # a gateway commits and publishes its farewell; measured 0.3 s
_LAST_WORDS_BYTES = 2000


class ProcessFailed(RuntimeError):
    """A process of ours did not do its work; the message ends with what it said last."""


class Child:
    """One running process. name: for messages. log: the file that holds its stderr, and its stdout if not piped."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    def last_words(self) -> str:
        """The end of its log, for a message to a person."""
        with contextlib.suppress(OSError):
            return self.log.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip() or "(it said nothing)"
        return f"(no log at {self.log})"

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, insist after ENDS_WITHIN_S; returns its exit status (negative: the signal that ended it)."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(how)
            try:
                async with asyncio.timeout(ENDS_WITHIN_S):
                    await self.process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        return await self.process.wait()


class Children:
    """All processes of one run: `async with Children() as children`. At the end the last started goes first."""

    def __init__(self) -> None:
        self._running: list[Child] = []

    async def __aenter__(self) -> "Children":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None
    ) -> None:
        for child in reversed(self._running):
            await child.end()

    async def start(self, name: str, command: list[str], log: Path, *, piped: bool = False) -> Child:
        """Start a process. piped: its stdout can be read line by line; else it goes to the log too."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *dying_with_us(command),
                stdin=DEVNULL,
                stdout=PIPE if piped else out,
                stderr=out,
                start_new_session=True,
                limit=1 << 20,  # a line of JSON with a report's values is far shorter
            )
        child = Child(name, process, log)
        self._running = [other for other in self._running if not other.ended]
        self._running.append(child)
        return child

    async def run(self, name: str, command: list[str], log: Path) -> bytes:
        """Run a command to its end; returns its stdout. Raises ProcessFailed when its status is not 0."""
        child = await self.start(name, command, log, piped=True)
        assert child.process.stdout is not None  # piped
        out = await child.process.stdout.read()
        status = await child.process.wait()
        if status != 0:
            raise ProcessFailed(f"`{name}` ended with status {status}: {child.last_words()}")
        return out


def console_script(name: str) -> str:
    """The path of a command of this environment, such as `laterne`. Raises ProcessFailed when it is not installed."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ProcessFailed(f"the command {name} is not installed: make setup, or pip install 'laterne[emulator]'")
    return found


def dying_with_us(command: list[str]) -> list[str]:
    """The command, which the kernel ends when the thread ends that starts it, however that happens."""
    setpriv = shutil.which("setpriv")
    return command if setpriv is None else [setpriv, "--pdeathsig", "TERM", *command]
