"""Routes to platforms: a backlog beside live values, the rate beside a hand-written loop, and 32 boards with all on.

`laterne-gateway run` is a process of its own, its boards answer on eight lines (quick_boards.py); what they say is
checked and committed as always.

Backlog: OBSERVATIONS wait in the buffer when the server comes up. From its first answer on, one of 32 boards closes a
report of 96 readings each EVERY_S (in a street: each 1.9 s). A live value's age is from the report's closing on the
board to the server having it; half a second of it may be the board's, which is asked twice a second here. Once with a
server that does next to nothing, as fast as it goes and at the pace that is the default, once with the real one
(django-ogc-sensorthings, SQLite, one worker), as fast as it goes.

Rate: what the route brought to the real server a second, beside the smallest loop that one would write by hand:
as many observations of the same size, 100 rows of one Datastream in a request, one request after the other. That loop
keeps nothing on a disk, looks for nothing and cannot be interrupted. Same program, each with an empty database, which
becomes slower as it grows.

Idle: a report of 96 readings a minute each, routes mqtt with TLS and sensorthings, metrics asked every 15 s.
"""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from tests.benchmarks import quick_boards
from tests.benchmarks.bench_gateway import end
from tests.benchmarks.observed import cost, resident_mib
from tests.benchmarks.quick_boards import CHANNELS, Street
from tests.benchmarks.quick_platform import Arrival, Platform, QuickPlatform, RealPlatform
from tests.gateway.test_tls import Certificates
from tests.servers import Mosquitto, free_port

from laterne_gateway import status
from laterne_gateway.route_settings import DEFAULT_BACKLOG_A_SECOND

Row = tuple[str, str, str]

OBSERVATIONS = int(os.environ.get("LATERNE_BENCH_OBSERVATIONS", "200000"))
LINES, BOARDS_A_LINE, READINGS = 8, 4, 96
BOARDS = LINES * BOARDS_A_LINE
EVERY_S = 0.5
LOOK_S = 0.1
FAST = 100_000  # observations a second: as fast as it goes
LOOP_ROWS = 100
WITHIN_S = 900.0
IDLE_S = float(os.environ.get("LATERNE_BENCH_IDLE_S", "120"))
HEARD_EVERY_MS = 5000  # as boards on a bus want it


