"""The serial line between gateway and boards: its pace, and every way in which it fails, the same for the same seed."""

import asyncio
import errno
import os
import termios
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from laterne_emulator.line import Line
from laterne_emulator.uart import UartEnd

FRAMES = bytes([*range(1, 60), 0]) * 20
WITHIN_S = 20.0


class Gateway:
    """A program that has the line's port open, without a library between it and the PTY."""

    def __init__(self, path: Path, baud: int = termios.B115200) -> None:
        self.port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.port)
        settings = termios.tcgetattr(self.port)
        settings[4] = settings[5] = baud
        termios.tcsetattr(self.port, termios.TCSANOW, settings)

    async def send(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self.port, data) :]
            except BlockingIOError:
                await _ready(loop.add_writer, loop.remove_writer, self.port)

    def drain(self) -> None:
        """Throw away what has arrived so far."""
        try:
            while os.read(self.port, 4096):
                pass
        except BlockingIOError:
            return

    async def receive(self, length: int) -> bytes:
        loop = asyncio.get_running_loop()
        got = b""
        async with asyncio.timeout(WITHIN_S):
            while len(got) < length:
                try:
                    got += os.read(self.port, 4096)
                except BlockingIOError:
                    await _ready(loop.add_reader, loop.remove_reader, self.port)
        return got


async def _ready(add: Callable[..., None], remove: Callable[[int], bool], fd: int) -> None:
    event = asyncio.Event()
    add(fd, event.set)
    try:
        await event.wait()
    finally:
        remove(fd)


class Board:
    """A UART with its firmware left out: the test reads and writes the board's side of the socket."""

    def __init__(self) -> None:
        self.end = UartEnd()
        self.end.powered = True

    async def receive(self, length: int) -> bytes:
        got = b""
        async with asyncio.timeout(WITHIN_S):
            while len(got) < length:
                got += await asyncio.get_running_loop().sock_recv(self.end.board_side, 4096)
        return got

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.end.board_side, data)


class Wiring:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[Line] = []
        self._boards: list[Board] = []
        self._gateways: list[Gateway] = []

    def line(self, boards: int = 1, **settings: Any) -> tuple[Line, Gateway, list[Board]]:
        made = [Board() for _ in range(boards)]
        self._boards += made
        line = Line(self._folder / f"uart-{len(self._lines)}", [board.end for board in made], **settings)
        self._lines.append(line)
        return line, self.gateway(line), made

    def gateway(self, line: Line, baud: int = termios.B115200) -> Gateway:
        self._gateways.append(Gateway(line.path, baud))
        return self._gateways[-1]

    def close(self) -> None:
        for line in self._lines:
            line.close()
        for board in self._boards:
            board.end.close()
        for gateway in self._gateways:
            os.close(gateway.port)


@pytest.fixture
async def wiring(tmp_path: Path) -> AsyncIterator[Wiring]:
    wiring = Wiring(tmp_path)
    yield wiring
    wiring.close()


async def _hears(wiring: Wiring, seed: int, data: bytes = FRAMES, **faults: Any) -> tuple[Line, bytes]:
    """What a board hears of `data` over a line with these faults; nothing is left on the line afterwards."""
    line, gateway, [board] = wiring.line(paced=False, seed=seed)
    for name, value in faults.items():
        setattr(line.faults, name, value)
    await gateway.send(data)
    await line.idle(after=len(data))
    return line, board.end.board_side.recv(1 << 20)


# --- a line that works --------------------------------------------------------------------------


async def test_bytes_take_the_time_they_need_at_the_baud_rate(wiring: Wiring) -> None:
    line, _, [board] = wiring.line(baud=9600)
    gateway = wiring.gateway(line, termios.B9600)
    board.end.baud = 9600
    loop = asyncio.get_running_loop()
    for sender, receiver in ((gateway, board), (board, gateway)):
        began = loop.time()
        await sender.send(FRAMES[:96])
        assert await receiver.receive(96) == FRAMES[:96]
        assert loop.time() - began >= 96 * 10 / 9600


async def test_a_plain_line_carries_both_directions_at_once(wiring: Wiring) -> None:
    line, gateway, [board] = wiring.line()
    await asyncio.gather(gateway.send(FRAMES), board.send(FRAMES))
    assert await board.receive(len(FRAMES)) == FRAMES
    assert await gateway.receive(len(FRAMES)) == FRAMES
    assert (line.count.to_board, line.count.to_gateway) == (len(FRAMES), len(FRAMES))


async def test_latency_is_added_to_the_time_on_the_line(wiring: Wiring) -> None:
    _, gateway, [board] = wiring.line(paced=False, latency_s=0.1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await gateway.send(b"x")
    assert await board.receive(1) == b"x"
    assert loop.time() - began >= 0.1


async def test_a_sender_is_held_up_when_it_is_faster_than_the_line(wiring: Wiring) -> None:
    _, gateway, [board] = wiring.line()
    data = bytes(range(256)) * 80  # 20 KiB, far more than any buffer in between
    heard = asyncio.create_task(board.receive(len(data)))
    await gateway.send(data)
    assert await heard == data


async def test_a_board_without_power_hears_nothing(wiring: Wiring) -> None:
    line, gateway, [board] = wiring.line(paced=False)
    board.end.powered = False
    await gateway.send(b"lost")
    await line.idle(after=4)
    board.end.powered = True
    await gateway.send(b"heard")
    assert await board.receive(1) == b"heard"


# --- a line with faults -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {"bit_errors": 0.01},
        {"lost": 0.05},
        {"doubled": 0.05},
        {"frames_doubled": 0.3},
        {"delayed": 0.01, "delay_s": 0.002},
        {"split": True},
    ],
    ids=lambda faults: next(iter(faults)),
)
async def test_a_line_fails_the_same_way_for_the_same_seed(wiring: Wiring, faults: dict[str, Any]) -> None:
    line, first = await _hears(wiring, 1, **faults)
    _, again = await _hears(wiring, 1, **faults)
    _, other = await _hears(wiring, 2, **faults)
    assert first == again
    if "split" in faults or "delayed" in faults:
        assert first == FRAMES  # later or in pieces, but all of it
    else:
        assert first != FRAMES
        assert first != other
        assert line.count.flips + line.count.lost + line.count.doubled + line.count.frames_doubled > 0


