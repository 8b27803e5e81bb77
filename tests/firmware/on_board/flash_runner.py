"""Records, state and backlog in a folder of the host, for test_store.py, test_backlog.py and test_draft.py.

Each question is one life of a board: everything is read from files again, then the steps are done.
"""

import os

from lines import serve

from laterne_firmware import recovery, settings
from laterne_firmware.backlog import Backlog
from laterne_firmware.identity import Identity
from laterne_firmware.state import State
from laterne_firmware.store import Record
from laterne_protocol import cose, report, report_reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREVIOUS = bytes(16)


def answer(question: "dict[str, Any]") -> object:
    os.chdir(question["folder"])
    if "record" in question:
        return _record(question["record"])
    if "settings" in question:
        loaded, problem = settings.load("settings.json")
        return [loaded.report_s, loaded.sample_ms, loaded.address, problem]
    said = []  # type: list[str]
    state = State("st")
    backlog = Backlog(state, said.append, "log", question.get("max_segments", 24))
    identity = Identity()
    identity.board = question.get("board", "LE-0001") if question.get("enrolled", True) else None
    identity.credential_digest = PREVIOUS
    for _ in recovery.start(state, backlog, said.append, identity, 60000):
        pass
    got = [_step(backlog, state, step) for step in question["steps"]]
    return {
        "got": got,
        "next": backlog.next_sequence,
        "head": None if backlog.head is None else backlog.head.hex(),
        "waiting": backlog.waiting,
        "boot": state.boot,
        "bound": state.bound,
        "gaps": state.gaps,
        "said": said,
        "draft": None if backlog.draft is None else [backlog.draft[0].hex(), backlog.draft[1]],
        "cut_ms": backlog.cut_ms,
    }


def _record(steps: "list[str | None]") -> object:
    """Each step is a body to save, or None for a load in a new life."""
    out = []
    for step in steps:
        record = Record("rec")
        if step is None:
            body = record.load()
            out.append([None if body is None else body.hex(), record.doubtful, record.damaged])
        else:
            record.save(bytes.fromhex(step))
    return out


def _step(backlog: Backlog, state: State, step: "list[Any]") -> object:
    what = step[0]
    if what == "append":
        for _ in range(step[1]):
            gaps = backlog.gaps_to_state()
            sequence = backlog.next_sequence
            payload = report.Report(
                "LE-0001", sequence, backlog.head or PREVIOUS, state.boot, 1, (0, None, 0), report.Times(0), [], gaps
            ).to_payload()
            signed = cose.assemble(cose.protected_header(b"12345678"), payload, bytes(64))
            backlog.append(signed, payload, state.boot)
            backlog.gaps_stated(gaps, sequence)
            backlog.cut_ms = 0
        return None
    if what == "draft":  # of the next report, or of that many behind it
        sequence = backlog.next_sequence + step[1]
        made = report.Report(
            "LE-0001", sequence, backlog.head or PREVIOUS, state.boot, 7, (0, None, 0), report.Times(0), [], []
        )
        backlog.keep_draft(made.to_payload())
        return None
    if what == "acknowledge":
        backlog.acknowledge(step[1])
        return None
    if what == "skip":
        backlog.skip()
        return None
    if what == "after":
        bodies = backlog.oldest_after(step[1], report.MAX_REPORT_BYTES)
        return bodies[0].hex() if bodies else None
    if what == "append of":  # so many bytes, which nobody reads here
        backlog.append(bytes(step[1]), b"", state.boot)
        return None
    if what == "together":
        return [len(body) for body in backlog.oldest_after(step[1], step[2])]
    if what == "deliver":  # to a gateway whose last report is step[1], at most step[2] of them
        bodies = []
        last = step[1]
        while len(bodies) < step[2]:
            given = backlog.oldest_after(last, report.MAX_REPORT_BYTES)[: step[2] - len(bodies)]
            if not given:
                break
            bodies.extend(body.hex() for body in given)
            last = _sequence_of(given[-1])
            backlog.acknowledge(last)
        return bodies
    raise ValueError(what)


def _sequence_of(body: bytes) -> int:
    return report_reading.report_of(cose.parse(body, report.MAX_REPORT_BYTES).payload).sequence


serve(answer)
