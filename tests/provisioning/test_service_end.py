"""What a technician is told who brings an order by USB, where the port is not the board that it should be."""

import os
import pty
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.gateway.fake_authority import Key

from laterne_protocol import cose, order, receipt, trust
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import service_end
from laterne_provisioning.flashing.service_end import End

STATE = (
    '%s: state [1, "0.1.0", "/a", false, %s, "emulated", 0, true, 1, 14057, [0, null, 0], 2, 3, 8847, 0, 1, 24320, '
    "true, false, 250, [], []]\r\n"
)
WITHIN_S = 20.0


@contextmanager
def port(says: bytes, answers: Callable[[bytes], bytes] = lambda asked: b"") -> Iterator[tuple[str, bytearray]]:
    """A port that says this again and again, and answers once to what begins with a zero byte. All that it was sent."""
    end, device = pty.openpty()
    tty.setraw(device)
    os.set_blocking(end, False)
    over, heard = threading.Event(), bytearray()

    def talk() -> None:
        answered = False
        while not over.wait(0.05):
            try:
                heard.extend(os.read(end, 4096))
            except BlockingIOError:
                os.write(end, says)
            if b"\0" in heard and not answered:
                answered = True
                os.write(end, answers(bytes(heard)))

    talking = threading.Thread(target=talk, daemon=True)
    talking.start()
    try:
        yield os.ttyname(device), heard
    finally:
        over.set()
        talking.join(WITHIN_S)
        os.close(device)
        os.close(end)


def end_of(tmp_path: Path, key: Key | None = None, action: int = order.DECOMMISSION) -> End:
    told = order.Order("LE-0001", bytes(8), 1, action, True if action == order.DECOMMISSION else None)
    signed = (key or Key()).sign(cose.ORDER, told.to_payload())
    return End("LE-0001", signed, tmp_path / "LE-0001.receipt")


def test_a_board_that_is_not_enrolled_or_another_one_is_sent_nothing(tmp_path: Path) -> None:
    end = end_of(tmp_path)
    with port((STATE % ("board 2f07", "false")).encode()) as (name, heard):
        assert service_end.carry_out(name, end, lambda _: None).endswith("not in service: the order was not sent.")
    assert b"\0" not in heard
    with (
        port((STATE % ("LE-0002", "true")).encode()) as (name, heard),
        pytest.raises(OperatorError, match=r"is for LE-0001, and the board .* is LE-0002: nothing was sent"),
    ):
        service_end.carry_out(name, end, lambda _: None)
    assert b"\0" not in heard


def test_what_is_no_receipt_for_this_order_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_end, "AGAIN_S", 0.5)
    monkeypatch.setattr(service_end, "BEGUN_WITHIN_S", 1.0)
    monkeypatch.setattr(service_end, "ANSWER_WITHIN_S", 2.0)
    end = end_of(tmp_path)
    foreign = receipt.Receipt("LE-0001", bytes(16), receipt.DONE, None, 3, 3).to_payload()
    for said, words in (
        (b"LE-0001: answer 30 " + Key().sign(cose.RECEIPT, foreign).hex().encode(), "for another order"),
        (b"LE-0001: answer 30 00ff", "is no receipt"),
        (b"LE-0001: answer 30 damaged", "has not answered within 1 s"),
        (b"LE-0001: answer 30", "has not answered within 1 s"),
        (b"LE-0001: order 7 begins", "has not answered within 2 s"),
        (b"LE-0001: an order was refused: it is for\x1b[2J another board", r"refuses: it is for\\x1b\[2J another"),
        (b"x" * 10_000, "has not answered within 1 s"),
    ):
        with (
            port((STATE % ("LE-0001", "true")).encode(), lambda _, said=said: said + b"\r\n") as (name, _),  # type: ignore[misc]  # mypy infers no lambda with a default
            pytest.raises(OperatorError, match=words),
        ):
            service_end.carry_out(name, end, lambda _: None)
    assert not end.kept.exists()


def test_a_port_that_tells_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_end, "STATE_WITHIN_S", 0.5)
    with port(b"login: ") as (name, _), pytest.raises(OperatorError, match=r"tells nothing for 0 s.*revoke it"):
        service_end.carry_out(name, end_of(tmp_path), lambda _: None)


def test_only_an_order_that_ends_a_service_and_is_the_operators_is_brought(tmp_path: Path) -> None:
    key, path = Key(), tmp_path / "LE-0001.order"
    trusted = trust.Trust(1, "Testingen", 1, [], {role: [key.public] for role in trust.ROLES})
    path.write_bytes(end_of(tmp_path, key).signed)
    assert service_end.read(path, trusted) == End("LE-0001", path.read_bytes(), tmp_path / "LE-0001.receipt")
    for signed, words in (
        (end_of(tmp_path).signed, "not signed by an order key of Testingen"),
        (end_of(tmp_path, key, order.ROTATE).signed, "takes no other order"),
        (b"", "is no order"),
        (bytes(10_000), "is no order"),
    ):
        path.write_bytes(signed)
        with pytest.raises(UsageError, match=words):
            service_end.read(path, trusted)
    with pytest.raises(UsageError, match="cannot be read"):
        service_end.read(tmp_path / "nothing", trusted)