async def test_noise_does_not_depend_on_how_the_bytes_were_written(wiring: Wiring) -> None:
    _, at_once = await _hears(wiring, 3, bit_errors=0.01)
    line, gateway, [board] = wiring.line(seed=3)
    line.faults.bit_errors = 0.01
    for at in range(0, len(FRAMES), 7):
        await gateway.send(FRAMES[at : at + 7])
    assert await board.receive(len(FRAMES)) == at_once


async def test_flipped_bits_keep_their_number_and_lost_bytes_theirs(wiring: Wiring) -> None:
    line, heard = await _hears(wiring, 4, bit_errors=0.01)
    assert sum(a != b for a, b in zip(heard, FRAMES, strict=True)) == line.count.flips
    line, heard = await _hears(wiring, 4, lost=0.1)
    assert len(heard) == len(FRAMES) - line.count.lost


async def test_a_doubled_frame_arrives_twice_as_a_whole(wiring: Wiring) -> None:
    line, heard = await _hears(wiring, 5, frames_doubled=0.5)
    frames = heard.split(b"\0")[:-1]
    assert set(frames) == {bytes(range(1, 60))}
    assert len(frames) == 20 + line.count.frames_doubled


async def test_an_adapter_with_echo_hears_itself(wiring: Wiring) -> None:
    line, gateway, [board] = wiring.line(paced=False)
    line.faults.echo = True
    await gateway.send(b"who is there")
    assert await gateway.receive(12) == b"who is there"
    assert await board.receive(12) == b"who is there"


async def test_a_wrong_baud_rate_makes_garbage(wiring: Wiring) -> None:
    line, _, [board] = wiring.line(seed=6)
    gateway = wiring.gateway(line, termios.B57600)
    await gateway.send(FRAMES[:60])
    await line.idle(after=60)
    assert line.count.garbled == 60
    assert board.end.board_side.recv(4096)[:60] != FRAMES[:60]
    board.end.baud = 57600
    await gateway.send(b"understood")
    assert await board.receive(10) == b"understood"


# --- a bus --------------------------------------------------------------------------------------


async def test_all_boards_on_a_bus_hear_the_gateway_and_each_other(wiring: Wiring) -> None:
    _, gateway, boards = wiring.line(boards=3, bus=True, paced=False)
    await gateway.send(b"all")
    assert [await board.receive(3) for board in boards] == [b"all"] * 3
    await boards[1].send(b"one")
    assert await gateway.receive(3) == b"one"
    assert [await boards[0].receive(3), await boards[2].receive(3)] == [b"one"] * 2
    with pytest.raises(BlockingIOError):
        boards[1].end.board_side.recv(1)


async def test_two_who_send_at_once_on_a_bus_destroy_each_other(wiring: Wiring) -> None:
    line, gateway, boards = wiring.line(boards=2, bus=True)
    await asyncio.gather(boards[0].send(FRAMES[:200]), boards[1].send(FRAMES[:200]))
    heard = await gateway.receive(400)
    assert line.count.collisions > 300
    assert FRAMES[:60] not in heard[:300]


async def test_a_babbling_board_fills_the_bus_until_it_is_silenced(wiring: Wiring) -> None:
    line, gateway, boards = wiring.line(boards=2, bus=True, seed=7)
    line.babble(0, True)
    assert len(set(await gateway.receive(100))) > 20
    await boards[1].send(b"help")
    assert b"help" not in await gateway.receive(100)
    line.babble(0, False)
    await line.idle()
    gateway.drain()
    await boards[1].send(b"thanks")
    assert await gateway.receive(6) == b"thanks"


async def test_a_plain_line_takes_one_board_and_a_bus_thirty_two(wiring: Wiring) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        wiring.line(boards=2)
    with pytest.raises(ValueError, match="do not fit"):
        wiring.line(boards=33, bus=True)


# --- an adapter that is pulled out --------------------------------------------------------------


async def test_an_unplugged_adapter_is_an_io_error_and_its_path_is_gone(wiring: Wiring) -> None:
    line, gateway, [board] = wiring.line(paced=False)
    line.unplug()
    assert not line.path.is_symlink()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.write(gateway.port, b"x")
    assert os.read(gateway.port, 1) == b""
    await board.send(b"nobody hears this")
    await line.idle(after=len(b"nobody hears this"))
    line.plug()
    again = wiring.gateway(line)
    await board.send(b"here I am")
    assert await again.receive(9) == b"here I am"
    await again.send(b"good")
    assert await board.receive(4) == b"good"
