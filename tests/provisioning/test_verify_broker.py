"""`laterne verify --broker`: the independent subscriber, against a real mosquitto."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.gateway.test_tls import Certificates
from tests.provisioning.commands import LATERNE, WITHIN_S, enrol, laterne, running
from tests.provisioning.fake_board import FakeBoard
from tests.servers import Mosquitto, free_port

from laterne_provisioning import subscriber
from laterne_provisioning.output import foreign


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto", f"persistence true\npersistence_location {tmp_path}/\n") as started:
        yield started


class Listening:
    """`laterne verify --json-lines` as a process. Use it in a `with`."""

    def __init__(self, broker: Mosquitto, authority: Path, *more: str) -> None:
        command = [*LATERNE, "verify", "--broker", broker.url, "--authority", str(authority), "--json-lines", *more]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> "Listening":
        try:
            assert self.line()["event"] == "subscribed"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def stop(self, number: signal.Signals) -> tuple[Any, int]:
        """The summary, and the exit code."""
        self._process.send_signal(number)
        out, err = self._process.communicate(timeout=WITHIN_S)
        assert "Traceback" not in err, err
        return json.loads(out.splitlines()[-1]), self._process.returncode


def publish(broker: Mosquitto, *reports: tuple[str, bytes], qos: int = 1) -> None:
    async def publishing() -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            for board, body in reports:
                await client.publish(f"laterne/v1/city/gw-1/{board}/report", body, qos=qos)

    asyncio.run(publishing())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_reports_are_told_as_they_come_until_it_is_stopped(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, number: signal.Signals
) -> None:
    with Listening(broker, authority) as listening:
        publish(broker, ("LE-0001", boards[0].next_report()), ("LE-0002", boards[1].next_report()))
        first, second = listening.line(), listening.line()
        assert (first["board"], first["sequence"], first["ok"], first["readings"]) == ("LE-0001", 1, True, 3)
        assert second["board"] == "LE-0002"
        assert first["arrival_ms"] >= first["closed_utc_ms"] - 10**12
        summary, code = listening.stop(number)
    assert (summary["event"], summary["reports_verified"], summary["ok"], code) == ("summary", 2, True, 0)


def test_what_is_wrong_is_named_by_its_topic_and_the_exit_code_says_so(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto
) -> None:
    good = boards[0].next_report()
    with Listening(broker, authority) as listening:
        publish(
            broker,
            ("LE-0001", b""),
            ("LE-0001", good[:-1] + bytes((good[-1] ^ 1,))),
            ("LE-0002", good),
            ("LE-0001", good),
        )
        lines = [listening.line() for _ in range(4)]
        summary, code = listening.stop(signal.SIGTERM)
    assert [(line["board"], line["ok"]) for line in lines] == [
        ("LE-0001", False),
        ("LE-0001", False),
        ("LE-0002", False),
        ("LE-0001", True),
    ]
    assert "sent under another name" in lines[2]["reason"]
    assert (summary["reports_refused"], code) == (3, 1)


def test_a_strangers_topic_steers_no_terminal_and_fills_no_table(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto
) -> None:
    evil = "LE\u2028\u202e"  # mosquitto lets no control characters through, other brokers do
    with Listening(broker, authority, "--topic", "#") as listening:
        publish(broker, (evil, b"\x00"), ("B" * 3_000, b"\x00"), ("", boards[0].next_report()))
        lines = [listening.line() for _ in range(3)]
        summary, code = listening.stop(signal.SIGTERM)
    assert [line["board"] for line in lines] == [None, None, "LE-0001"]
    assert lines[2]["reason"] == "it is a report of LE-0001, sent under another name"
    assert code == 1
    for row in (*lines, *summary["refused"]):
        assert row["source"].isprintable()
        assert len(row["source"]) < 200
    assert r"LE\u2028\u202e" in lines[0]["source"]
    assert foreign("LE\x1b]0;owned\x07\u009b31m\n") == r"LE\x1b]0;owned\x07\x9b31m\n"


def test_a_message_that_is_longer_than_any_report_stays_at_the_broker(
    authority: Path, board: FakeBoard, broker: Mosquitto
) -> None:
    """Whoever may write below a gateway's name could fill the memory of everybody who verifies."""
    enrol(board, "LE-0001", authority)
    with Listening(broker, authority) as listening:
        publish(broker, ("LE-0001", bytes(1 << 20)), ("LE-0001", board.next_report()))
        assert listening.line()["ok"]
        summary, code = listening.stop(signal.SIGINT)
    assert (summary["reports_verified"], summary["reports_refused"], code) == (1, 0, 0)


