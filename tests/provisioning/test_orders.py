"""New keys for a board in service, and the end of a board: by a real broker, whatever stops the command."""

import asyncio
import base64
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.provisioning.commands import Ended, killed_at, laterne, running
from tests.provisioning.fake_board import WAIT_S, FakeBoard, Key
from tests.provisioning.fake_gateway import GATEWAY, PREFIX, TENANT, FakeGateway
from tests.provisioning.test_roster_export import read
from tests.servers import Mosquitto

from laterne_protocol import cose, credential, order, receipt
from laterne_provisioning.primitives import is_signature


@pytest.fixture
def gateway(authority: Path, boards: list[FakeBoard], broker: Mosquitto, tmp_path: Path) -> Iterator[FakeGateway]:
    """It serves LE-0001; its roster has both boards."""
    laterne("roster", "export", "--gateway", GATEWAY, "--authority", authority, "-o", tmp_path / "roster.1")
    boards[0].skip_reports(7)
    with FakeGateway(broker, boards[0]) as made:
        yield made


def rotate(authority: Path, broker: Mosquitto, *more: object, code: int = 0) -> Ended:
    return laterne("board", "rotate", "LE-0001", "--authority", authority, "--broker", broker.url, *more, code=code)


def decommission(authority: Path, broker: Mosquitto, *more: object, code: int = 0) -> Ended:
    way = ("--authority", authority, "--broker", broker.url, "--reason", "scrapped")
    return laterne("board", "decommission", "LE-0001", *way, *more, code=code)


def show(authority: Path) -> Any:
    return laterne("board", "show", "LE-0001", "--authority", authority, "--json").json()


def verified(authority: Path, reports: Path, *bodies: bytes, code: int | None = None) -> Any:
    reports.write_bytes(b"".join(bodies))
    return laterne("verify", reports, "--authority", authority, "--json", code=code).json()


def retained(broker: Mosquitto) -> list[str]:
    """The topics below our prefix at which the broker keeps something."""

    async def listening() -> list[str]:
        found = []
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.subscribe(f"{PREFIX}/#", qos=1)
            await client.publish(f"{PREFIX}/fence", b"", qos=1)  # what is kept comes before it
            async for message in client.messages:
                if message.topic.value.endswith("/fence"):
                    break
                found.append(message.topic.value)
        return found

    return asyncio.run(listening())


def test_new_keys_are_vouched_for_by_the_old_ones_and_the_chain_goes_on(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway, tmp_path: Path
) -> None:
    former, digest = boards[0].key, show(authority)["credential_digest"]
    done = rotate(authority, broker, "--roster", tmp_path / "roster.2")
    assert done.out.startswith("LE-0001 has new keys: ")
    assert "reports up to 7.\nThe next roster of gw-1 is in" in done.out
    assert gateway.executed == [order.ROTATE, order.TAKE]
    shown = show(authority)
    assert shown["kid"] == boards[0].kid.hex() != credential.kid(former.public).hex()
    assert (shown["state"], shown["under_way"]) == ("enrolled", None)
    assert [(one["kid"], one["last_report"]) for one in shown["former_keys"]] == [
        (credential.kid(former.public).hex(), 7)
    ]
    found, _ = read(tmp_path / "roster.2", authority)
    entry = next(entry for entry in found.entries if entry.board == "LE-0001")
    assert (entry.sign_key, entry.agree_key) == (boards[0].key.public, boards[0].agree_key.public)
    assert [(one.sign_key, one.last) for one in entry.former] == [(former.public, 7)]
    assert entry.credential_digest.hex() == digest, "its chain began with the first credential"
    assert len(found.entries) == 2
    assert laterne("audit", "verify", "--authority", authority).code == 0
    acts = laterne("audit", "verify", "--authority", authority, "--json").json()
    assert acts["ok"] is True


def test_verify_takes_each_report_from_the_key_that_was_to_sign_it(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway, tmp_path: Path
) -> None:
    former, board = boards[0].key, boards[0]
    board._sequence, board._previous = 0, b""
    early = [board.next_report() for _ in range(7)]
    beginning = board.credential
    rotate(authority, broker, "--roster", tmp_path / "roster.2")
    late = [board.next_report(), board.next_report()]
    laterne("trust", "export", "--authority", authority, "-o", tmp_path / "trust")
    assert beginning != board.credential
    whole = verified(authority, tmp_path / "r", *early, *late)
    assert (whole["ok"], whole["reports_verified"], whole["boards"][0]["missing"]) == (True, 9, [])
    public = ("--roster", tmp_path / "roster.2", "--trust", tmp_path / "trust", "--json")
    assert laterne("verify", tmp_path / "r", *public).json()["reports_verified"] == 9
    board.key, new = former, board.key
    board._sequence = 9
    forged = verified(authority, tmp_path / "f", *early, *late, board.next_report())
    (refused,) = forged["refused"]
    kid = credential.kid(former.public).hex()
    assert refused["reason"] == f"it is signed by a former key of LE-0001, {kid}, whose last report was 7"
    board.key, board._sequence = new, 4
    (refused,) = verified(authority, tmp_path / "f", board.next_report())["refused"]
    assert refused["reason"] == "it is signed by a key that LE-0001 got after its report 5"


