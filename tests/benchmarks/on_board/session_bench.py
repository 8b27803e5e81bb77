"""What a record costs on either interpreter, for tests/benchmarks/bench_session.py.

{"size", "times"} -> microseconds of one seal and of one open, each the mean of so many.
"""

import time

from laterne_protocol.session import LinkKey, Session

HEADER = b"\x13\x07\x00"


class Records:
    def __init__(self, primitives):
        self._primitives = primitives

    def answer(self, question):
        """[seal, open]"""
        down, up = LinkKey(bytes(16), bytes(13)), LinkKey(bytes([1] * 16), bytes(13))
        sender = Session(self._primitives, down, up, b"\x01", b"\x02", 0)
        receiver = Session(self._primitives, up, down, b"\x02", b"\x01", 0)
        message, times = bytes(question["size"]), question["times"]
        records = []
        begun = now_us()
        for _ in range(times):
            records.append(sender.seal(HEADER, message, 0))
        sealed = now_us()
        for record in records:
            receiver.open(HEADER, record, 0)
        opened = now_us()
        return [(sealed - begun) / times, (opened - sealed) / times]


def now_us():
    return time.ticks_us() if hasattr(time, "ticks_us") else time.perf_counter_ns() / 1000


if __name__ == "__main__":
    from lines import serve

    from laterne_firmware import ciphers
    from laterne_protocol.edhoc_keys import Primitives

    # Records need no arithmetic of the curve.
    serve(
        Records(
            Primitives(None, None, None, ciphers.hkdf_extract, ciphers.hkdf_expand, ciphers.ccm_seal, ciphers.ccm_open)
        ).answer
    )