async def test_more_than_may_wait_is_counted_and_never_lost_in_silence(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "MAX_WAITING", 2)
    subscribed, ended = asyncio.Event(), asyncio.Event()
    taken: list[str] = []
    passed_over: list[None] = []

    def note() -> None:
        if len(taken) + len(passed_over) == 201:
            ended.set()

    def on_passed_over() -> None:
        passed_over.append(None)
        note()

    def on_message(topic: str, body: bytes) -> None:
        taken.append(topic)
        if len(taken) == 1:  # while it is busy with this one, many more come
            publish_meanwhile(broker, 200)
        note()

    where = subscriber.broker_of(broker.url, subscriber.Credentials())
    listening = asyncio.create_task(subscriber.listen(where, "#", subscribed.set, on_message, on_passed_over, print))
    await subscribed.wait()
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.publish("first", b"x", qos=1)
    async with asyncio.timeout(WITHIN_S):
        await ended.wait()
    listening.cancel()
    assert passed_over


def publish_meanwhile(broker: Mosquitto, count: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(publish, broker, *[("LE-0001", b"x")] * count, qos=0).result()


def test_it_ends_by_itself_after_as_many_reports_as_were_asked_for(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto
) -> None:
    with Listening(broker, authority, "--count", "2") as listening:
        publish(broker, *(("LE-0001", boards[0].next_report()) for _ in range(2)))
        assert [listening.line()["sequence"] for _ in range(2)] == [1, 2]
        assert listening.line()["reports_verified"] == 2
    done = laterne(
        "verify", "--broker", broker.url, "--authority", authority, "--count", "1", "--seconds", "0.2", "--json", code=1
    )
    assert "0 of 1 reports came" in done.err


def test_a_broker_that_goes_and_comes_back_costs_nothing(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto
) -> None:
    with Listening(broker, authority) as listening:
        publish(broker, ("LE-0001", boards[0].next_report()))
        assert listening.line()["sequence"] == 1
        broker.stop()
        broker.start()
        # It may be back before the subscriber is: the broker has kept its session.
        publish(broker, ("LE-0001", boards[0].next_report()))
        assert listening.line()["sequence"] == 2
        summary, code = listening.stop(signal.SIGINT)
    assert (summary["reports_verified"], code) == (2, 0)


def test_a_file_for_tls_that_is_not_there_is_named(authority: Path, tmp_path: Path) -> None:
    there = tmp_path / "certificate.pem"
    there.write_text("no certificate")
    asked = ("verify", "--authority", authority, "--broker", "mqtts://localhost:1", "--ca-file", tmp_path / "ca.pem")
    said = laterne(*asked, "--certificate", there, code=2).err
    assert f"There is no file {tmp_path / 'ca.pem'}: check --ca-file" in said
    said = laterne(*asked[:-1], there, code=2).err
    assert "cannot be used" in said


def test_a_broker_that_cannot_be_used_is_named_with_the_reason_in_words(authority: Path, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certificates")
    strangers, port = Certificates(tmp_path / "strangers"), free_port()
    certificate, key = certificates.issue("localhost")
    broker = Mosquitto(tmp_path, f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n")

    def said(url: str, ca: Path) -> str:
        return laterne("verify", "--broker", url, "--ca-file", ca, "--authority", authority, code=1).err

    away = said(f"mqtts://localhost:{port}", certificates.ca)
    assert f"mqtts://localhost:{port} cannot be used: Connection refused. Is the broker running" in away
    broker.start()
    try:
        stranger = said(f"mqtts://localhost:{port}", strangers.ca)
        other_name = said(f"mqtts://127.0.0.1:{port}", certificates.ca)
    finally:
        broker.stop()
    assert "shows a certificate that is not believed: " in stranger
    assert "--ca-file" in stranger
    assert "not valid for '127.0.0.1'. Is it this address?" in other_name
    for sentence in (away, stranger, other_name):
        assert "Errno" not in sentence
        assert "_ssl.c" not in sentence


def test_on_a_terminal_the_first_report_of_each_board_is_told_with_its_values(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto
) -> None:
    terminal, end = pty.openpty()
    with running("verify", "--broker", broker.url, "--authority", authority, "--count", "2", terminal=end) as command:
        os.close(end)
        shown = b""
        while b"stop with Ctrl-C" not in shown:
            shown += os.read(terminal, 1000)
        publish(broker, *(("LE-0001", boards[0].next_report()) for _ in range(2)))
        with contextlib.suppress(OSError):  # the terminal is closed: the command has ended
            while more := os.read(terminal, 1000):
                shown += more
        assert command.wait(WITHIN_S) == 0, shown
    os.close(terminal)
    assert b"LE-0001, report 1 of 20" in shown
    assert shown.count(b": verified: ") == 1


def test_where_no_report_came_it_is_said_how_often_boards_make_one(authority: Path, broker: Mosquitto) -> None:
    done = laterne("verify", "--broker", broker.url, "--authority", authority, "--seconds", "0.2", code=1)
    assert "No report came. Boards close one each minute" in done.err
