"""The orders of the firmware alone: what stands on flash at a start, a report, the order in /order, a report.

Every step is said on the console. /arrived instead of /order: the receipt that stands on flash has arrived.
"""

import os
import sys

sys.path.insert(0, "/a")
from laterne_firmware import executed, orders, recovery
from laterne_firmware.backlog import Backlog
from laterne_firmware.clock import Clock
from laterne_firmware.reports import Reporter
from laterne_firmware.sessions import ORDER, RECEIPT_ARRIVED, Sessions
from laterne_firmware.state import State
from laterne_firmware.steps import run
from laterne_firmware.store import exists
from laterne_protocol import cose, receipt


def start() -> None:
    identity = recovery.identity(print)
    state = State()
    backlog = Backlog(state, print)
    for _ in recovery.start(state, backlog, print, identity, 60000):
        pass
    clock = Clock(state.boot)
    reporter = Reporter(identity, backlog, clock, os.urandom, print, 60)
    sessions = Sessions(identity, clock, os.urandom, print, 1, reporter, (0, "emulated", b"hardware"))
    says("found", identity)
    if identity.kid is None or identity.board is None:
        print("done")
        return
    report(identity, backlog, state.boot)
    if exists("/order"):
        reporter.pause(True)  # as the sampling task does: nothing is open
        backlog.acknowledge(backlog.next_sequence - 1)
        with open("/order", "rb") as file:
            answer = run(orders.work(sessions, ORDER, file.read()))
        print("receipt", answer.hex())
        says("now", identity)
        report(identity, backlog, state.boot)
    if exists("/arrived") and identity.silent:
        done = executed.load()
        assert done is not None
        print("arrived", run(orders.work(sessions, RECEIPT_ARRIVED, receipt.digest(done.receipt))).hex())
    print("done")


def says(when: str, identity: "recovery.Identity") -> None:
    agrees = "-" if identity.kid is None else identity.agree_private(False).hex()
    former = identity.former_agree_key.hex() or "-"
    kid = "-" if identity.kid is None else identity.kid.hex()
    print(when, identity.board, kid, identity.credential_digest.hex() or "-", agrees, former, identity.silent)


def report(identity: "recovery.Identity", backlog: Backlog, boot: int) -> None:
    if not identity.silent:
        payload = b"report %d" % backlog.next_sequence
        signed = run(identity.sign(cose.REPORT, payload, os.urandom))
        print("report", backlog.next_sequence, signed.hex())
        backlog.append(signed, payload, boot)


start()
