"""The backlog of the firmware alone: reports are appended and acknowledged, and every step is said on the console."""

import sys

sys.path.insert(0, "/a")
from laterne_firmware import backlog, recovery, segment
from laterne_firmware.identity import Identity
from laterne_firmware.state import State
from laterne_protocol import report

for module in (segment, backlog, recovery):
    module.SEGMENT_REPORTS = 3  # so that a few reports fill some segments
APPENDED, KEPT = 5, 2
PREVIOUS = bytes(report.DIGEST_BYTES)
NAME = "LE-0001"


def start() -> None:
    state = State()
    reports = backlog.Backlog(state, print)
    identity = Identity()
    identity.board, identity.credential_digest = NAME, PREVIOUS
    for _ in recovery.start(state, reports, print, identity, 60000):
        pass
    if reports.draft is not None:
        sequence = reports.next_sequence
        payload, boot = reports.draft
        reports.append(sequence.to_bytes(4, "big") + payload, payload, boot)
        print("adopt", sequence, payload.hex())
    print("start", state.boot, reports.next_sequence, (reports.head or PREVIOUS).hex(), len(state.gaps))
    sequence = 0
    while True:
        bodies = reports.oldest_after(sequence, report.MAX_REPORT_BYTES)
        if not bodies:
            break
        for body in bodies:
            sequence = int.from_bytes(body[:4], "big")
            print("offer", sequence, body[4:].hex())
    for first, last, reason, _ in state.gaps:
        print("gap", first, last, reason)
    for _ in range(APPENDED):
        sequence = reports.next_sequence
        draft = report.Report(
            NAME, sequence, reports.head or PREVIOUS, state.boot, 7, (0, None, 0), report.Times(0), [], []
        ).to_payload()
        reports.keep_draft(draft)
        print("draft", sequence, draft.hex())
        payload = b"report %d of start %d" % (sequence, state.boot)
        reports.append(sequence.to_bytes(4, "big") + payload * 10, payload, state.boot)
        print("append", sequence, (payload * 10).hex())
        print("acknowledge", sequence - KEPT)  # before: the cut may come when it is half done
        reports.acknowledge(sequence - KEPT)
    print("done")


start()