def test_a_board_that_is_revoked_is_not_believed_by_the_roster_of_another_gateway_from_before_it_got_new_keys(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway, tmp_path: Path
) -> None:
    """It was stolen with its former key. Rosters of several gateways are not of one day."""
    reports, older, newer, trust = (tmp_path / name for name in ("reports", "older", "newer", "trust"))
    reports.write_bytes(boards[0].next_report() + boards[1].next_report())
    laterne("roster", "export", "--gateway", "gw-2", "--authority", authority, "-o", older)
    laterne("trust", "export", "--authority", authority, "-o", trust)
    rotate(authority, broker, "--gateway", GATEWAY, "--tenant", TENANT)
    laterne("board", "revoke", "LE-0001", "--reason", "stolen", "--authority", authority)
    laterne("roster", "export", "--gateway", GATEWAY, "--authority", authority, "-o", newer)
    both = ("--roster", older, "--roster", newer, "--trust", trust, "--json")
    found = laterne("verify", reports, *both, code=1).json()
    assert [one["reason"] for one in found["refused"]] == [
        "it names a key that is not to be believed: LE-0001 is on the roster's deny list (stolen)"
    ]
    assert found["reports_verified"] == 1


def test_a_second_rotation_keeps_the_first_ones_keys_and_the_beginning_of_the_chain(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway, tmp_path: Path
) -> None:
    digest = show(authority)["credential_digest"]
    for last in (7, 9, 12):
        gateway.last = last
        rotate(authority, broker, "--roster", tmp_path / "roster")
    found, _ = read(tmp_path / "roster", authority)
    entry = next(entry for entry in found.entries if entry.board == "LE-0001")
    assert [one.last for one in entry.former] == [9, 12]
    assert entry.credential_digest.hex() == digest
    assert [one["last_report"] for one in show(authority)["former_keys"]] == [7, 9, 12]
    counters = [order.order_of(cose.parse(body, 700).payload).counter for body in gateway.orders]
    assert counters == sorted(set(counters))


def test_a_board_with_a_former_key_is_nobody_else(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway
) -> None:
    former = boards[0].key
    rotate(authority, broker)
    with FakeBoard(former) as copy:
        done = laterne("board", "enrol", "--port", copy.port, "--id", "LE-0009", "--authority", authority, code=1)
    assert "stands in the registry as LE-0001" in done.err


@pytest.mark.parametrize(
    "what", ["receipt by another key", "not proven", "other hardware", "known key", "known key to agree"]
)
def test_keys_that_are_not_proven_are_not_taken(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway, what: str
) -> None:
    former = show(authority)["kid"]
    if what == "receipt by another key":
        gateway.signs_with = Key()
    elif what == "not proven":
        gateway.proves_with = Key()
    elif what == "other hardware":
        gateway.other_hardware = True
    else:
        gateway.next = (boards[1].key, Key()) if what == "known key" else (Key(), boards[1].key)
    done = rotate(authority, broker, "--timeout", 3, code=1)
    assert (
        "has not answered within 3 s" if what == "receipt by another key" else "not proven its next keys"
    ) in done.err
    assert gateway.executed == [order.ROTATE]
    assert (show(authority)["kid"], show(authority)["former_keys"]) == (former, [])


def test_a_command_that_had_no_answer_goes_on_with_the_same_order(
    authority: Path, broker: Mosquitto, gateway: FakeGateway
) -> None:
    gateway.silent = True
    done = rotate(authority, broker, "--timeout", 2, code=1)
    assert "Its order stays at" in done.err
    assert show(authority)["under_way"] == {"act": "rotate", "step": "asked"}
    assert "is getting new keys" not in done.err
    gateway.silent = False
    rotate(authority, broker)
    assert gateway.orders[0] == gateway.orders[1]
    assert gateway.executed == [order.ROTATE, order.TAKE]


@pytest.mark.parametrize("act", ["rotate", "decommission"])
def test_a_command_killed_anywhere_is_finished_by_the_same_command_and_done_once(
    authority: Path, broker: Mosquitto, gateway: FakeGateway, tmp_path: Path, act: str
) -> None:
    command = ["board", act, "LE-0001", "--authority", authority, "--broker", broker.url]
    command += ["--reason", "scrapped"] if act == "decommission" else ["--roster", tmp_path / "roster"]
    # Each command goes on where the one before was killed, some operations later: all steps are cut, and the cuts meet
    # different operations of each.
    for cut in range(20, 10_000, 7):
        if killed_at(cut, *command):
            break
        gateway.got_order.clear()
    shown = show(authority)
    if act == "rotate":
        assert gateway.executed == [order.ROTATE, order.TAKE]
        assert len(shown["former_keys"]) == 1
        assert shown["kid"] == gateway.board.kid.hex()
    else:
        assert gateway.executed == [order.DECOMMISSION]
        assert shown["state"] == "decommissioned"
    assert shown["under_way"] is None
    assert laterne("audit", "verify", "--authority", authority).code == 0


