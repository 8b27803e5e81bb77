"""`laterne demo --update`: a good release goes out to all boards, then a bad one that stops at the first.

Both are built from copies of the sources of the firmware, signed and sent out by the commands of an operator, each as a
process of its own. The bad one raises when it is imported: its board starts three times, goes back by itself, and the
campaign halts.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import laterne_protocol
from laterne_emulator import image
from laterne_emulator.processes import Child, Children, ProcessFailed, console_script

GOOD, BAD = "good", "bad"
SEQUENCES = {GOOD: 2, BAD: 3}  # boards come with 1
EXPECTED = {GOOD: "COMPLETED", BAD: "HALTED"}
TRIAL_S = 120
REPORTS = 2  # compared with as many before: ten seconds at a report each 5 s
LOOK_EACH_S = 5.0
ENDS_WITHIN_S = 900.0  # eight boards take five minutes: one after the other is in trial
_HALTED = 1  # exit status
_RELEASE = re.compile(rb'^RELEASE = "([^"]{1,24})"', re.MULTILINE)


@dataclass
class Campaigns:
    """Both campaigns. place: the demo's directory. say: told what goes on. results: what design.md, 9 wants of each."""

    place: Path
    broker: str
    tenant: str
    canary: str
    laterne: Callable[..., Awaitable[None]]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.results: list[dict[str, Any]] = []

    @property
    def is_as_it_should_be(self) -> bool:
        return [one["state"] for one in self.results] == [EXPECTED[GOOD], EXPECTED[BAD]]

    async def run(self, children: Children) -> None:
        """Both, one after the other. Raises ProcessFailed."""
        for kind in (GOOD, BAD):
            file = await self._build(kind)
            self.say(f"the {kind} release goes out")
            self.results.append(await self._send(children, file))

    async def _build(self, kind: str) -> Path:
        self.say(f"building the {kind} release")
        sources = self.place / "releases" / kind
        file = sources.with_suffix(".laterne")
        await asyncio.to_thread(_copy, sources, kind)
        await self.laterne(
            "release", "build", "-o", str(file), "--firmware", str(sources / "firmware"), "--uncommitted",
            "--sequence", str(SEQUENCES[kind]), "--trial", str(TRIAL_S),
        )  # fmt: skip
        await self.laterne("release", "sign", str(file), "--authority", str(self.place / "authority"))
        return file

    async def _send(self, children: Children, file: Path) -> dict[str, Any]:
        where = ["--authority", str(self.place / "authority")]
        command = [
            console_script("laterne"), "campaign", "start", str(file), *where, "--broker", self.broker, "--json",
            "--tenant", self.tenant, "--canary", self.canary, "--waves", "50,100", "--soak", "2s",
            "--reports", str(REPORTS),
        ]  # fmt: skip
        child = await children.start("campaign", command, log=self.place / "campaign.log", piped=True)
        assert child.process.stdout is not None  # piped
        watching = asyncio.create_task(self._watch(children, child, where))
        try:
            async with asyncio.timeout(ENDS_WITHIN_S):
                out = await child.process.stdout.read()
                status = await child.process.wait()
        except TimeoutError:
            raise ProcessFailed(f"the campaign has not ended in {ENDS_WITHIN_S:.0f} s: {child.last_words()}") from None
        finally:
            watching.cancel()
            await asyncio.wait((watching,))
        if status not in (0, _HALTED) or not out:
            raise ProcessFailed(f"the campaign ended with status {status}: {child.last_words()}")
        found = json.loads(out)
        self.say(f"the campaign is {found['state']}{': ' + found['reason'] if found['reason'] else ''}")
        return {"release": found["release"]["version"], "state": found["state"], "boards": found["boards"]}

    async def _watch(self, children: Children, child: Child, where: Sequence[str]) -> None:
        """Say how far it is, as its own command tells it."""
        said = ""
        while not child.ended:
            await asyncio.sleep(LOOK_EACH_S)
            command = [console_script("laterne"), "campaign", "status", *where, "--json"]
            log = self.place / "campaign.log"
            try:
                boards = json.loads(await children.run("laterne campaign status", command, log=log))["boards"]
            except ProcessFailed:
                return  # everything is being ended; what the campaign came to, it says itself
            now = ", ".join(f"{count} {state}" for state, count in boards.items())
            if now != said:
                self.say(now)
            said = now


def _copy(folder: Path, kind: str) -> None:
    """The sources of a release of this kind, in folder/firmware and folder/protocol."""
    shutil.copytree(image.find_firmware(), folder / "firmware")
    shutil.copytree(Path(laterne_protocol.__path__[0]), folder / "protocol" / "laterne_protocol")
    package = folder / "firmware" / "laterne_firmware"
    start = package / "__init__.py"
    named, count = _RELEASE.subn(rb'RELEASE = "\1-%s"' % kind.encode(), start.read_bytes())
    if count != 1:
        raise ProcessFailed(f"{start} names no RELEASE that could be another one")
    start.write_bytes(named)
    if kind == BAD:
        with (package / "app.py").open("ab") as app:
            app.write(b'\nraise RuntimeError("a bad release")\n')
