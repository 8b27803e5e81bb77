"""SIGHUP: what has changed in the configuration comes into force, all else goes on; a bad file changes nothing."""

import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, running, until
from tests.gateway.subscriber import Subscriber, subscribed
from tests.gateway.test_metrics import labelled, scraped
from tests.servers import Mosquitto, free_port

from laterne_gateway.changes import compare
from laterne_gateway.config import BufferSettings, Config, GatewaySettings, LineSettings, MqttSettings
from laterne_gateway.health import Health
from laterne_gateway.route_settings import CivitasSettings, SensorThingsSettings

LineOf = Callable[..., FakeLine]
FILE = Path("gateway.toml")
OWN = GatewaySettings("gw-1", "city", *(Path(name) for name in ("state", "trust", "roster", "credential", "key")))
BROKER = MqttSettings("broker", 1883, False, None, None, None, None, None, 20)
QUAY, EAST = LineSettings("quay", Path("a"), 115_200, ()), LineSettings("east", Path("b"), 115_200, ())
CITY = SensorThingsSettings("city", "https://platform/v1.1")
FORMER = Config(FILE, OWN, (QUAY, EAST), BROKER, routes=(CITY,))


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path, broker: Mosquitto, boards: list[FakeBoard], lines: list[FakeLine]
) -> AsyncIterator[tuple[GatewayProcess, Subscriber]]:
    """A gateway that runs and has delivered a report of each of these boards."""
    async with subscribed(broker) as subscriber, running(tmp_path, broker, boards, *lines) as gateway:
        yield gateway, subscriber


async def told(gateway: GatewayProcess, times: int) -> None:
    """SIGHUP; returns when the files were read for the times-th time."""
    gateway.signal(signal.SIGHUP)
    await until(lambda: gateway.said().count("files read again") == times)


def subjects(gateway: GatewayProcess) -> Any:
    found = gateway.status()
    assert found is not None
    return found["subjects"]


async def test_lines_come_go_and_change_their_names_and_the_others_keep_their_sessions(
    tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf
) -> None:
    stays, gone, moved, new = (FakeBoard(f"LE-{number}") for number in range(1, 5))
    lines = [line_of(stays, name="stays"), line_of(gone, name="gone"), line_of(moved, name="moved")]
    new_line = line_of(new, name="new")
    async with serving(tmp_path, mosquitto, [stays, gone, moved, new], lines) as (gateway, subscriber):
        new.meet(gateway.authority)
        for board in (stays, gone, moved):
            board.close_reports(1)
        await subscriber.has_all(stays, gone, moved)
        text = gateway.config.read_text()
        text = text.replace('[[line]]\nname = "gone"\npath = "gone"\n', "")
        # The port goes from one line to another: only one of them may hold it.
        text = text.replace('name = "moved"', 'name = "other"')
        gateway.config.write_text(text + f'[[line]]\nname = "new"\npath = "{new_line.path.name}"\n')
        await told(gateway, 1)
        asked = gone.questions
        for board in (stays, moved, new):
            board.close_reports(2)
        await subscriber.has_all(stays, moved, new)
        assert gone.questions == asked
        assert {name for name in subjects(gateway) if name.startswith("line ")} == {
            "line stays",
            "line other",
            "line new",
        }
        assert subjects(gateway)["line stays"]["counts"]["opened"] == 1
        assert "lost" not in subjects(gateway)["line other"]["counts"], "its port was free when it came"
        assert subjects(gateway)["LE-1"]["counts"]["sessions opened"] == 1
        for sentence in ("line gone is gone", "line other is new", "line new is new"):
            assert f"configuration: {sentence}" in gateway.said()
        # It is there again: so is its board.
        gateway.config.write_text(gateway.config.read_text() + '[[line]]\nname = "gone"\npath = "gone"\n')
        gone.close_reports(2)
        await told(gateway, 2)
        await subscriber.has_all(gone)
        assert await gateway.stop() == 0


async def test_another_broker_gets_what_comes_from_now_on_and_nothing_is_lost(
    tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf
) -> None:
    board = FakeBoard()
    with Mosquitto(tmp_path / "other") as other:
        async with (
            subscribed(other) as there,
            serving(tmp_path, mosquitto, [board], [line_of(board)]) as (gateway, here),
        ):
            board.close_reports(3)
            await here.has_all(board)
            gateway.config.write_text(gateway.config.read_text().replace(mosquitto.url, other.url))
            await told(gateway, 1)
            board.close_reports(3)
            while len({*here.bodies.get(board.name, ()), *there.bodies.get(board.name, ())}) < 6:
                await there.news()
            assert set(here.bodies[board.name]) == set(list(board.taken.values())[:3])
            assert '"offline"' in here.statuses[-1]
            assert "route mqtt has other settings" in gateway.said()
            assert await gateway.stop() == 0


async def test_a_bad_file_is_refused_with_line_setting_and_remedy_and_nothing_changes(
    tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf
) -> None:
    board = FakeBoard()
    async with serving(tmp_path, mosquitto, [board], [line_of(board)]) as (gateway, subscriber):
        board.close_reports(1)
        await subscriber.has_all(board)
        good = gateway.config.read_text()
        bad = good.replace(mosquitto.url, "mqtt://elsewhere") + 'baud = "fast"\n'
        gateway.config.write_text(bad)
        await told(gateway, 1)
        sentence = f"{gateway.config}:{len(bad.splitlines())}: [[line]] baud: is not a whole number in 1200..4000000"
        assert sentence in gateway.said()
        (alarm,) = subjects(gateway)["configuration"]["alarms"]
        assert alarm.startswith(sentence)
        assert "the one before stays in force" in alarm
        board.close_reports(2)
        await subscriber.has_all(board)
        gateway.config.unlink()
        await told(gateway, 2)
        assert "name the configuration with --config" in subjects(gateway)["configuration"]["alarms"][0]
        gateway.config.write_text(good)
        await told(gateway, 3)
        assert subjects(gateway)["configuration"]["alarms"] == []
        assert subjects(gateway)["configuration"]["counts"] == {"refused": 2}
        assert subjects(gateway)[board.name]["counts"]["sessions opened"] == 1
        assert await gateway.stop() == 0


