"""A gateway's part of updates, for tests of the real firmware: releases, and who sends them in parts.

It stands in for nobody in the field: the gateway has its own code for this. It keeps to the rules that a board relies
on (protocol/README.md, 3.1), or breaks one where a test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

from tests.firmware.operator_end import Operator
from tests.firmware.questions import WITHIN_S, Asker, asking
from tests.gateway.fake_authority import FakeAuthority, Key

from laterne_emulator import image, slots
from laterne_emulator.bench import Bench
from laterne_emulator.board import EmulatedBoard
from laterne_gateway import patches
from laterne_protocol import cose, manifest, manifest_writing, messages, order, receipt
from laterne_protocol.update_messages import (
    DEFLATED,
    ENVELOPE,
    FAILED,
    FIRST_FILE,
    INDEX,
    LEAST_WINDOW_BITS,
    MAX_CODE_BYTES,
    MAX_PART_BYTES,
    RAW,
    STAGED,
    WORKING,
)


class SignedRelease(slots.Release):
    """A release that keys have signed; its items, and the codes of their blocks."""

    def signed_by(self, *keys: Key, vendor: bytes = manifest.VENDOR, class_id: bytes = manifest.CLASS_ID) -> bytes:
        """The severed envelope."""
        made = manifest_writing.envelope_bytes(self.sequence, self.index, vendor=vendor, class_id=class_id)
        for key in keys:
            protected = cose.protected_header(key.kid)
            found = manifest.envelope_of(made, manifest.MAX_ENVELOPE_BYTES)
            made = manifest_writing.with_signature(made, protected, key.signature(found.to_be_signed(protected)))
        return manifest.envelope_of(made, manifest.MAX_ENVELOPE_BYTES).severed()

    @cached_property
    def paths(self) -> list[str]:
        return sorted(self.files)

    def item(self, number: int) -> bytes:
        return self.index if number == INDEX else self.files[self.paths[number - FIRST_FILE]]

    def base_of(self, number: int, running: slots.Release | None) -> bytes | None:
        if running is None:
            return None
        return running.index if number == INDEX else running.files.get(self.paths[number - FIRST_FILE])


class Sender:
    """Sends a release to the board that an Asker asks.

    envelope: severed, as it is sent. running: the release that the board runs, for patches; None makes none.
    asked, parts, bytes_sent: how much it was. wanted: all items that the board has asked for. windows: what it said of
    its window for each block of files that was deflated.
    """

    def __init__(
        self, asker: Asker, release: SignedRelease, envelope: bytes, running: slots.Release | None = None
    ) -> None:
        self.asker = asker
        self.release = release
        self.envelope = envelope
        self.running = running
        self.asked = self.parts = self.bytes_sent = 0
        self.wanted: list[int] = []
        self.windows: list[tuple[int, ...]] = []

    async def ask(self, told: bytes | None = None) -> messages.Progress:
        async with asyncio.timeout(WITHIN_S):
            while True:
                self.asked += 1
                answer = await self.asker.ask(lambda number: messages.Update(number, told))
                if isinstance(answer, messages.Progress):
                    return answer
                assert isinstance(answer, messages.Refusal)
                assert answer.reason == messages.NOT_READY
                await asyncio.sleep(0.1)

    async def send(
        self,
        item: int,
        start: int,
        encoding: int,
        code: bytes,
        offset: int = 0,
        most: int = MAX_CODE_BYTES,
        size: int | None = None,
    ) -> None:
        """Parts of a code from an offset on, at most so many bytes of it. size: of its content, if it is not raw."""
        end = min(len(code), offset + most)
        while offset < end:
            part = code[offset : min(end, offset + MAX_PART_BYTES)]
            about = item, start, size or len(code), encoding, len(code), offset, part
            await self.data(messages.Data(self.parts % 256, *about))
            offset += len(part)
            self.bytes_sent += len(part)

    async def data(self, message: messages.Data) -> None:
        self.parts += 1
        assert self.asker.session is not None
        await self.asker.send(b"\0" + self.asker.sealed(message.to_bytes()).to_bytes())

    def code(
        self, item: int, start: int, most: int, bits: int = LEAST_WINDOW_BITS, behind: int = 0
    ) -> tuple[int, bytes, int]:
        """Encoding, code and size of a block: the shortest there is, of as much content as may be."""
        if item == ENVELOPE:
            return RAW, self.envelope, len(self.envelope)
        size = most
        while True:
            portions = list(self._portions(item, start, size))
            size = sum(len(portion.content) for portion in portions)
            before = b"".join(self.release.item(one) for one in range(FIRST_FILE, item)) if behind else b""
            before += self.release.item(item)[:start]
            encoding, code = patches.encoded(portions, bits, before[len(before) - behind :])
            if len(code) <= MAX_CODE_BYTES:
                return encoding, code, size
            size = max(MAX_CODE_BYTES, size * 3 // 4)

    def _portions(self, item: int, start: int, size: int) -> Iterator[patches.Portion]:
        while size:
            base = self.release.base_of(item, self.running)
            content = self.release.item(item)[start:][:size]
            yield patches.Portion(content, start, None if base is None else patches.Base(base))
            size -= len(content)
            item, start = item + 1, 0

    async def step(self) -> messages.Progress:
        """One question, and the parts that its answer wants."""
        found = await self.ask()
        if found.wanted is not None and found.credit:
            _, item, start, most, offset, *window = found.wanted
            encoding, code, size = self.code(item, start, most, *window)
            if encoding == DEFLATED and item >= FIRST_FILE:
                self.windows.append(tuple(window))
            for reached in self._reached(item, start, size):
                if not self.wanted or self.wanted[-1] != reached:
                    self.wanted.append(reached)
            await self.send(item, start, encoding, code, offset, found.credit, size)
        return found

    def _reached(self, item: int, start: int, size: int) -> Iterator[int]:
        yield item
        if item >= FIRST_FILE:
            size -= len(self.release.item(item)) - start
            while size > 0:
                item += 1
                yield item
                size -= len(self.release.item(item))

    async def until(self, done: Callable[[messages.Progress], bool]) -> messages.Progress:
        async with asyncio.timeout(3 * WITHIN_S):
            while True:
                found = await self.step()
                if done(found):
                    return found
                if found.phase != WORKING and found.wanted is None:
                    await asyncio.sleep(0.05)

    async def send_all(self) -> messages.Progress:
        """Until the board says that it has all, or refuses it."""
        return await self.until(lambda found: found.phase in (STAGED, FAILED))


def running(settings: Mapping[str, int]) -> tuple[slots.Release, dict[str, bytes]]:
    """The release in slot a of a board, and all files of its flash."""
    files = image.firmware_files(image.find_firmware(), settings=settings)
    envelope = manifest.envelope_of(files["a/E"])
    envelope.index = files["a/M"]
    found = {path[2:]: content for path, content in files.items() if path.startswith("a/") and path.endswith(".mpy")}
    return slots.Release(found, sequence=envelope.sequence, signed=envelope), files


@asynccontextmanager
async def in_a_post(
    bench: Bench, authority: FakeAuthority | None = None
) -> AsyncIterator[tuple[EmulatedBoard, Asker, Operator]]:
    """The only board of a bench as in a post: enrolled in a start before. With it who asks and who orders."""
    (board,) = bench.boards.values()
    async with asking(bench.lines[board.name].path) as asker:
        if authority is not None:
            asker.authority = authority
            asker.gateway = type(asker.gateway)(authority)
        await asker.enrol(board.name)
        board.reset()
        await board.usb.wait_for_print("start 2")
        yield board, asker, Operator(asker)


async def told_to_stage(operator: Operator, sender: Sender, **different: Any) -> receipt.Receipt:
    """The receipt of an order to stage the release. different: digest, sequence, nonce, if not the true ones."""
    said = {"digest": sender.release.digest, "sequence": sender.release.sequence, **different}
    if "nonce" not in said:
        said["nonce"] = (await sender.ask()).nonce
    return await operator.told(operator.order(order.STAGE, [said["digest"], said["sequence"], said["nonce"]]))


def assert_whole(board: EmulatedBoard, release: slots.Release, slot: str = "b") -> None:
    """By a reader of the flash that shares no code with the board: every file is there, and no other."""
    found = {path: image.read(board.flash.image, path) for path in image.names(board.flash.image, f"/{slot}")}
    expected = {f"/{slot}/{path}": content for path, content in release.files.items()}
    assert found.pop(f"/{slot}/E") is not None
    assert found == expected | {f"/{slot}/M": release.index}
