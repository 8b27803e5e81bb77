"""The USB port of an emulated board: a PTY that mpremote opens, and the pump to the board's own terminal.

Two pairs of PTYs: one is the port, with a stable path (a symbolic link) while the board has power; the other is the
terminal of the board's process and lives as long as it. On a hard reset the port vanishes and comes back, as
USB does; over a soft reset it stays. Both directions have a bounded queue. If nobody reads the port, the board's
output waits for half a second and is then dropped, oldest first, as rp2's USB serial does.
"""

import asyncio
import os
import pty
import tty
from collections.abc import Callable
from pathlib import Path

from laterne_emulator.processor import CtrlC

QUEUE_BYTES = 16 * 1024
LOG_BYTES = 256 * 1024  # console.log; the one before it is kept as console.log.1
PRINTED_BYTES = 64 * 1024
LATER_S = 0.001  # until a Ctrl-C is tried again that fell into a flash operation
PATIENCE_S = 0.5  # MicroPython's MICROPY_HW_USB_CDC_TX_TIMEOUT
RAW_BANNER = b"raw REPL; CTRL-B to exit"
PROMPT = b">>> "
CTRL_A, CTRL_B, CTRL_C = b"\x01", b"\x02", b"\x03"
_TAIL_BYTES = 32


def open_terminal() -> tuple[int, int]:
    """(supervisor's end, board's end): no echo, no translation, no signals: Ctrl-C is the port's matter."""
    host, board = pty.openpty()
    tty.setraw(board)
    os.set_blocking(host, False)
    return host, board