def test_a_decommissioned_board_has_said_so_itself_and_is_believed_up_to_its_last_report(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway, tmp_path: Path
) -> None:
    board = boards[0]
    board._sequence, board._previous = 0, b""
    reports = [board.next_report() for _ in range(8)]
    done = decommission(authority, broker, "--roster", tmp_path / "roster")
    assert done.out.startswith("LE-0001 is decommissioned. Its last report is 7;")
    shown = show(authority)
    assert (shown["state"], shown["reason"], shown["last_report"]) == ("decommissioned", "scrapped", 7)
    body = _bytes(shown["receipts"][0]["receipt"])
    signed = cose.parse(body, receipt.MAX_RECEIPT_BYTES)
    said = receipt.receipt_of(cose.verify(signed, cose.RECEIPT, lambda m, s: is_signature(board.key.public, m, s)))
    assert (said.board, said.outcome, said.sequence) == ("LE-0001", receipt.DONE, 7)
    assert said.order == order.digest(_bytes(shown["receipts"][0]["order"]))
    found, _ = read(tmp_path / "roster", authority)
    assert [entry.board for entry in found.entries] == ["LE-0002"]
    assert found.revoked == [("LE-0001", board.kid, "scrapped")]
    whole = verified(authority, tmp_path / "r", *reports)
    assert whole["reports_verified"] == 7
    assert [one["reason"] for one in whole["refused"]] == [
        "LE-0001 was decommissioned after its report 7: its key is in wrong hands"
    ]
    assert laterne("audit", "verify", "--authority", authority).code == 0
    assert "it takes no orders any more" in rotate(authority, broker, "--gateway", GATEWAY, code=1).err


def test_reports_that_wait_keep_a_board_until_they_may_be_given_up(
    authority: Path, broker: Mosquitto, gateway: FakeGateway
) -> None:
    gateway.refuses = receipt.REPORTS_WAIT
    assert "--give-up-backlog" in decommission(authority, broker, code=1).err
    assert (show(authority)["state"], show(authority)["under_way"]) == ("enrolled", None)
    gateway.refuses = None
    decommission(authority, broker, "--give-up-backlog")
    first, second = (order.order_of(cose.parse(body, 700).payload) for body in gateway.orders)
    assert (first.argument, second.argument) == (False, True)
    assert first.counter < second.counter


def test_a_gateway_that_never_says_that_the_board_knows_does_not_hold_up_the_end(
    authority: Path, broker: Mosquitto, gateway: FakeGateway
) -> None:
    gateway.notes = False
    done = decommission(authority, broker, "--timeout", 3)
    assert "has not said that it knows" in done.err
    assert show(authority)["state"] == "decommissioned"
    assert show(authority)["under_way"] is None


def test_nothing_stays_at_the_broker_when_it_is_done(authority: Path, broker: Mosquitto, gateway: FakeGateway) -> None:
    rotate(authority, broker)
    assert retained(broker) == [f"{PREFIX}/status"]


def test_the_command_says_where_it_cannot_find_the_board(
    authority: Path, broker: Mosquitto, gateway: FakeGateway, tmp_path: Path
) -> None:
    assert "may hold letters, digits" in rotate(authority, broker, "--gateway", "gw/#", code=2).err
    assert "a sign of topics" in rotate(authority, broker, "--tenant", "+", code=2).err
    assert "has never been at" in rotate(authority, broker, "--gateway", "gw-9", code=1).err
    assert (
        "is not in the registry"
        in laterne("board", "rotate", "LE-0009", "--authority", authority, "--broker", broker.url, code=2).err
    )
    laterne("roster", "export", "--gateway", "gw-2", "--authority", authority, "-o", tmp_path / "r")
    assert "on the rosters of gw-1, gw-2" in rotate(authority, broker, code=2).err
    rotate(authority, broker, "--gateway", GATEWAY, "--tenant", TENANT)
    laterne("board", "revoke", "LE-0001", "--reason", "stolen", "--authority", authority)
    assert "it takes no orders any more" in rotate(authority, broker, "--gateway", GATEWAY, code=1).err
    broker.kill()
    assert "cannot be used" in rotate(authority, broker, "--gateway", GATEWAY, code=1).err


def test_ctrl_c_while_a_board_is_waited_for_ends_with_130_and_the_order_stays(
    authority: Path, broker: Mosquitto, gateway: FakeGateway
) -> None:
    gateway.silent = True
    with running("board", "rotate", "LE-0001", "--authority", authority, "--broker", broker.url) as command:
        assert gateway.got_order.wait(WAIT_S)
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=WAIT_S)
    assert command.returncode == 130
    assert "Traceback" not in err
    assert show(authority)["under_way"] == {"act": "rotate", "step": "asked"}


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
