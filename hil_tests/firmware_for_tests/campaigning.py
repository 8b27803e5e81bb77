"""A board's part of a campaign as the firmware has it, from STAGE to the confirmation; and who orders and sends.

What is real: `updating`, `installer`, `unpacking`, `slot_check`, `release_orders`, `executed`, `running`, the records,
and before all of it the loader. What is not: sessions, reports, and signatures, which cost a hundred times as much; an
envelope is good here when it is the one of the plan. Who orders does what an operator and a gateway do: an order comes
again until its receipt is on flash, what is wanted is sent, and a release that runs its trial is called healthy.

/f is what is frozen: the plan, the codes of all blocks in /f/x, and all modules but those of a release that say which
one it is. So the flash holds slots and records, and a start is short.
"""

import os
import sys
import time

import machine

ACROSS = "a rename from one folder to another"


class Watched:
    """`os` as all modules below see it. littlefs repairs a rename across folders at the next mount, and has had bugs in
    that (littlefs#467, #949): there is none in this firmware, so whoever judges takes this line for a fault."""

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def rename(self, old: str, new: str) -> None:
        if old.rpartition("/")[0] != new.rpartition("/")[0]:
            print(ACROSS)
        os.rename(old, new)


# ruff: noqa: E402 - what follows is to find this `os`
sys.modules["os"] = Watched()

import part

from laterne_firmware import executed, orders, release_orders, running, updating
from laterne_firmware.identity import Identity
from laterne_firmware.steps import run as at_once
from laterne_protocol import cbor, order
from laterne_protocol.update_messages import ENVELOPE, FAILED, IDLE, RAW, STAGED, TRIAL, Data, Update

PLACE = "/f/x/"
PART_BYTES, PIECE_BYTES = 900, 4096


def signed(sessions: "Sessions", digest: bytes, reason: "int | None", result: "bytes | None") -> "object":
    yield None
    return b"receipt of " + digest


orders.signed = signed


class Plan:
    """releases: [digest, sequence, envelope, SHA-256 of the index, its size]. orders: [action, number of the release,
    item that is wanted when it comes; None: the whole release is there]."""

    def __init__(self) -> None:
        with open("/f/plan", "rb") as file:
            self.releases, self.orders = cbor.decode(file.read(), 4096)

    def code(self, which: int, item: int, start: int, most: int) -> "tuple[int, int, bytes]":
        """Size, encoding and code of a block: of one that goes on in the next files, if they are wanted, too."""
        if item == ENVELOPE:
            return len(self.releases[which][2]), RAW, self.releases[which][2]
        name = PLACE + str(which) + "-" + str(item)
        for kind in ("long", "short"):
            try:
                with open(name + "-" + str(start) + "-" + kind, "rb") as file:
                    size = int.from_bytes(file.read(2), "big")
                    if size <= most:
                        return size, file.read(1)[0], file.read()
            except OSError:
                pass  # where none begins it is raw
        with open(name, "rb") as file:
            file.seek(start)
            content = file.read(min(most, PIECE_BYTES))
            return len(content), RAW, content

    def of(self, digest: bytes) -> int:
        for which in range(len(self.releases)):
            if self.releases[which][0] == digest:
                return which
        raise ValueError("nobody has ordered that")


class Sessions:
    """What the modules of an update ask of the sessions, their clock and their reporter."""

    def __init__(self, plan: Plan, identity: Identity) -> None:
        self.plan = plan
        self.identity = identity
        self.clock = self.reporter = self.backlog = self
        self.next_sequence = 1
        self.is_quiet = True
        self.nonce = bytes(order.NONCE_BYTES)
        self.updating = self.judged = self.staged = None
        self.ended = False
        self.blocks = self.floor = self.begun_again = 0

    def now_ms(self) -> int:
        return 0  # an answer has all the time it wants

    def random(self, count: int) -> bytes:
        return bytes(count)

    def log(self, text: str) -> None:
        print(text)

    def judge(self, body: bytes, now_ms: int) -> None:
        release, sequence, _, envelope, is_from_flash = cbor.decode(body, 1200)
        _, right, good, index, size = self.plan.releases[self.plan.of(release)]
        refused = 0 if envelope == good and sequence == right else 255 if is_from_flash else 16
        self.judged = release, refused, envelope, index, size

    def begin_updating_anew(self) -> None:
        if self.updating is not None:
            self.updating.rest()
        self.updating = self.judged = self.staged = None
        self.blocks = 0

    def ask(self, told: "bytes | None" = None) -> "object":
        if self.updating is None:
            self.updating = updating.Updating(self)
        return self.updating.answer(Update(0, told), 0)

    def fetch(self, until: "int | None") -> None:
        """Until the release is there, this item is wanted, or the board wants none."""
        while True:
            said = self.ask()
            if said.phase in (STAGED, FAILED, IDLE, TRIAL):
                return
            if said.wanted is not None and said.credit:
                release, item, start, most, _, _, _ = said.wanted
                if until is not None and item >= until:
                    return
                print("wants", item, start)
                size, encoding, code = self.plan.code(self.plan.of(release), item, start, most)
                for at in range(0, len(code), PART_BYTES):
                    sent = code[at : at + PART_BYTES]
                    self.updating.take(Data(0, item, start, size, encoding, len(code), at, sent))

    def told(self, number: int, action: int, which: int) -> None:
        digest = b"order %d" % number + bytes(9)
        release, sequence = self.plan.releases[which][:2]
        argument = [release, sequence, self.nonce] if action == order.STAGE else [release, self.nonce, 2000000000]
        made = order.Order("LE-0007", self.identity.kid, number, action, argument)
        try:
            at_once(release_orders.work(self, made, digest))
            print("order", number, "executed")
        except orders.Refused as why:
            print("order", number, "refused", why.args[0])
            executed.Executed("LE-0007", number, digest, b"refused", self.identity.kid).save()


def run() -> None:
    print("runs", part.NAME, part.ALSO, "from", sys.path[0])
    try:
        goes_on()
    except Exception as why:  # on a board a reset; here whoever judges need not wait for it
        sys.print_exception(why)
        print("failed")
    print("done")
    while True:
        time.sleep_ms(1000)


def goes_on() -> None:
    identity = Identity()
    identity.kid = b"of a key"
    running.learn(identity)
    if identity.trial and part.CRASHES:
        machine.reset()
    sessions = Sessions(Plan(), identity)
    last = executed.load()
    for number, (action, which, until) in enumerate(sessions.plan.orders):
        if last is None or number + 1 > last.counter:
            if action != order.STAGE:
                sessions.fetch(until)
            sessions.told(number + 1, action, which)
            if sessions.ended:
                machine.reset()
    sessions.ask(identity.release if identity.trial else None)