class UsbPort:
    def __init__(self, path: Path, log: Path) -> None:
        self.path = path
        self.raw = False  # whether the board is in the raw REPL
        self._log = log
        self._host = self._device = -1
        self._console = -1
        self._interrupt: Callable[[], CtrlC] = lambda: CtrlC.CHARACTER
        self._waiting_out = bytearray()  # to whoever opened the port
        self._waiting_in = bytearray()  # to the board
        self._dropping = False
        self._patience: asyncio.TimerHandle | None = None
        self._interrupting: asyncio.TimerHandle | None = None
        self._tail = b""
        self._asked_to_leave_raw = False
        self._printed = bytearray()
        self._heard = asyncio.Event()

    # --- plugged and unplugged ------------------------------------------------------------------

    def plug(self) -> None:
        """The board has power: the port appears."""
        self._host, self._device = pty.openpty()
        tty.setraw(self._device)
        os.set_blocking(self._host, False)
        point_link(self.path, os.ttyname(self._device))
        self.raw = self._dropping = False
        self._printed.clear()
        asyncio.get_running_loop().add_reader(self._host, self._from_host)

    def unplug(self) -> None:
        """The port vanishes: whoever has it open gets an I/O error."""
        if self._host < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._host)
        loop.remove_writer(self._host)
        self.path.unlink(missing_ok=True)
        os.close(self._host)
        os.close(self._device)
        self._host = self._device = -1
        self._waiting_out.clear()
        self._waiting_in.clear()
        self._calm()

    # --- one life of the board's process --------------------------------------------------------

    def attach(self, console: int, interrupt: Callable[[], CtrlC]) -> None:
        """A process begins to live at this terminal; interrupt: as Processor.interrupt."""
        self._console, self._interrupt = console, interrupt
        asyncio.get_running_loop().add_reader(console, self._from_board)
        if self.raw:  # a board that soft-resets in the raw REPL comes back in the raw REPL
            self._to_board(CTRL_A)

    def detach(self) -> None:
        """The process has ended: take what it printed last, close its terminal."""
        while self._take_from_board():
            pass
        self._interrupt_no_more()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._console)
        loop.remove_writer(self._console)
        os.close(self._console)
        self._console = -1
        self._waiting_in.clear()
        self._tail = b""

    def say(self, data: bytes) -> None:
        """Bytes that the board's own firmware would print outside of the process, such as `soft reboot`."""
        self._keep(data)
        self._to_host(data)

    def printed(self) -> str:
        """What the board printed since it last got power or was reset, a soft reset aside; the last PRINTED_BYTES."""
        return self._printed.decode(errors="replace")

    async def wait_for_print(self, text: str) -> None:
        """Return as soon as `printed` holds this text."""
        while text not in self.printed():
            self._heard.clear()
            await self._heard.wait()

    # --- from the board -------------------------------------------------------------------------

    def _from_board(self) -> None:
        if not self._take_from_board():
            asyncio.get_running_loop().remove_reader(self._console)

    def _take_from_board(self) -> bool:
        try:
            data = os.read(self._console, 4096)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the process has closed its end
            return False
        if not data:
            return False
        self._follow_repl(data)
        self._keep(data)
        self._to_host(data)
        return True

    def _follow_repl(self, data: bytes) -> None:
        seen = self._tail + data
        self._tail = seen[-_TAIL_BYTES:]
        if RAW_BANNER in seen:
            self.raw, self._asked_to_leave_raw = True, False
        # A program may print a prompt: only one that follows a Ctrl-B means the friendly REPL.
        if self._asked_to_leave_raw and seen.rfind(PROMPT) > seen.rfind(RAW_BANNER):
            self.raw = self._asked_to_leave_raw = False

    def _to_host(self, data: bytes) -> None:
        if self._host < 0:
            return
        self._waiting_out += data
        self._write_host()

    def _write_host(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting_out:
                del self._waiting_out[: os.write(self._host, self._waiting_out)]
        except BlockingIOError:
            loop.add_writer(self._host, self._write_host)
            excess = len(self._waiting_out) - QUEUE_BYTES
            if excess <= 0:
                return
            if self._dropping:
                del self._waiting_out[:excess]
            elif self._patience is None:
                if self._console >= 0:
                    loop.remove_reader(self._console)  # the board's print blocks
                self._patience = loop.call_later(PATIENCE_S, self._give_up_on_host)
            return
        loop.remove_writer(self._host)
        self._dropping = False
        self._calm()

    def _give_up_on_host(self) -> None:
        self._dropping = True
        self._calm()
        del self._waiting_out[: max(0, len(self._waiting_out) - QUEUE_BYTES)]

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
            if self._console >= 0:
                asyncio.get_running_loop().add_reader(self._console, self._from_board)

    def _keep(self, data: bytes) -> None:
        with self._log.open("ab") as file:
            file.write(data)
            full = file.tell() > LOG_BYTES
        if full:
            self._log.replace(self._log.with_name(self._log.name + ".1"))
        self._printed += data
        self._printed[:-PRINTED_BYTES] = b""
        self._heard.set()

    # --- to the board ---------------------------------------------------------------------------

    def _from_host(self) -> None:
        try:
            data = os.read(self._host, 4096)
        except BlockingIOError:
            return
        if self.raw and CTRL_B in data:
            self._asked_to_leave_raw = True
        if self._console >= 0:
            self._to_board(data)

    def _to_board(self, data: bytes) -> None:
        self._waiting_in += data
        self._write_board()

    def _write_board(self) -> None:
        loop = asyncio.get_running_loop()
        self._interrupt_no_more()
        try:
            while self._waiting_in:
                piece, _, _ = self._waiting_in.partition(CTRL_C)
                what = CtrlC.CHARACTER if piece else self._interrupt()
                if what is CtrlC.LATER:
                    self._interrupting = loop.call_later(LATER_S, self._write_board)
                    self._hold_host()
                    return
                if what is CtrlC.TAKEN:
                    self._waiting_in = self._waiting_in.lstrip(CTRL_C)  # several at once are one, as on a board
                else:
                    del self._waiting_in[: os.write(self._console, piece or CTRL_C)]
        except BlockingIOError:
            loop.add_writer(self._console, self._write_board)
            self._hold_host()
            return
        except OSError:  # EIO: the process has just ended; `detach` follows
            self._waiting_in.clear()
        loop.remove_writer(self._console)
        if self._host >= 0:
            loop.add_reader(self._host, self._from_host)

    def _hold_host(self) -> None:
        # The technician's tool waits, nothing is lost.
        if self._host >= 0:
            asyncio.get_running_loop().remove_reader(self._host)

    def _interrupt_no_more(self) -> None:
        if self._interrupting is not None:
            self._interrupting.cancel()
            self._interrupting = None


def point_link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to a device, whatever link an earlier run has left there."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
