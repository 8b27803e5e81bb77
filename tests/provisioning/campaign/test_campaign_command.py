"""`laterne campaign` as a process, a real broker, boards that sign: good releases, bad ones, and whatever stops it."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.provisioning.campaign.fake_city import GATEWAY, OLD, PREFIX, FakeCity
from tests.provisioning.campaign.releases import make_release
from tests.provisioning.commands import LATERNE, WITHIN_S, Ended, killed_at, laterne
from tests.provisioning.fake_board import FakeBoard
from tests.servers import Mosquitto

from laterne_protocol import order, release_file

QUICK = ("--soak", "1s", "--reports", "3", "--waves", "100", "--canary", "LE-0001")


def start(authority: Path, broker: Mosquitto, release: Path, *more: object, code: int | None = 0) -> Ended:
    way = ("--authority", authority, "--broker", broker.url, "--json")
    return laterne("campaign", "start", release, *way, *QUICK, *more, code=code)


def go_on(what: str, authority: Path, broker: Mosquitto, *more: object, code: int | None = 0) -> Ended:
    return laterne("campaign", what, "--authority", authority, "--broker", broker.url, "--json", *more, code=code)


def status(authority: Path) -> Any:
    return laterne("campaign", "status", "--authority", authority, "--json", "--boards").json()


def test_a_good_release_reaches_every_board_the_canary_first(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path
) -> None:
    done = start(authority, broker, release).json()
    assert (done["state"], done["boards"]) == ("COMPLETED", {"CONFIRMED": 2})
    assert done["release"]["sequence"] == 7
    assert [post.confirmed for post in city.posts.values()] == [city.release.digest] * 2  # type: ignore[union-attr]  # it has got one
    assert [post.actions for post in city.posts.values()] == [[order.STAGE, order.ARM]] * 2
    armed = [name for name, said in city.orders if said.action == order.ARM]
    assert armed == ["LE-0001", "LE-0002"]
    shown = laterne("campaign", "status", "--authority", authority).out
    assert "COMPLETED" in shown
    assert "2 clean boards: fewer than 78 % of all would fail" in shown
    laterne("audit", "verify", "--authority", authority)
    log = (authority / "audit.log").read_text()
    for state in ("SENDING", "STAGED", "ARMED", "TRIAL", "CONFIRMED"):
        assert state in log


def test_a_release_that_crashes_stops_at_the_canary(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path
) -> None:
    city.crashes = {"LE-0001", "LE-0002"}
    done = start(authority, broker, release, code=1).json()
    assert done["state"] == "HALTED"
    assert [(one["board"], one["why"]) for one in done["failures"]] == [("LE-0001", "rolled_back")]
    assert city.posts["LE-0002"].actions == []


def test_what_others_write_at_the_broker_of_a_board_neither_ends_nor_moves_its_campaign(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path
) -> None:
    """A gateway may write below its own name (gateway/README.md, "At the broker"), and there of any board."""
    digest = release_file.release_of(release.read_bytes()).digest.hex()
    word = {"phase": "idle", "running": digest, "nonce": "00" * 8, "staged": None, "result": None}
    failed = {**word, "running": None, "phase": "failed", "result": [23, digest]}
    elsewhere = [f"{PREFIX.replace(GATEWAY, other)}/LE-0002/update" for other in ("gw-2", "gw-1.")]
    city.lies = [(topic, json.dumps(lie).encode()) for topic in elsewhere for lie in (word, failed)]
    # A number that no float holds, and what else JSON can say.
    lies = (b'{"phase":"idle","share":1' + b"0" * 400 + b"}", b"[" * 1000, b'{"phase":"idle","share":NaN}', b"\xff")
    city.lies += [(f"{PREFIX}/LE-0001/update", lie) for lie in lies]
    done = start(authority, broker, release).json()
    assert (done["state"], done["boards"]) == ("COMPLETED", {"CONFIRMED": 2})


def test_a_release_that_makes_a_sensor_silent_is_found_by_comparing_with_before(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path
) -> None:
    city.silent = {"LE-0001"}
    done = start(authority, broker, release, code=1).json()
    assert [(one["board"], one["why"]) for one in done["failures"]] == [("LE-0001", "health")]
    assert "before" in done["failures"][0]["said"]
    assert city.posts["LE-0002"].actions == []


class Running:
    """`laterne campaign start` as a process."""

    def __init__(self, authority: Path, broker: Mosquitto, release: Path) -> None:
        way = ("--authority", str(authority), "--broker", broker.url, "--json")
        command = [*LATERNE, "campaign", "start", str(release), *way, *QUICK]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def said(self, words: str) -> str:
        """The line of stderr with these words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if words in line:
                return line
        raise AssertionError(f"it ended and never said {words!r}")


