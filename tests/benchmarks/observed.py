"""What benchmarks observe from outside: messages at a broker, and what a process costs by /proc (proc(5))."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

STALLED_S = 10.0  # nothing arrives for so long: something is broken, and a figure would be none
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of a process since it started: processor seconds, bytes that it caused to be written to a disk."""

    processor_s: float
    written_bytes: int


def cost(pid: int) -> Cost:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    written = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return Cost((int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND, int(written["write_bytes"]))


def resident_mib(pid: int, peak: bool = False) -> float:
    """Memory of a process that lies in RAM, now or at most so far."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    found = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(wanted))
    return int(found.split()[1]) / 1024


class Counter:
    """A subscriber that keeps what arrives, in one thread and with the cheapest delivery, so that it limits nobody.

    arrived: topic and payload, in order. last_s: when the last one came (monotonic). answer: to a message, if it has
    one: its topic and payload.
    """

    def __init__(
        self, port: int, topics: list[str], answer: Callable[[str], tuple[str, bytes] | None] = lambda _: None
    ) -> None:
        self._answer = answer
        self.arrived: list[tuple[str, bytes]] = []
        self.last_s = 0.0
        self._client = Client(CallbackAPIVersion.VERSION2, "counter", protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._subscribed = False
        self._client.on_subscribe = self._note
        self._client.subscribe([(topic, 0) for topic in topics])
        self.until(lambda: self._subscribed)

    def until(self, happened: Callable[[], bool]) -> None:
        """Listens until it has happened. Raises RuntimeError: nothing has come for STALLED_S."""
        begun_s = time.monotonic()
        while not happened():
            self._client.loop(0.05)
            if time.monotonic() - max(begun_s, self.last_s) > STALLED_S:
                raise RuntimeError(f"nothing arrives any more; {len(self.arrived)} messages did")

    def listen(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._client.loop(0.05)

    def say(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1)

    def close(self) -> None:
        self._client.disconnect()

    def _note(self, *_: object) -> None:
        self._subscribed = True

    def _take(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        answer = self._answer(message.topic)
        if answer is not None:
            client.publish(*answer)
            return
        self.arrived.append((message.topic, bytes(message.payload)))
        self.last_s = time.monotonic()
