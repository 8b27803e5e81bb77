"""P3: the operator's order makes a board in service a blank one by USB alone, when its line or gateway is dead.

Nothing else that comes by USB has an effect, however much of it comes. The firmware is the real one, in a board's heap.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.firmware.operator_end import Operator
from tests.firmware.questions import WITHIN_S, Asker, asking
from tests.gateway.fake_authority import Key
from tests.typed import laterne

from laterne_emulator import image, release_tool
from laterne_emulator.flash import Cut, Torn
from laterne_emulator.lives import Ending
from laterne_protocol import frame, messages, order, receipt
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import service_end
from laterne_provisioning.flashing.service_end import End

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
SETTINGS = {"report_s": 5, "sample_ms": 250}
SERVICE_PIN = 22
FASTER_PPM = 3_000_000  # a board's seconds are a quarter of ours: what waits here is the board, not its processor


@asynccontextmanager
async def in_service(emulated_boards: "Benches") -> "AsyncIterator[tuple[Bench, Operator]]":
    """A board that is enrolled and has delivered a report, and the operator whose orders it takes."""
    bench = await emulated_boards(settings=SETTINGS, paced=False, powered=False)
    bench.boards[NAME].clock_ppm = FASTER_PPM
    await bench.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await asker.wait_for_reports(1)
        yield bench, Operator(asker)


async def carry_out(board: "EmulatedBoard", signed: bytes, kept: Path) -> bool:
    """Whether the board was in service, and is blank now; else it was not."""
    end = End(NAME, signed, kept)
    async with asyncio.timeout(5 * WITHIN_S):
        said = await asyncio.to_thread(service_end.carry_out, str(board.usb.path), end, lambda _: None)
    assert ("is over" in said) != ("was not sent" in said)
    return "is over" in said


async def delivered(board: "EmulatedBoard", asker: Asker) -> None:
    """No readings are taken any more, and none wait: nothing writes to flash but what comes from outside."""
    board.pins.drive(SERVICE_PIN, 0)
    await board.usb.wait_for_print("no readings are taken")
    board.usb._printed.clear()
    await board.usb.wait_for_print(": state ")  # it tells none while it signs: the last report is closed
    while (await asker.poll()).waiting:
        pass


def write(board: "EmulatedBoard", data: bytes) -> None:
    with board.usb.path.open("wb", buffering=0) as port:
        port.write(data)


def asked(payload: bytes, kind: int = frame.USB) -> bytes:
    return b"\0" + frame.Frame(kind, frame.ANY_BOARD, frame.GATEWAY, payload).to_bytes()


async def test_a_board_whose_line_is_dead_becomes_a_blank_one(emulated_boards: "Benches", tmp_path: Path) -> None:
    async with in_service(emulated_boards) as (bench, operator):
        board = bench.boards[NAME]
        refused = operator.order(order.DECOMMISSION, False)
        with pytest.raises(OperatorError, match="--give-up-backlog"):
            await carry_out(board, refused, tmp_path / "refused")
        assert operator.read(refused, (tmp_path / "refused").read_bytes()).reason == receipt.REPORTS_WAIT
        await operator.asker.wait_for_reports(2)  # it goes on as it was
        told, kept = operator.order(order.DECOMMISSION, True), tmp_path / "receipt"
        assert await carry_out(board, told, kept)
        assert operator.read(told, kept.read_bytes()).outcome == receipt.DONE
        assert "no memory" not in board.usb.printed()
    await board.power_off()
    names = image.names(board.flash.image)
    assert not [name for name in names if name.startswith(("/k/credential", "/k/name", "/k/order"))]
    assert {life.ending for life in board.lives} <= {Ending.RESET, Ending.POWER_OFF}, "no watchdog has bitten"


async def test_nothing_else_that_comes_by_usb_has_an_effect(emulated_boards: "Benches") -> None:
    async with in_service(emulated_boards) as (bench, operator):
        board, asker = bench.boards[NAME], operator.asker
        await delivered(board, asker)
        before = board.flash.count.operations
        good = operator.order(order.DECOMMISSION, True)
        for words, signed in (
            ("not signed by a key of ours", operator.order(order.DECOMMISSION, True, key=Key())),
            ("not signed by a key of ours", good[:-1] + bytes((good[-1] ^ 1,))),
            ("it is for another board", operator.order(order.DECOMMISSION, True, board="LE-0009")),
            ("by USB only the end of service is ordered", operator.order(order.ROTATE)),
        ):
            write(board, asked(bytes((service_end.BY_USB,)) + signed))
            async with asyncio.timeout(WITHIN_S):
                await board.usb.wait_for_print(words)
            board.usb._printed.clear()
        # That was all that it takes for the next half minute, whoever signs it: a stranger's time is not the board's.
        for other in (
            asked(bytes((service_end.BY_USB,)) + good),
            asked(bytes((messages.RECEIPT_ARRIVED,)) + bytes(16)),
            asked(bytes((messages.TRUST,)) + bytes(900)),
            asked(messages.Hello(1).to_bytes(), frame.MESSAGE),
            bytes(1024),
            random.Random(7).randbytes(2000),
            b"\r\x03\x03\x01import os\x04" * 50,
        ):
            with contextlib.suppress(BlockingIOError):  # the board takes it slowly; what waits is on its way
                await asyncio.to_thread(write, board, other)
            assert (await asker.hello()).boot == 1
        for _ in range(3):
            await board.usb.wait_for_print(": state ")
            assert (await asker.hello()).boot == 1
        assert f"{NAME}: order " not in board.usb.printed()
        assert board.flash.count.operations == before
        board.pins.drive(SERVICE_PIN, None)
        await asker.wait_for_reports(len(asker.reports) + 1)  # it serves on
        assert board.lives == []


async def test_an_order_that_was_executed_ends_no_board_that_came_after(
    emulated_boards: "Benches", tmp_path: Path
) -> None:
    async with in_service(emulated_boards) as (bench, operator):
        board = bench.boards[NAME]
        await delivered(board, operator.asker)
        told = operator.order(order.DECOMMISSION, False)
        with pytest.raises(UsageError, match="cannot be written"):
            await carry_out(board, told, tmp_path / "nowhere" / "receipt")
        assert "everything is erased" not in board.usb.printed(), "its only receipt would be gone"
        assert await carry_out(board, told, tmp_path / "receipt")
        board.pins.drive(SERVICE_PIN, None)  # as long as it is closed, nothing runs on a board that is new
        await board.power_off()
        await board.power_on()
        await board.usb.wait_for_print("waiting for enrolment")
        again = Asker(operator.asker._reader, operator.asker._writer, operator.asker._address)
        again.authority, again.gateway = operator.asker.authority, operator.asker.gateway
        await again.enrol(NAME)
        with pytest.raises(OperatorError, match="another signing key"):
            await carry_out(board, told, tmp_path / "replayed")
        await again.wait_for_reports(1)


@pytest.mark.parametrize("at", [2])
async def test_the_power_may_fail_while_a_board_ends(emulated_boards: "Benches", tmp_path: Path, at: int) -> None:
    async with in_service(emulated_boards) as (bench, operator):
        board = bench.boards[NAME]
        await delivered(board, operator.asker)
        told, kept = operator.order(order.DECOMMISSION, True), tmp_path / "receipt"
        board.flash.cut_power(Cut(at=at, torn=Torn.RANDOM_BITS, seed=at))

        async def feed() -> None:
            await board.wait_until_down()
            await board.power_on()

        async with asyncio.TaskGroup() as both:
            both.create_task(feed())
            while True:
                try:
                    if not await carry_out(board, told, kept):
                        break  # it is a new board, and is left as it is
                except OperatorError:
                    continue  # the technician gives the same command again
        assert operator.read(told, kept.read_bytes()).outcome == receipt.DONE
        await board.usb.wait_for_print("maintenance: the service switch is closed")
    assert [life.ending for life in board.lives].count(Ending.POWER_CUT) == 1


async def test_operator_and_technician_end_a_board_by_files(emulated_boards: "Benches", tmp_path: Path) -> None:
    bench = await emulated_boards(paced=False, powered=False)
    board = bench.boards[NAME]
    board.clock_ppm = FASTER_PPM
    await bench.power_on()
    office, release, trusted = tmp_path / "office", tmp_path / "release", tmp_path / "trust.cbor"
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    await laterne("init", office, "--no-passphrase")
    await laterne("release", "sign", release, "--authority", office)
    await laterne("trust", "export", "--authority", office, "-o", trusted)
    line = bench.lines[NAME].path
    await laterne("board", "enrol", "--port", line, "--id", "LE-0001", "--authority", office)
    end = ("board", "decommission", "LE-0001", "--authority", office)
    asked, receipt_file = tmp_path / "LE-0001.order", tmp_path / "LE-0001.receipt"
    assert "Which way" in await laterne(*end, "--reason", "dead line", code=2)
    await laterne(*end, "--reason", "dead line", "--give-up-backlog", "-o", asked)
    flash = ("flash", board.usb.path, "--release", release)
    assert "--order FILE" in await laterne(*flash, "--trust", trusted, code=1)
    assert "is no order" in await laterne(*flash, "--trust", trusted, "--order", trusted, code=2)
    enrolling = ("--authority", office, "--order", asked, "--line", line)
    assert "another --id" in await laterne(*flash, *enrolling, "--id", "LE-0001", code=2)
    done = await laterne(*flash, *enrolling, "--id", "LE-0002", "--json")
    assert (done["board"]["id"], done["board"]["hardware"]) == ("LE-0002", board.unique_id.hex())
    receipt_bytes = receipt_file.read_bytes()
    receipt_file.write_bytes(receipt_bytes[:-1] + bytes((receipt_bytes[-1] ^ 1,)))
    assert "not the receipt" in await laterne(*end, "--receipt", receipt_file, code=1)
    receipt_file.write_bytes(receipt_bytes)
    for _ in range(2):
        ended = await laterne(*end, "--receipt", receipt_file, "--json")
        assert (ended["state"], ended["reason"], ended["under_way"]) == ("decommissioned", "dead line", None)
    await laterne("audit", "verify", "--authority", office)
