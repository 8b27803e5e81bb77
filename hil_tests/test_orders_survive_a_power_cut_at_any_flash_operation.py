"""P4 on the board: the power fails at every flash operation of an order, and of what a start does after it.

Rotated keys are all old or all new, with the credential that belongs to them; which it is agrees with the receipts that
were given and with the key of every report. A key that was erased is in no file.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.enrolled import Pairs, record
from tests.firmware.programs import files_of
from tests.gateway.fake_authority import FakeAuthority

from laterne_emulator import cut_sweep, image
from laterne_emulator.flash import Cut, Torn
from laterne_protocol import cose, credential, order, receipt

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

MAIN = Path(__file__).parent / "firmware_for_tests" / "ordered.py"
NAME = "LE-0007"
HEAP_BYTES = 256 * 1024  # the program holds more of the firmware at once than a board


def found(pairs: Pairs, *, former: Pairs | None = None, silent: bool = False) -> list[str]:
    """What the program says of a board that has these."""
    digest = credential.digest(pairs.credential).hex()
    before = former.agree.public.hex() if former else "-"
    return [NAME, pairs.sign.kid.hex(), digest, pairs.agree.secret.hex(), before, str(silent)]


class World:
    """An enrolled board that is off, its authority, its keys, and the keys that it would take next."""

    def __init__(self) -> None:
        self.authority = FakeAuthority()
        self.old, self.new = Pairs(self.authority, NAME), Pairs(self.authority, NAME)

    def order(self, action: int, argument: bytes | bool | None) -> bytes:
        made = order.Order(NAME, self.old.sign.kid, 7, action, argument)
        return self.authority.order_key.sign(cose.ORDER, made.to_payload())

    def files(self, **more: bytes) -> dict[str, bytes]:
        return {
            **files_of(MAIN),
            **self.old.files,
            **record("k/trust", self.authority.trust().to_payload()),
            **more,
        }


class Life:
    """What one life said: its lines, by their first word."""

    def __init__(self, printed: str) -> None:
        self.printed = printed
        self.said: dict[str, list[list[str]]] = {}
        for line in printed.splitlines():
            if line:
                self.said.setdefault(line.split()[0], []).append(line.split()[1:])

    @property
    def is_done(self) -> bool:
        return "done" in self.said

    def one(self, word: str) -> list[str]:
        (found,) = self.said[word]
        return found

    def reports(self) -> Iterator[tuple[int, bytes]]:
        for sequence, signed in self.said.get("report", []):
            yield int(sequence), bytes.fromhex(signed)


async def live(board: "EmulatedBoard", cut: Cut | None = None) -> Life:
    await cut_sweep.live(board, cut)
    return Life(board.usb.printed())


def files_with(files: dict[str, bytes], *secrets: bytes) -> list[str]:
    return [name for name, content in files.items() if any(secret in content for secret in secrets)]


async def a_board(
    emulated_boards: "Benches", files: dict[str, bytes], told: str = "order"
) -> tuple["EmulatedBoard", Path, int]:
    """A board that is off, a copy of its flash, and how many flash operations it makes before it reads its order.

    Cuts before that are those of other tests: the start's, the backlog's.
    """
    bench = await emulated_boards(files=files, powered=False, heap_bytes=HEAP_BYTES)
    board = bench.boards["board-01"]
    before = board.folder / "before.img"
    shutil.copy(board.flash.image, before)
    image.write(board.flash.image, {}, remove=[told])
    count = board.flash.count.operations
    assert (await live(board)).is_done
    return board, before, board.flash.count.operations - count - 1


def torn(number: int) -> Torn:
    """Every operation is cut in every run, in one of two ways; in the next run, with another seed, in the other."""
    return Torn.HEAD if number % 2 else Torn.CLEAN


def assert_by(pairs: Pairs, signed: bytes) -> None:
    assert cose.parse(signed, 1024).kid == pairs.sign.kid


async def test_keys_that_are_taken_are_all_old_or_all_new(emulated_boards: "Benches", board_seed: int) -> None:
    world = World()
    old, new = world.old, world.new
    told = world.order(order.TAKE, new.credential)
    files = world.files(order=told) | record("k/next", new.record)
    board, before, first = await a_board(emulated_boards, files)
    for at in itertools.count(first):
        shutil.copy(before, board.flash.image)
        cut = await live(board, Cut(at, torn(board_seed + at), board_seed + at))
        # The start after it is cut, too, somewhere in what it has to end.
        again = await live(board, Cut(at % 30, torn(at), board_seed - at))
        after = await live(board)
        lives = [cut, again, after]
        assert after.is_done, f"cut at operation {at}: {after.printed}"
        says = after.one("found")
        assert says in (found(old), found(new, former=old)), f"cut at operation {at}"
        if any("receipt" in life.said for life in lives[:-1]):
            assert says == found(new, former=old), at
        assert after.one("now") == found(new, former=old), at
        # One receipt, by the old key, whoever asks: the same bytes as before the cut.
        (answer,) = {life.one("receipt")[0] for life in lives if "receipt" in life.said}
        assert_by(old, bytes.fromhex(answer))
        told_last = receipt.receipt_of(cose.parse(bytes.fromhex(answer), 1024).payload)
        assert (told_last.outcome, told_last.order) == (receipt.DONE, order.digest(told))
        for life in lives:
            for sequence, signed in life.reports():
                assert_by(old if sequence <= told_last.sequence else new, signed)
        left = image.contents(board.flash.image)
        assert files_with(left, old.sign.secret) == [], at
        assert not [name for name in left if name.startswith("/k/next")], at
        if cut.is_done:
            assert at - first > 40
            return


async def test_next_keys_are_durable_before_they_are_told_and_change_nothing(
    emulated_boards: "Benches", board_seed: int
) -> None:
    world = World()
    told = world.order(order.ROTATE, None)
    board, before, first = await a_board(emulated_boards, world.files(order=told))
    for at in itertools.count(first):
        shutil.copy(before, board.flash.image)
        cut = await live(board, Cut(at, torn(board_seed + at), board_seed + at))
        after = await live(board)
        assert after.is_done, f"cut at operation {at}: {after.printed}"
        assert after.one("found") == after.one("now") == found(world.old), at
        answers = {life.one("receipt")[0] for life in (cut, after) if "receipt" in life.said}
        (answer,) = answers
        result = receipt.receipt_of(cose.parse(bytes.fromhex(answer), 1024).payload).result
        assert isinstance(result, bytes)
        keys = credential.possession_of(cose.parse(result, 1024).payload)
        kept = image.read(board.flash.image, "k/next.0") or b""
        assert kept[12:][32:96] == keys.sign_key, at
        assert kept[12:][128:192] == keys.agree_key, at
        if cut.is_done:
            assert at - first > 10
            return


async def test_a_board_out_of_service_never_signs_again_and_its_receipt_stays(
    emulated_boards: "Benches", board_seed: int
) -> None:
    world = World()
    old = world.old
    told = world.order(order.DECOMMISSION, False)
    files = world.files(order=told) | record("k/next", world.new.record)
    board, before, first = await a_board(emulated_boards, files)
    for at in itertools.count(first):
        shutil.copy(before, board.flash.image)
        cut = await live(board, Cut(at, torn(board_seed + at), board_seed + at))
        after = await live(board)
        assert after.is_done, f"cut at operation {at}: {after.printed}"
        assert after.one("now") == found(old, silent=True), at
        (answer,) = {life.one("receipt")[0] for life in (cut, after) if "receipt" in life.said}
        assert_by(old, bytes.fromhex(answer))
        last = receipt.receipt_of(cose.parse(bytes.fromhex(answer), 1024).payload).sequence
        assert all(sequence <= last for life in (cut, after) for sequence, _ in life.reports()), at
        if after.one("found")[-1] == "True":
            assert "report" not in after.said, at
        secrets = (old.sign.secret, world.new.sign.secret, world.new.agree.secret)
        assert files_with(image.contents(board.flash.image), *secrets) == [], at
        if cut.is_done:
            assert at - first > 15
            return


async def test_a_board_whose_receipt_has_arrived_becomes_blank_and_nothing_of_it_comes_back(
    emulated_boards: "Benches", board_seed: int
) -> None:
    world = World()
    files = world.files(order=world.order(order.DECOMMISSION, False)) | {"k/keys.bad": world.old.record}
    board, before, _ = await a_board(emulated_boards, files)
    shutil.copy(before, board.flash.image)
    assert (await live(board)).one("now") == found(world.old, silent=True)
    image.write(board.flash.image, {"arrived": b""}, remove=["order"])
    shutil.copy(board.flash.image, before)
    blank = ["None", "-", "-", "-", "-", "False"]
    for at in itertools.count():
        shutil.copy(before, board.flash.image)
        # The order is known to have arrived in one life and everything erased in the next: either may be cut.
        noted = await live(board, Cut(at, torn(board_seed + at), board_seed + at))
        erased = await live(board, Cut(at, torn(board_seed + at), board_seed - at))
        after = await live(board)
        assert after.is_done, f"cut at operation {at}: {after.printed}"
        if "arrived" in noted.said or "arrived" in erased.said:
            assert after.one("found") == blank, at
        if after.one("found") != blank:
            assert after.one("found") == found(world.old, silent=True), at
            after = await live(board)
        assert after.one("found") == blank, at
        left = image.contents(board.flash.image)
        assert files_with(left, world.old.sign.secret, world.old.agree.secret) == [], at
        assert [name for name in left if name.startswith(("/k/", "/log/")) and not name.startswith("/k/seed")] == [], at
        if noted.is_done and erased.is_done:
            assert at > 25
            return
