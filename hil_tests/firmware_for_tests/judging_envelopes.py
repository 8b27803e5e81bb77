"""The envelopes in /x/envelopes, judged by the firmware alone one after the other, as those that were ordered.

Each stands there as two bytes of length and a body of release_check.work(). What came of each is said on the console.
"""

import gc
import os
import sys

sys.path.insert(0, "/a")
from laterne_firmware import recovery
from laterne_firmware.backlog import Backlog
from laterne_firmware.clock import Clock
from laterne_firmware.reports import Reporter
from laterne_firmware.sessions import UPDATE, Sessions
from laterne_firmware.state import State
from laterne_firmware.steps import run


def silent(line: str) -> None:
    pass


def start() -> None:
    state = State()
    backlog = Backlog(state, silent)
    identity = recovery.identity(silent)
    for _ in recovery.start(state, backlog, silent, identity, 60000):
        pass
    clock = Clock(state.boot)
    reporter = Reporter(identity, backlog, clock, os.urandom, silent, 60)
    sessions = Sessions(identity, clock, os.urandom, silent, 1, reporter, (0, "emulated", b"hardware"))
    from laterne_firmware import judging  # Sessions have unloaded it

    print("begins")
    with open("/x/envelopes", "rb") as file:
        while True:
            size = file.read(2)
            if not size:
                break
            sessions.judged = None
            gc.collect()
            run(judging.work(sessions, UPDATE, file.read(size[0] << 8 | size[1])))
            judged = sessions.judged
            print("judged", judged[1] if judged else "nothing")
    print("done")


start()