@contextmanager
def running(folder: Path, street: Street, url: str, more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A gateway that has a session with each board of the street. more: of its configuration."""
    config = street.begin(folder / "gateway", url)
    text = config.read_text()
    config.write_text(text + more)
    log = folder / "gateway.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "laterne_gateway", "run", "--config", str(config)]
        gateway = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        until(lambda: log.read_text().count("session opened") == BOARDS)
        yield gateway
    finally:
        end(gateway)
        street.end()


def until(happened: Callable[[], bool]) -> None:
    began_s = time.monotonic()
    while not happened():
        time.sleep(LOOK_S)
        if time.monotonic() - began_s > WITHIN_S:
            raise RuntimeError("it does not come")


def waiting(folder: Path) -> dict[str, int]:
    found = status.read(folder / "gateway" / "state")
    assert found is not None
    buffer = found["buffer"]
    assert isinstance(buffer, dict)
    counts: dict[str, int] = buffer["waiting"]
    return counts


def drain(folder: Path, platform: Platform, a_second: int) -> tuple[list[Row], float]:
    """The rows of the table, and observations a second. a_second: the route's pace for a backlog."""
    folder.mkdir(exist_ok=True)
    backlog = -(-OBSERVATIONS // (BOARDS * READINGS))  # reports of a board
    street = Street(LINES, BOARDS_A_LINE, backlog + 200, READINGS)
    broker = Mosquitto(folder / "mosquitto")
    broker.start()
    more = f'[[route]]\nname = "city"\nkind = "sensorthings"\nurl = "{platform.url}"\nbacklog_a_second = {a_second}\n'
    try:
        with running(folder, street, broker.url, more) as gateway:
            for board in range(BOARDS):
                for _ in range(backlog):
                    street.release_one(board)
            until(lambda: waiting(folder) == {"mqtt": 0, "city": backlog * BOARDS})
            before = cost(gateway.pid)
            platform.start()
            found, closed = watched(street, platform, backlog)
            spent_s = cost(gateway.pid).processor_s - before.processor_s
            peak_mib = resident_mib(gateway.pid, peak=True)
    finally:
        platform.stop()
        broker.stop()
    times = Counter((one.board, one.sequence, one.channel, one.position) for one in found)
    assert set(times.values()) == {1}, "stored twice"
    assert len(found) == (backlog * BOARDS + len(closed)) * READINGS, "missing"
    late = [one.at_s for one in found if (one.board, one.sequence) not in closed]
    seconds = max(late) - min(late)
    last: dict[tuple[str, int], float] = {}
    for one in found:
        last[one.board, one.sequence] = max(one.at_s, last.get((one.board, one.sequence), 0.0))
    ages = sorted(last[key] - at_s for key, at_s in closed.items())
    rate = len(late) / seconds
    return [
        (
            f"{len(late):,} observations of backlog drained",
            f"{seconds:.0f} s, {rate:,.0f} observations/s",
            f"{len(closed)} live reports meanwhile",
        ),
        (
            "  age of live values: median, p99, most",
            f"{median(ages):.1f} s, {ages[int(len(ages) * 0.99)]:.1f} s, {ages[-1]:.1f} s",
            "≤ 5 s",
        ),
        (
            "  processor of the gateway, memory at most",
            f"{spent_s / len(found) * 1e6:.0f} us an observation, {peak_mib:.1f} MiB",
            "",
        ),
    ], rate


def watched(street: Street, platform: Platform, backlog: int) -> tuple[list[Arrival], dict[tuple[str, int], float]]:
    """What came until all was there, and the live reports: when each was closed."""
    found: list[Arrival] = []
    closed: dict[tuple[str, int], float] = {}
    began_s = time.monotonic()
    while not found:
        found += platform.new()
        time.sleep(LOOK_S)
    number, due_s = 0, time.monotonic()
    while len(found) < (backlog * BOARDS + len(closed)) * READINGS:
        found += platform.new()
        of_backlog = sum(1 for one in found if one.sequence <= backlog) if len(found) >= OBSERVATIONS else 0
        if time.monotonic() >= due_s and of_backlog < backlog * BOARDS * READINGS:
            board = number % BOARDS
            closed[street.boards[board].whole.name, backlog + 1 + number // BOARDS] = time.time()
            street.release_one(board)
            number, due_s = number + 1, due_s + EVERY_S
        time.sleep(LOOK_S)
        if time.monotonic() - began_s > WITHIN_S:
            raise RuntimeError(f"only {len(found)} observations have come")
    return found, closed


def loop_by_hand(folder: Path) -> float:
    """Observations a second of the smallest loop, at the real server."""
    platform = RealPlatform(folder)
    platform.start()
    try:
        url = urlsplit(platform.url)
        connection = http.client.HTTPConnection(url.hostname or "", url.port)

        def post(what: str, content: object) -> str:
            body = json.dumps(content)
            connection.request("POST", f"{url.path}/{what}", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 201, said
            return answer.headers.get("Location", "").rpartition("('")[2].removesuffix("')")

        streams = [datastream(post, number) for number in range(BOARDS * len(CHANNELS))]
        requests, began_s = OBSERVATIONS // LOOP_ROWS, time.monotonic()
        for number in range(requests):
            group = {
                "Datastream": {"@iot.id": streams[number % len(streams)]},
                "components": ["phenomenonTime", "resultTime", "result", "resultQuality", "parameters"],
                "dataArray@iot.count": LOOP_ROWS,
                "dataArray": [observation(number * LOOP_ROWS + row) for row in range(LOOP_ROWS)],
            }
            post("CreateObservations", [group])
        seconds = time.monotonic() - began_s
        assert len(platform.new()) == LOOP_ROWS * requests
    finally:
        platform.stop()
    return LOOP_ROWS * requests / seconds


def datastream(post: Callable[[str, object], str], number: int) -> str:
    sensor = {"name": "s", "description": "s", "encodingType": "text/html", "metadata": "urn:s"}
    place = {"name": "p", "description": "p", "encodingType": "application/geo+json"}
    location = {**place, "location": {"type": "Point", "coordinates": [12.3, 51.3 + number / 1000]}}
    content = {
        "name": f"d {number}",
        "description": "d",
        "observationType": "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement",
        "unitOfMeasurement": {"name": "degree Celsius", "symbol": "C", "definition": "ucum:Cel"},
        "Thing": {"@iot.id": post("Things", {"name": "t", "description": "t", "Locations": [location]})},
        "Sensor": {"@iot.id": post("Sensors", sensor)},
        "ObservedProperty": {
            "@iot.id": post("ObservedProperties", {"name": "o", "description": "o", "definition": "urn:o"})
        },
    }
    return post("Datastreams", content)


def observation(number: int) -> list[object]:
    """As the route's."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_795_000_000 + number)) + ".250Z"
    parameters = {
        "board": "LE-0101",
        "sequence": number,
        "digest": "0123456789abcdef" * 2,
        "position": number % 24,
        "clock": "set",
        "within_ms": 15,
    }
    return [at, at, 21.5, {"nameOfMeasure": "QARTOD", "DQ_Result": {"code": "1"}}, parameters]


def idle(folder: Path) -> list[Row]:
    """32 boards, a report a minute each, with everything on."""
    quick_boards.DUE_MS = HEARD_EVERY_MS
    certificates = Certificates(folder / "certificates")
    certificate, key = certificates.issue("localhost")
    port, metrics = free_port(), free_port()
    broker = Mosquitto(folder / "mosquitto", f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n")
    platform = QuickPlatform(folder)
    street = Street(LINES, BOARDS_A_LINE, int(IDLE_S / 60) + 3, READINGS)
    broker.start()
    platform.start()
    more = f'[[route]]\nname = "city"\nkind = "sensorthings"\nurl = "{platform.url}"\n[metrics]\nport = {metrics}\n'
    try:
        with running(folder, street, f'mqtts://localhost:{port}"\nca_file = "{certificates.ca}', more) as gateway:
            for board in range(BOARDS):  # once each, so that all entities are there; not together, as in a street
                street.release_one(board)
                time.sleep(0.3)
            until(lambda: set(waiting(folder).values()) == {0})
            time.sleep(5.0)
            before, began_s, number = cost(gateway.pid), time.monotonic(), 0
            while (now_s := time.monotonic() - began_s) < IDLE_S:
                if now_s >= number * 60 / BOARDS:
                    street.release_one(number % BOARDS)
                    if number % 8 == 0:
                        urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read()
                    number += 1
                time.sleep(LOOK_S)
            share = (cost(gateway.pid).processor_s - before.processor_s) / IDLE_S
            memory, peak = resident_mib(gateway.pid), resident_mib(gateway.pid, peak=True)
            until(lambda: set(waiting(folder).values()) == {0})
            came = len(platform.new())
            assert came == (BOARDS + number) * READINGS, (came, number)
    finally:
        platform.stop()
        broker.stop()
    return [
        (
            f"{BOARDS} boards, a report of {READINGS} readings a minute each, mqtt with TLS, sensorthings, metrics",
            f"{share:.2%} of a core, {memory:.1f} MiB, {peak:.1f} at most",
            "≤ 1 %, ≤ 48 MiB",
        )
    ]


def rows() -> list[Row]:
    """(what, figure, budget or peer), all measured now; takes about nine minutes."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="laterne-bench-") as name:
        folder = Path(name)
        (folder / "idle").mkdir()
        found += idle(folder / "idle")
        quick_boards.DUE_MS = 500
        for a_second in (FAST, DEFAULT_BACKLOG_A_SECOND):
            place = folder / f"quick-{a_second}"
            place.mkdir()
            told, _ = drain(place, QuickPlatform(place), a_second)
            found += [(f"quick server: {what.strip()}", figure, beside) for what, figure, beside in told]
        told, rate = drain(folder / "real", RealPlatform(folder / "platform"), FAST)
        by_hand = loop_by_hand(folder / "loop")
        found += [(f"real server: {what.strip()}", figure, beside) for what, figure, beside in told]
        beside = f"loop by hand {by_hand:,.0f}"
        found.append(("real server: observations/s of the route", f"{rate:,.0f}, {rate / by_hand:.2f} x", beside))
    return found


if __name__ == "__main__":
    for what, figure, beside in rows():
        print(f"{what:70}  {figure:44}  {beside}")