async def test_what_needs_a_restart_is_named_until_it_is_done_and_the_rest_counts_at_once(
    tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf
) -> None:
    board, port = FakeBoard(), free_port()
    async with serving(tmp_path, mosquitto, [board], [line_of(board)]) as (gateway, subscriber):
        await gateway.says("reports waiting")
        text = gateway.config.read_text().replace('tenant = "testingen"', 'tenant = "elsewhere"')
        text += f'[[route]]\nname = "core"\nkind = "civitas"\nurl = "{mosquitto.url}"\n'
        gateway.config.write_text(
            text + f'[metrics]\nport = {port}\n[buffer]\ngather_s = 1\n[log]\nlevel = "warning"\n'
        )
        gateway.signal(signal.SIGHUP)
        await gateway.says("configuration: [gateway] tenant, [[route]] core, which is new: counts after a restart")
        board.close_reports(1)
        await subscriber.has_all(board)
        assert {message.topic.value.split("/")[2] for message in subscriber.messages} == {"testingen"}
        assert (await scraped(port))["laterne_alarms", labelled(kind="configuration", name="")] == 1
        assert "files read again" not in gateway.said(), "only warnings are logged now"
        assert await gateway.stop() == 0
        await gateway.start()
        board.close_reports(1)
        await subscriber.has_all(board)
        assert subscriber.messages[-1].topic.value.split("/")[2] == "elsewhere"
        assert "core" in str(gateway.status())
        assert "configuration" not in subjects(gateway)


async def test_a_new_secret_in_the_same_file_is_used_at_once(
    tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf
) -> None:
    board, secret = FakeBoard(), tmp_path / "broker.password"
    secret.write_text("Laterne 1")
    async with serving(tmp_path, mosquitto, [board], [line_of(board)]) as (gateway, subscriber):
        await gateway.says("connected to")
        text = gateway.config.read_text()
        user = 'username = "gw-1"\npassword_file = "broker.password"\n'
        gateway.config.write_text(text.replace("[mqtt]\n", f"[mqtt]\n{user}"))
        await told(gateway, 1)
        await until(lambda: gateway.said().count("connected to") == 2)  # as gw-1
        await told(gateway, 2)
        secret.write_text("Laterne 22")
        await told(gateway, 3)
        await until(lambda: gateway.said().count("connected to") == 3)
        assert gateway.said().count("its files have changed") == 1
        board.close_reports(1)
        await subscriber.has_all(board)
        assert await gateway.stop() == 0


@pytest.mark.parametrize(
    ("new", "lines_end", "lines_begin", "routes", "restart"),
    [
        (FORMER, (), (), (), ()),
        (replace(FORMER, lines=(QUAY,)), ("east",), (), (), ()),
        (replace(FORMER, lines=(EAST, QUAY)), (), (), (), ()),
        (replace(FORMER, lines=(QUAY, replace(EAST, baud=9600))), ("east",), ("east",), (), ()),
        (replace(FORMER, mqtt=replace(BROKER, backlog_a_second=7)), (), (), ("mqtt",), ()),
        (replace(FORMER, routes=(replace(CITY, parallel=7),)), (), (), ("city",), ()),
        (replace(FORMER, routes=(CivitasSettings("city", BROKER),)), (), (), ("city",), ()),
        (replace(FORMER, routes=()), (), (), (), ("[[route]] city, which is gone",)),
        (
            replace(FORMER, gateway=replace(OWN, id="gw-2", key=Path("k"))),
            (),
            (),
            (),
            ("[gateway] id", "[gateway] key"),
        ),
    ],
)
def test_only_what_has_changed_begins_anew(
    new: Config, lines_end: tuple[str], lines_begin: tuple[str], routes: tuple[str], restart: tuple[str]
) -> None:
    changes = compare(FORMER, new)
    assert (changes.lines_end, changes.lines_begin) == (lines_end, lines_begin)
    assert (changes.routes_anew, changes.restart) == (routes, restart)
    assert changes.in_force == (FORMER if restart else new)
    assert bool(changes.said) == bool(lines_end or lines_begin or routes)


def test_other_bounds_of_the_buffer_and_another_log_level_are_changes_by_themselves() -> None:
    changes = compare(FORMER, replace(FORMER, buffer=BufferSettings(gather_s=5), log_level="debug", metrics_port=9110))
    assert (changes.buffer, changes.log, changes.metrics) == (True, True, True)
    assert compare(FORMER, FORMER).said == ()


def test_a_line_that_is_gone_is_not_taken_for_hung() -> None:
    now_s = [0.0]
    health = Health(lambda: now_s[0])
    health.progressed("line quay")
    health.alarm("line quay", "port", "it is away")
    now_s[0] = 100.0
    assert health.silent(30.0) == ["line quay"]
    health.forget("line quay")
    assert health.silent(30.0) == []
    assert health.snapshot() == {}
