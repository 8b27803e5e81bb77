"""P1 and P5: whatever a line carries, the gateway goes on serving the others, and its memory stays bounded.

The demo runs with two boards; one of them babbles random bytes at the speed of its line. LATERNE_NOISE_S=60 makes it
a minute instead of seconds.
"""

import asyncio
import os
from pathlib import Path

from tests.demo_run import DemoRun

from laterne_emulator.control import Control

NOISE_S = float(os.environ.get("LATERNE_NOISE_S", "6"))
QUIET_S = 7.0  # before the noise, and after it: a report of the demo closes every 5 s
GROWTH_KIB = 8192  # reports of the quiet board are kept until the broker has them; noise is not


def _resident_kib(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {process} has no resident memory")


async def test_a_board_that_babbles_costs_another_line_nothing(tmp_path: Path) -> None:
    async with DemoRun(tmp_path / "demo", "--boards", "2", "--seconds", str(2 * QUIET_S + NOISE_S)) as run:
        await run.served("LE-0002")
        await asyncio.sleep(QUIET_S)
        gateway = await run.gateway()
        before_kib = most_kib = _resident_kib(gateway)
        async with await Control.connect(run.place / "boards" / "control") as control:
            await control.ask({"do": "babble", "board": "board-02", "on": True})
            for _ in range(int(NOISE_S * 4)):
                await asyncio.sleep(0.25)
                most_kib = max(most_kib, _resident_kib(gateway))
            heard = (await control.ask({"do": "status"}))["boards"]["board-02"]["line"]["to_gateway"]
            await control.ask({"do": "babble", "board": "board-02", "on": False})
        assert await run.gateway() == gateway, "it was started again"
        figures = await run.figures()
    assert heard > NOISE_S * 5000, f"only {heard} bytes of noise at 115,200 baud"
    assert most_kib - before_kib < GROWTH_KIB
    assert figures["readings_lost"] == 0
    assert figures["reports_refused"] == 0
