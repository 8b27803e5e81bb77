"""A path of this machine that hangs whoever opens it, as a bad USB driver does: a file system whose program is silent.

It needs root and /dev/fuse. The protocol is that of linux/fuse.h, as little of it as an open() of one name needs.
"""

import contextlib
import ctypes
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_INIT, _LOOKUP, _READLINK, _GETATTR, _FORGET, _INTERRUPT = 26, 1, 5, 3, 2, 36
_ENOSYS, _DETACH = 38, 2
_DIRECTORY, _LINK = 0o040755, 0o120777
_REQUEST = struct.Struct("=IIQQ")  # length, what, number, node
_libc = ctypes.CDLL(None, use_errno=True)


class HangingPort:
    """place: an empty directory. `path` hangs every open() until let_go(target); then it is a link to there."""

    def __init__(self, place: Path) -> None:
        self.path = place / "port"
        self.asked = threading.Semaphore(0)  # somebody hangs
        self._place = str(place).encode()
        self._target = b""
        self._goes_on = threading.Event()

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or not Path("/dev/fuse").exists():
            reason = "needs root and /dev/fuse"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        self._device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"laterne", self._place, b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), "mount")
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._goes_on.set()
        _libc.umount2(self._place, _DETACH)
        self._serving.join()
        os.close(self._device)

    def let_go(self, target: Path) -> None:
        self._target = str(target).encode()
        self._goes_on.set()

    def _serve(self) -> None:
        while True:
            try:
                data = os.read(self._device, 1 << 17)
            except OSError:  # it is not mounted any more
                return
            _, what, number, node = _REQUEST.unpack_from(data)
            with contextlib.suppress(OSError):  # whoever asked has gone away
                self._answer(what, number, node)

    def _answer(self, what: int, number: int, node: int) -> None:
        if what == _INIT:
            self._say(number, struct.pack("=IIIIHHII36x", 7, 31, 1 << 16, 0, 12, 10, 1 << 16, 0))
        elif what == _LOOKUP:
            self.asked.release()
            self._goes_on.wait()
            self._say(number, struct.pack("=QQQQII", 2, 0, 0, 0, 0, 0) + _about(2, _LINK))
        elif what == _READLINK:
            self._say(number, self._target)
        elif what == _GETATTR:
            self._say(number, struct.pack("=QII", 0, 0, 0) + _about(node, _DIRECTORY if node == 1 else _LINK))
        elif what not in (_FORGET, _INTERRUPT):
            self._say(number, error=_ENOSYS)

    def _say(self, number: int, data: bytes = b"", error: int = 0) -> None:
        os.write(self._device, struct.pack("=IiQ", 16 + len(data), -error, number) + data)


def _about(node: int, mode: int) -> bytes:
    """struct fuse_attr."""
    return struct.pack("=6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
