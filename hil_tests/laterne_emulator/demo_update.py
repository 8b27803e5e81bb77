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
BEGINS_WITHIN_S = 30.0
LOOK_AGAIN_S = 0.5
ENDS_WITHIN_S, ENDS_WITHIN_A_BOARD_S = 300.0, 60.0  # one board after the other is in trial, for half a minute
_HALTED = 1  # exit status
ANNOUNCED = {
    GOOD: "The good release goes out: to one board, the canary, and when that is well to the others, wave by wave.",
    BAD: "The bad release goes out: it raises an error when it is started. The canary should go back by itself.",
}
_BEGUN = re.compile(r"^The campaign (\S+): ", re.MULTILINE)
_RELEASE = re.compile(rb'^RELEASE = "([^"]{1,24})"', re.MULTILINE)


@dataclass
class Campaigns:
    """Both campaigns. place: the demo's directory. boards: their ids, the first is the canary. say: told what goes on.
    show: given what `laterne campaign status --json --boards` says, at each change. results: what design.md, 9 wants of
    each.
    """

    place: Path
    broker: str
    tenant: str
    boards: Sequence[str]
    laterne: Callable[..., Awaitable[None]]
    say: Callable[[str], None]
    show: Callable[[dict[str, Any]], None]

    def __post_init__(self) -> None:
        self.results: list[dict[str, Any]] = []

    @property
    def is_as_it_should_be(self) -> bool:
        return [one["state"] for one in self.results] == [EXPECTED[GOOD], EXPECTED[BAD]]

    async def run(self, children: Children) -> None:
        """Both, one after the other. Raises ProcessFailed."""
        for kind in (GOOD, BAD):
            file = await self._build(kind)
            self.say(ANNOUNCED[kind])
            self.results.append(await self._send(children, file))

    async def _build(self, kind: str) -> Path:
        self.say(f"A {kind} release is built from this firmware's sources and signed.")
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
            "--tenant", self.tenant, "--canary", self.boards[0], "--waves", "50,100", "--soak", "2s",
            "--reports", str(REPORTS),
        ]  # fmt: skip
        child = await children.start("campaign", command, log=self.place / "campaign.log", piped=True)
        assert child.process.stdout is not None  # piped
        watching = asyncio.create_task(self._watch(children, child, where))
        within_s = ENDS_WITHIN_S + ENDS_WITHIN_A_BOARD_S * len(self.boards)
        try:
            async with asyncio.timeout(within_s):
                out = await child.process.stdout.read()
                status = await child.process.wait()
        except TimeoutError:
            raise ProcessFailed(f"the campaign has not ended in {within_s:.0f} s: {child.last_words()}") from None
        finally:
            watching.cancel()
            await asyncio.wait((watching,))
        if status not in (0, _HALTED) or not out:
            raise ProcessFailed(f"the campaign ended with status {status}: {child.last_words()}")
        found = json.loads(out)
        shown = [console_script("laterne"), "campaign", "status", found["id"], *where, "--json", "--boards"]
        self.show(json.loads(await children.run("laterne campaign status", shown, log=self.place / "campaign.log")))
        self.say(_in_words(found))
        return {"release": found["release"]["version"], "state": found["state"], "boards": found["boards"]}

    async def _watch(self, children: Children, child: Child, where: Sequence[str]) -> None:
        """Show how far it is, as `laterne campaign status` tells it."""
        log = self.place / "campaign.log"
        name = await self._begun(log)
        command = [console_script("laterne"), "campaign", "status", name, *where, "--json", "--boards", "--watch"]
        looking = await children.start("campaign status", command, log=log, piped=True)
        assert looking.process.stdout is not None  # piped
        try:
            async for line in looking.process.stdout:
                self.show(json.loads(line))
        finally:
            await looking.end()

    async def _begun(self, log: Path) -> str:
        """The id of the campaign that has begun, as its command says it."""
        async with asyncio.timeout(BEGINS_WITHIN_S):
            while True:
                names = _BEGUN.findall(log.read_text())
                if len(names) > len(self.results):
                    return str(names[-1])
                await asyncio.sleep(LOOK_AGAIN_S)


def _in_words(found: dict[str, Any]) -> str:
    """What came of a campaign, as its command told it."""
    version, boards = found["release"]["version"], found["boards"]
    if found["state"] == "COMPLETED":
        return f"{version} is on all boards: {boards['CONFIRMED']} have confirmed it by their own signature."
    words = [f"The campaign of {version} is {found['state']}: {found['reason']}."]
    words += [f"  {one['board']}, {one['why'].replace('_', ' ')}: {one['said']}." for one in found["failures"]]
    if boards.get("QUEUED"):
        words.append(f"  {boards['QUEUED']} of {sum(boards.values())} boards never got it.")
    return "\n".join(words)


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