def test_a_board_is_compared_with_the_reports_of_the_days_before_that_are_given(
    authority: Path, city: FakeCity, boards: list[FakeBoard], broker: Mosquitto, release: Path, tmp_path: Path
) -> None:
    with city.turn:
        now_ms = 1000 * int(time.time())
        bodies = [boards[0].next_report(clock=(1, now_ms - 3_600_000 * ago, 5)) for ago in range(50, 10, -1)]
        old = boards[0].next_report(clock=(1, now_ms - 30 * 86_400_000, 5))
    past = tmp_path / "week.cbor"
    assert "week.cbor" in start(authority, broker, release, "--past", past, code=2).err
    past.write_bytes(b"".join(bodies) + b"not a report" + old)
    city.silent = {"LE-0001"}
    done = start(authority, broker, release, "--past", past, code=1)
    assert "1 of 2 boards have a past" in done.err
    (failed,) = done.json()["failures"]
    before = re.search(r"in (\d+) of \1 before", failed["said"])
    assert before is not None, failed
    assert 40 <= int(before[1]) < 80, "the week's, some of today's, none of last month's"


def test_another_command_watches_it_and_writes_a_line_at_each_change(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path
) -> None:
    city.fetches_for = 20  # two seconds: what has arrived is told each second
    with Running(authority, broker, release) as running:
        running.said("started")
        watched = laterne("campaign", "status", "--authority", authority, "--json", "--boards", "--watch")
    lines = [json.loads(line) for line in watched.out.splitlines()]
    assert [lines[0]["state"], lines[-1]["state"]] == ["RUNNING", "COMPLETED"]
    assert lines[-1]["boards"] == {"CONFIRMED": 2}
    assert all(one != other for one, other in itertools.pairwise(lines))
    fetched = [one["share"] for line in lines for one in line["of_boards"] if one["state"] == "SENDING"]
    assert 0.5 in fetched


def test_with_a_copy_of_the_authority_on_another_machine_it_is_not_run_twice(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path, tmp_path: Path
) -> None:
    """Two operators' laptops. The lock of one machine knows nothing of the other."""
    city.deaf = {"LE-0002"}  # so that it is not done meanwhile
    with Running(authority, broker, release) as running:
        until(lambda: order.STAGE in city.posts["LE-0001"].actions)
        copy = tmp_path / "laptop"
        shutil.copytree(authority, copy)
        assert "is being run on" in go_on("resume", copy, broker, code=1).err
        assert running.process.poll() is None, "who was first goes on"
        until(lambda: city.posts["LE-0001"].confirmed != OLD)
        running.process.kill()  # it cannot take its word away
        running.process.wait()
        city.deaf = set()
        assert go_on("resume", authority, broker).json()["state"] == "COMPLETED"
    assert go_on("resume", copy, broker).json()["state"] == "COMPLETED", "nobody runs it any more"


def until(condition: Any) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_is_stopped_at_any_time_and_goes_on(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path, number: signal.Signals
) -> None:
    city.deaf = {"LE-0002"}  # so that it is not done before the signal comes
    with Running(authority, broker, release) as running:
        until(lambda: order.STAGE in city.posts["LE-0001"].actions)
        running.process.send_signal(number)
        running.process.communicate(timeout=WITHIN_S)
        assert running.process.returncode == (130 if number == signal.SIGINT else -number)
    assert status(authority)["is_run"] is False
    city.deaf = set()
    done = go_on("resume", authority, broker).json()
    assert (done["state"], done["boards"]) == ("COMPLETED", {"CONFIRMED": 2})


