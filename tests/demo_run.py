"""A demo under test: started as a user starts it, looked at from outside, always ended."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LATERNE = Path(sys.executable).with_name("laterne")
SERVED_WITHIN_S = 60.0  # set-up of two boards takes 4 s; eight test runs may share two cores


class DemoRun:
    """`async with DemoRun(place, "--boards", "2", "--seconds", "9") as run`. place: its directory, not there yet."""

    def __init__(self, place: Path, *options: str) -> None:
        self.place = place
        self._options = options
        self.process: asyncio.subprocess.Process
        self.said = ""  # on stderr, once figures() has returned

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            str(LATERNE), "demo", "--json", "--directory", str(self.place), *self._options,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def served(self, board: str) -> None:
        """Returns when the gateway has heard this board."""
        log = self.place / "gateway.log"
        async with asyncio.timeout(SERVED_WITHIN_S):
            while not log.exists() or f"{board}: " not in log.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.1)

    async def gateway(self, other_than: int | None = None) -> int:
        """The process number of the gateway that runs now."""
        async with asyncio.timeout(SERVED_WITHIN_S):
            while True:
                for process in self.processes(f"laterne-gateway run --config {self.place}/gateway.toml"):
                    if process != other_than:
                        return process
                await asyncio.sleep(0.1)

    def processes(self, pattern: str | None = None) -> list[int]:
        """Every process whose command line has this pattern; all of the demo's by default."""
        found = subprocess.run(["pgrep", "-f", pattern or str(self.place)], capture_output=True, text=True, check=False)
        return [int(number) for number in found.stdout.split() if int(number) != self.process.pid]

    async def figures(self) -> dict[str, Any]:
        """Its last line, when it has ended well."""
        out, errors = await self.process.communicate()
        self.said = errors.decode()
        assert self.process.returncode == 0, self.said
        figures: dict[str, Any] = json.loads(out.splitlines()[-1])
        return figures
