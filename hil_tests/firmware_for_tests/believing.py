"""What a board believes, alone: a trust, a gateway, a newer trust; every step is said on the console."""

import sys

sys.path.insert(0, "/a")
from laterne_firmware import enrolment, introductions, judging, known_gateway
from laterne_firmware.identity import TRUST
from laterne_firmware.steps import run
from laterne_firmware.store import Record, exists, make_directory
from laterne_protocol import trust


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def start() -> None:
    make_directory("/k")
    gateway = known_gateway.load()
    stored = Record(TRUST).load()
    print("found", trust.digest(stored).hex() if stored else "nothing", gateway.digest.hex() if gateway else "nobody")
    if not stored:
        print("trust", enrolment.take_trust(read("/first")).hex())
    if gateway is None:
        gateway = run(judging.judged(lambda: introductions.gateway_in(read("/gateway"), print)))
        assert gateway is not None
        gateway.save()
        print("gateway", gateway.digest.hex())
    print("trust", run(judging.judged(lambda: introductions.trust_in(read("/second"), print))).hex())
    if exists("/again"):  # its keys were lost, and somebody enrols it anew
        enrolment.take_trust(read("/again"))
        print("afterwards", "nobody" if known_gateway.load() is None else "known")
    print("done")


start()