def test_another_command_pauses_resumes_and_aborts_it(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path
) -> None:
    with Running(authority, broker, release) as running:
        running.said("started")
        laterne("campaign", "pause", "--authority", authority)
        running.said("PAUSED")
        assert status(authority)["state"] == "PAUSED"
        assert "cannot be told to pause" in laterne("campaign", "pause", "--authority", authority, code=1).err
        laterne("campaign", "resume", "--authority", authority, "--broker", broker.url)
        running.said("RUNNING")
        laterne("campaign", "abort", "--authority", authority, "--broker", broker.url)
        assert running.process.wait(WITHIN_S) == 1
    assert status(authority)["state"] == "ABORTED"
    assert "is ABORTED" in go_on("resume", authority, broker, code=1).err
    assert all(not post.trial for post in city.posts.values())


def test_nothing_begins_before_the_second_person_has_signed_this_plan(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path, tmp_path: Path
) -> None:
    public = tmp_path / "second.jwk"
    public.write_text(laterne("grant", "key", "-o", tmp_path / "second.pem", "--no-passphrase").out)
    laterne("grant", "key", "-o", tmp_path / "third.pem", "--no-passphrase")
    start(authority, broker, release, "--approve-by", public)
    assert status(authority)["state"] == "DRAFT"
    assert "not approved" in go_on("resume", authority, broker, code=1).err
    wrong = laterne("campaign", "approve", "--authority", authority, "--key", tmp_path / "third.pem", code=1)
    assert "is not the key" in wrong.err
    laterne("campaign", "approve", "--authority", authority, "--key", tmp_path / "second.pem")
    assert city.orders == []
    assert go_on("resume", authority, broker).json()["state"] == "COMPLETED"


def test_a_release_that_no_board_would_take_and_boards_that_are_busy_are_refused(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path, tmp_path: Path
) -> None:
    unsigned = make_release(authority, tmp_path / "unsigned.laterne", 8, signed=False)
    assert "No board would take this release" in start(authority, broker, unsigned, code=1).err
    assert "No board that is enrolled" in start(authority, broker, release, "--boards", "X-*", code=2).err
    city.deaf = {"LE-0001"}
    with Running(authority, broker, release) as running:
        running.said("started")
        assert "is in the campaign" in start(authority, broker, release, code=1).err
    assert city.orders == []


def test_one_command_brings_boards_back_to_the_release_before(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path, tmp_path: Path
) -> None:
    start(authority, broker, release)
    city.silent = {"LE-0001"}
    bad = make_release(authority, tmp_path / "bad.laterne", 8, b"worse code")
    start(authority, broker, bad, code=1)
    city.silent = set()
    done = go_on("revert", authority, broker).json()
    assert (done["state"], done["boards"]) == ("COMPLETED", {"CONFIRMED": 1}), "who never had it is not asked"
    assert done["release"]["sequence"] == 9
    assert city.release is not None
    assert list(city.release.contents.values()) == [b"code"]
    assert city.posts["LE-0001"].confirmed == city.release.digest


def test_without_the_release_keys_going_back_says_what_to_bring_to_them(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path, tmp_path: Path
) -> None:
    start(authority, broker, release, "--boards", "LE-0001")
    key = authority / "keys" / "release.pem"
    key.rename(tmp_path / "safe.pem")
    older = tmp_path / "older.laterne"
    said = go_on("revert", authority, broker, "--to", release, "-o", older, code=1).err
    assert f"laterne release sign {older}" in said
    assert "--release" in said
    assert city.posts["LE-0001"].actions == [order.STAGE, order.ARM], "nothing more has been ordered"
    (tmp_path / "safe.pem").rename(key)
    laterne("release", "sign", older, "--authority", authority)
    assert go_on("revert", authority, broker, "--release", older).json()["state"] == "COMPLETED"


@pytest.mark.parametrize("cut", [75, 150])
def test_killed_at_any_operation_on_the_disk_it_goes_on_and_no_order_is_forgotten(
    authority: Path, city: FakeCity, broker: Mosquitto, release: Path, cut: int
) -> None:
    way = ("--authority", authority, "--broker", broker.url, "--json")
    killed_at(cut, "campaign", "start", release, *way, *QUICK)
    if not city.orders and not list((authority / "campaigns").glob("2*")):
        start(authority, broker, release)
    elif status(authority)["state"] != "COMPLETED":
        go_on("resume", authority, broker)
    assert status(authority)["boards"] == {"CONFIRMED": 2}
    counters = [said.counter for name, said in city.orders if name == "LE-0001"]
    assert counters == sorted(set(counters)), "no counter is given twice"
