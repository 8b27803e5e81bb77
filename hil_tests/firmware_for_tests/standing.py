"""The supervisor of the firmware with one task that works and one that stands still after a while, in quick passes."""

import asyncio
import sys

import machine

sys.path.insert(0, "/a")
from laterne_firmware import supervisor

supervisor.PASS_MS = 20
STANDS_STILL_AFTER = 50  # steps; 0: never


async def work(beat):
    step = 0
    while True:
        beat()
        step += 1
        if step % 50 == 0:
            print("step", step)
        await asyncio.sleep_ms(10)


async def stand_still(beat):
    for _ in range(STANDS_STILL_AFTER):
        beat()
        await asyncio.sleep_ms(10)
    print("stands still")
    await asyncio.sleep(3600)


async def main():
    both = supervisor.Supervisor(machine.WDT(timeout=1000), print, machine.reset)
    both.start("work", work)
    if STANDS_STILL_AFTER:
        both.start("stand still", stand_still)
    await both.run(lambda: None)


asyncio.run(main())
