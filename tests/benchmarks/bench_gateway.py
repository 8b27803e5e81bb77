"""The gateway's throughput beside ThingsBoard Gateway's, on the same machine, through the same mosquitto, in one run.

Ours: `laterne-gateway run`, 32 boards with a backlog on eight lines (PTYs), each message in a session; every report's
signature, number and chain are checked, it is committed with FULL, published at QoS 1 and acknowledged by the broker.
The peer: 32 devices publish JSON with the same readings at QoS 1, it stores them in SQLite and publishes them at QoS 1.

Rounds take turns. Counted is what arrives at a subscriber, from the moment the backlog is released to the last
message; then it is compared with what was sent. Processor time is of the gateway's process alone. At 96 readings the
peer has an array of 24 points of four values in a message, as ours has a report of 24 times four. Its budget there is
the better one of its two rates: a message of four values costs it less a value than an array does.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks.observed import Counter, cost, resident_mib
from tests.benchmarks.quick_boards import Street
from tests.benchmarks.thingsboard import TELEMETRY, Devices, ThingsBoardGateway, platform, points_in
from tests.servers import Mosquitto

from laterne_gateway import status
from laterne_protocol import cbor, cose, report, report_reading

Row = tuple[str, str, str]

LINES, BOARDS_A_LINE = 8, 4
BOARDS = LINES * BOARDS_A_LINE
ROUNDS = 5
REPORTS = {4: 400, 96: 100}  # of a board, by readings
IDLE_S = 3.0
STOPS_WITHIN_S = 20.0  # it stops within a tenth of a second


@dataclass(frozen=True)
class Run:
    """messages_s: reports, or devices' messages, a second. processor_us: of the gateway's process for one of them.

    idle: share of a core before anything came. mib: memory then, and the most in all.
    """

    messages_s: float
    processor_us: float
    idle: float
    idle_mib: float
    peak_mib: float
    stored: str


def idle_of(pid: int, counter: Counter) -> tuple[float, float]:
    before = cost(pid)
    counter.listen(IDLE_S)
    return (cost(pid).processor_s - before.processor_s) / IDLE_S, resident_mib(pid)


@contextmanager
def served(folder: Path, street: Street) -> Iterator[tuple["subprocess.Popen[bytes]", Counter]]:
    """A gateway that has a session with each board of the street, and a subscriber to their reports."""
    broker = Mosquitto(folder / "mosquitto")
    broker.start()
    config = street.begin(folder / "gateway", broker.url)
    with (folder / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen(
            [sys.executable, "-m", "laterne_gateway", "run", "--config", str(config)], stdout=log, stderr=log
        )
    try:
        counter = Counter(broker.port, ["laterne/v1/+/+/+/report"])
        counter.until(lambda: (folder / "gateway.log").read_text().count("session opened") == len(street.boards))
        yield gateway, counter
        counter.close()
    finally:
        end(gateway)
        street.end()
        broker.stop()


def ours(folder: Path, street: Street) -> Run:
    with served(folder, street) as (gateway, counter):
        idle, idle_mib = idle_of(gateway.pid, counter)
        before, began_s = cost(gateway.pid), time.monotonic()
        street.release()
        counter.until(lambda: len(counter.arrived) >= street.reports)
        spent = cost(gateway.pid).processor_s - before.processor_s
        compare(street, counter)
        counter.until(lambda: waiting(folder / "gateway" / "state") == 0)  # the last PUBACKs have been read, too
        rate = street.reports / (counter.last_s - began_s)
        peak_mib = resident_mib(gateway.pid, peak=True)
    return Run(rate, spent / street.reports * 1e6, idle, idle_mib, peak_mib, "all of them, byte for byte")


def end(gateway: "subprocess.Popen[bytes]") -> None:
    gateway.terminate()
    try:
        gateway.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        gateway.kill()
        gateway.wait()
        raise


def waiting(state: Path) -> int:
    found = status.read(state)
    assert found is not None
    buffer = found["buffer"]
    assert isinstance(buffer, dict)
    return sum(buffer["waiting"].values())


def compare(street: Street, counter: Counter) -> None:
    """Every report, once, in order, byte for byte."""
    bodies: dict[str, list[bytes]] = {}
    for topic, payload in counter.arrived:
        bodies.setdefault(topic.split("/")[-2], []).append(payload)
    for board in street.boards:
        assert [cbor.encode(one) for one in bodies[board.whole.name]] == board.reports
    last = report_reading.report_of(cose.parse(counter.arrived[-1][1], report.MAX_REPORT_BYTES).payload)
    assert sum(1 for _ in report_reading.readings_of(last)) == street.readings


def theirs(folder: Path, devices: Devices) -> Run:
    broker = Mosquitto(folder / "mosquitto")
    broker.start()
    (folder / "peer").mkdir()
    gateway = ThingsBoardGateway(folder / "peer", broker.port)
    pid = gateway.start()
    try:
        counter = Counter(broker.port, [TELEMETRY, "v1/devices/me/rpc/request/+"], platform)
        while not counter.arrived:  # it says nowhere that it is ready
            gateway.require_running()
            counter.say("devices/LE-warm/report", b'{"temperature": 1}')
            counter.listen(0.5)
        counter.listen(2.0)
        idle, idle_mib = idle_of(pid, counter)
        counter.arrived.clear()
        before, began_s = cost(pid), time.monotonic()
        devices.publish(broker.port)
        found: set[tuple[str, int]] = set()
        values = looked_at = 0

        def all_there() -> bool:
            nonlocal values, looked_at
            for _, payload in counter.arrived[looked_at:]:
                for device, at_ms, count in points_in(payload):
                    found.add((device, at_ms))
                    values += count
            looked_at = len(counter.arrived)
            return values >= devices.messages * devices.readings

        counter.until(all_there)
        spent = cost(pid).processor_s - before.processor_s
        rate = devices.messages / (counter.last_s - began_s)
        peak_mib = resident_mib(pid, peak=True)
        counter.close()
    finally:
        devices.end()
        gateway.end()
        broker.stop()
    points = devices.messages * devices.readings // 4
    return Run(rate, spent / devices.messages * 1e6, idle, idle_mib, peak_mib, f"{len(found):,} of {points:,} points")


def rounds_of(readings: int) -> list[tuple[Run, Run]]:
    street = Street(LINES, BOARDS_A_LINE, REPORTS[readings], readings)
    devices = Devices(BOARDS, REPORTS[readings], readings)
    done = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="laterne-bench-") as folder:
            mine, peer = Path(folder) / "ours", Path(folder) / "theirs"
            done.append((ours(mine, street), theirs(peer, devices)))
    return done


def middle(figures: list[float]) -> str:
    return f"{median(figures):,.0f} ({min(figures):,.0f}..{max(figures):,.0f})"


def rows() -> list[Row]:
    """(what, figure, budget and peer), all measured now; takes about four minutes."""
    few, many = rounds_of(4), rounds_of(96)
    best = median(
        max(four.messages_s * 4, array.messages_s * 96) for (_, four), (_, array) in zip(few, many, strict=True)
    )
    found: list[Row] = []
    for readings, rounds, budget in ((4, few, "1.3 x"), (96, many, "")):
        ratio = median(mine.messages_s / peer.messages_s for mine, peer in rounds)
        found += [
            (
                f"{readings} readings a report: reports/s, median of {ROUNDS}",
                f"{middle([mine.messages_s for mine, _ in rounds])}, {ratio:.2f} x",
                f"{budget} peer {middle([peer.messages_s for _, peer in rounds])} messages/s".strip(),
            ),
            (
                "of them values/s",
                f"{median(mine.messages_s for mine, _ in rounds) * readings:,.0f}",
                f"peer {median(peer.messages_s for _, peer in rounds) * readings:,.0f}",
            ),
            (
                "of them processor time a report",
                f"{median(mine.processor_us for mine, _ in rounds):,.0f} us",
                f"peer {median(peer.processor_us for _, peer in rounds):,.0f} us",
            ),
            (
                "of them memory, at most",
                f"{median(mine.peak_mib for mine, _ in rounds):.1f} MiB, "
                f"{median(mine.peak_mib / peer.peak_mib for mine, peer in rounds):.2f} x",
                f"0.6 x; peer {median(peer.peak_mib for _, peer in rounds):.1f} MiB",
            ),
            ("of them delivered", rounds[-1][0].stored, f"peer {rounds[-1][1].stored}"),
        ]
    rate = median(mine.messages_s * 96 for mine, _ in many)
    found.append(("values/s at 96, beside the peer at its best", f"{rate / best:.1f} x", f"10 x; peer {best:,.0f}"))
    both = few + many
    peer_mib = median(one.idle_mib for _, one in both)
    found.append(
        (
            f"idle, {BOARDS} boards that have nothing to say",
            f"{median(mine.idle for mine, _ in both):.1%} of a core, {median(one.idle_mib for one, _ in both):.1f} MiB",
            f"48 MiB; peer {median(one.idle for _, one in both):.1%}, {peer_mib:.1f} MiB",
        )
    )
    return found


if __name__ == "__main__":
    for what, figure, beside in rows():
        print(f"{what:52}  {figure:44}  {beside}")
