"""Metrics on loopback: what Prometheus' own parser reads is what was counted."""

import ast
import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.subscriber import Subscriber
from tests.gateway.test_buffer import accepted, open_buffer
from tests.gateway.wired import WiredLine
from tests.servers import Mosquitto, free_port

from laterne_gateway import drops, metrics
from laterne_gateway.clock import SystemClock
from laterne_gateway.exposition import GAUGE, Family, of_this_process, text_of
from laterne_gateway.health import Health
from laterne_gateway.metrics import ADDRESS, MAX_CONNECTIONS, MAX_REQUEST_BYTES, VALUES, MetricsServer

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


def read(text: bytes) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def scraped(port: int) -> Samples:
    head, _, body = (await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    return read(body)


def labelled(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, health: Health) -> AsyncIterator[int]:
    port, buffer = free_port(), open_buffer(tmp_path)
    await buffer.put(accepted(FakeBoard(), 1))
    task = asyncio.create_task(MetricsServer(port, "gw-1", buffer, health, SystemClock()).run())
    while True:
        with contextlib.suppress(OSError):
            (await asyncio.open_connection(ADDRESS, port))[1].close()
            break
        await asyncio.sleep(0.01)
    yield port
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await buffer.close()


@pytest.mark.parametrize("name", ['a "quay"', "a\\b", "a\\nb", "two\nlines", "}", "Öl, ü=ö"])
@pytest.mark.parametrize("value", [0.0, 1e300, -0.1, 12345678901234567.0, float("inf")])
def test_prometheus_reads_every_label_and_value_as_it_was_written(name: str, value: float) -> None:
    family = Family("laterne_x", GAUGE, f"told: {name}")
    family.add({"name": name, "other": "b"}, value)
    assert read(text_of([family])) == {("laterne_x", labelled(name=name, other="b")): value}
    (found,) = text_string_to_metric_families(text_of([family]).decode())
    assert (found.documentation, found.type) == (f"told: {name}", "gauge")


def test_what_is_told_of_the_process_is_what_prometheus_own_client_tells() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    theirs, ours = read(generate_latest(registry)), read(text_of(of_this_process()))
    assert ours.keys() == theirs.keys()
    for (name, _), value in theirs.items():
        assert ours[name, ()] == pytest.approx(value, rel=0.1, abs=2), name


async def test_every_counter_and_alarm_is_there_under_its_name(tmp_path: Path) -> None:
    health = Health()
    health.count("line quay", "frames damaged", 3)
    health.count('LE-"7"', "refused: bad signature", 2)
    health.alarm("buffer", "away", "the disk fails")
    health.note("LE-7", "heard_utc_ms", 1_790_000_000_500)
    health.note("line quay", "open", True)
    async with serving(tmp_path, health) as port:
        found = await scraped(port)
    assert found["laterne_events_total", labelled(kind="line", name="quay", event="frames damaged")] == 3
    assert found["laterne_events_total", labelled(kind="board", name='LE-"7"', event="refused: bad signature")] == 2
    assert found["laterne_alarms", labelled(kind="buffer", name="")] == 1
    assert found["laterne_reports_waiting", labelled(route="mqtt")] == 1
    assert found["laterne_commits_total", ()] == found["laterne_commit_seconds_count", ()] >= 1
    assert found["laterne_commit_seconds_bucket", labelled(le="+Inf")] == found["laterne_commits_total", ()]
    assert found["laterne_board_heard_timestamp_seconds", labelled(name="LE-7")] == 1_790_000_000.5
    assert found["laterne_line_open", labelled(name="quay")] == 1
    assert found["laterne_buffer_bytes", ()] > 4096
    assert found["laterne_buffer_set_aside", ()] == 0
    assert found["process_resident_memory_bytes", ()] > 1_000_000


def test_a_part_of_the_gateway_is_not_taken_for_a_board() -> None:
    """Whoever counts or alarms under a fixed name, in whichever module: only boards, lines and routes have others."""
    named = {name for file in Path(metrics.__file__).parent.rglob("*.py") for name in subjects(file.read_text())}
    assert named == set(metrics._PARTS)


def subjects(source: str) -> set[str]:
    """The fixed names that a module gives to its Health."""
    tree = ast.parse(source)
    constants = {
        target.id: ast.literal_eval(one.value)
        for one in tree.body
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    found: set[str] = set()
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
            continue
        tells = call.func.attr in ("count", "note", "alarm") and ast.unparse(call.func.value).endswith("health")
        if tells and isinstance(call.args[0], ast.Constant):
            found.add(str(call.args[0].value))
        elif tells and isinstance(call.args[0], ast.Name) and call.args[0].id in constants:
            found.add(constants[call.args[0].id])
    return found


async def test_what_the_buffer_dropped_is_counted_over_all_starts(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    await buffer.put(accepted(FakeBoard(), 1))
    await buffer.write(lambda db, numbers: drops.drop_oldest(db, numbers, None, "dropped: the buffer was full", None))
    await buffer.close()
    async with serving(tmp_path, Health()) as port:
        found = await scraped(port)
    assert found["laterne_buffer_events_total", labelled(event="reports dropped")] == 1
    assert found["laterne_buffer_gaps_untold", ()] == 1


async def test_names_keep_the_conventions_of_prometheus(tmp_path: Path) -> None:
    """prometheus.io/docs/practices/naming: a prefix, base units, _total for counters and for nothing else."""
    health = Health()
    for (kind, what), _ in VALUES.items():
        health.note(f"{kind} x" if kind in ("line", "route") else "LE-7" if kind == "board" else kind, what, 1)
    async with serving(tmp_path, health) as port:
        text = (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")[2].decode()
    families = list(text_string_to_metric_families(text))
    assert {name for name, _, _ in VALUES.values()} <= {family.name for family in families}
    for family in families:
        assert family.name.startswith(("laterne_", "process_"))
        assert family.documentation
        # The parser takes _total off counters.
        assert not family.name.endswith(("_total", "_ms", "_milliseconds", "_kib", "_mib"))
        assert family.type in ("counter", "gauge", "histogram")


@pytest.mark.parametrize(
    ("request_", "begins"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"),
        (b"\r\n\r\n", b"HTTP/1.1 405"),
        (b"GET /metrics" + b"x" * MAX_REQUEST_BYTES * 2, b""),
    ],
)
async def test_what_is_no_request_for_metrics_gets_none_and_the_next_one_does(
    tmp_path: Path, request_: bytes, begins: bytes
) -> None:
    async with serving(tmp_path, Health()) as port:
        with contextlib.suppress(ConnectionResetError):
            assert (await ask(port, request_)).startswith(begins)
        assert await scraped(port)


async def test_who_opens_many_connections_takes_no_descriptors_from_the_lines(tmp_path: Path) -> None:
    health = Health()
    async with serving(tmp_path, health) as port:
        silent = [await asyncio.open_connection(ADDRESS, port) for _ in range(MAX_CONNECTIONS + 20)]
        await until(lambda: health.counted("metrics", "refused: too many connections") == 20)
        for _, writer in silent:
            writer.close()
        while True:
            with contextlib.suppress(ConnectionResetError, AssertionError):
                assert await scraped(port)
                break


async def test_who_says_nothing_more_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "WITHIN_S", 0.05)
    async with serving(tmp_path, Health()) as port:
        with contextlib.suppress(ConnectionResetError):
            assert await ask(port, b"GET /metrics HTTP/1.1\r\n") == b""


async def test_a_gateway_with_a_metrics_port_tells_what_it_delivered_and_a_taken_port_stops_nothing(
    tmp_path: Path, mosquitto: Mosquitto, subscriber: Subscriber
) -> None:
    board, port = FakeBoard(), free_port()
    line = WiredLine(tmp_path / "quay", [board], seed=1)
    gateway = GatewayProcess(tmp_path, [board], [line], mosquitto)
    gateway.config.write_text(gateway.config.read_text() + f"[metrics]\nport = {port}\n")
    board.close_reports(3)
    taken = await asyncio.start_server(lambda _, writer: writer.close(), ADDRESS, port)
    try:
        await gateway.start()
        await gateway.says("choose another [metrics] port")
        await subscriber.has_all(board)
        assert await gateway.stop() == 0
        taken.close()
        await taken.wait_closed()
        await gateway.start()
        board.close_reports(3)
        await subscriber.has_all(board)
        found = await scraped(port)
        assert found["laterne_events_total", labelled(kind="board", name=board.name, event="reports stored")] == 3
    finally:
        taken.close()
        await gateway.end()
        await line.close()
