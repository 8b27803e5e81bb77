"""A SQLite VFS that records what goes to the disk: every write, truncation, sync and removal, in order.

The process's own SQLite goes on using the files as always; what it asks of them is written down beside. The default
VFS is copied with its open and delete replaced, and each file's methods with write, truncate and sync replaced
(sqlite.org/vfs.html): nothing of locks and shared memory is touched. It needs a `sqlite3` module that uses the
system's libsqlite3, as CPython's does on Linux.
"""

import ctypes
import ctypes.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SQLITE_OK = 0
OPEN_MAIN_DB, OPEN_JOURNAL, OPEN_WAL = 0x100, 0x800, 0x80000  # sqlite3.h; what is only scratch is left out
_WANTED = OPEN_MAIN_DB | OPEN_JOURNAL | OPEN_WAL
NAME = b"laterne-recorded"


@dataclass(frozen=True)
class Write:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True)
class Sync:
    """It has returned: everything before it in this file is on the disk."""

    file: str


@dataclass(frozen=True)
class Remove:
    """synced: the directory was synced, too, so that the file does not come back."""

    file: str
    synced: bool


@dataclass(frozen=True)
class Mark:
    """Not of the disk: what somebody was told at this moment."""

    what: object


Operation = Write | Truncate | Sync | Remove | Mark

_Pointer = ctypes.c_void_p
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, _Pointer, _Pointer, _Pointer, ctypes.c_int, ctypes.POINTER(ctypes.c_int), use_errno=True
)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_char_p, ctypes.c_int, use_errno=True)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_int, ctypes.c_int64, use_errno=True)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int64, use_errno=True)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int, use_errno=True)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("app_data", _Pointer),
        ("open", _Pointer),
        ("delete", _Pointer),
        ("others", _Pointer * 14),
    )


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", _Pointer),
        ("read", _Pointer),
        ("write", _Pointer),
        ("truncate", _Pointer),
        ("sync", _Pointer),
        ("others", _Pointer * 13),
    )


class _File(ctypes.Structure):
    """sqlite3_file."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


def _address(function: Any) -> int:
    return ctypes.cast(function, _Pointer).value or 0


class RecordedDisk:
    """Made once in a process, then record() as often as wanted. Raises OSError where SQLite is not the system's."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("sqlite3") or "libsqlite3.so.0"
        self._library = library = ctypes.CDLL(name)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), ctypes.c_int]
        self._log: list[Operation] | None = None
        self._directory = b""
        self._files: dict[int, str] = {}  # where SQLite keeps an open file -> its name
        self._original = library.sqlite3_vfs_find(None)
        original = self._original.contents
        if original.version != 3:
            raise OSError(f"{name} has a VFS of version {original.version}, 3 is known here")
        self._open = _OPEN(original.open)
        self._delete = _DELETE(original.delete)
        self._methods: dict[int, _Methods] = {}  # a database has others than its journal
        self._kept: list[Callable[..., int]] = []  # ctypes does not keep what C calls
        self._vfs = _Vfs.from_buffer_copy(original)
        self._vfs.name = NAME
        self._vfs.open = self._callback(_OPEN, self._on_open)
        self._vfs.delete = self._callback(_DELETE, self._on_delete)

    def _callback(self, kind: Any, function: Callable[..., int]) -> int:
        made = kind(function)
        self._kept.append(made)
        return _address(made)

    @contextmanager
    def record(self, directory: Path) -> Iterator[list[Operation]]:
        """Databases that are opened in this directory meanwhile are recorded; close them before it ends."""
        log: list[Operation] = []
        self._log = log
        self._directory = os.fsencode(os.path.realpath(directory)) + b"/"
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        try:
            yield log
        finally:
            self._library.sqlite3_vfs_register(self._original, 1)
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
            self._log = None
            self._files.clear()

    def _name(self, path: bytes | None) -> str | None:
        if path is None or not path.startswith(self._directory):
            return None
        return os.fsdecode(path[len(self._directory) :])

    def _on_open(self, vfs: int, path: int | None, file: int, flags: int, out_flags: Any) -> int:
        done = int(self._open(vfs, path, file, flags, out_flags))
        name = self._name(ctypes.string_at(path)) if path else None
        if done == SQLITE_OK and name is not None and flags & _WANTED:
            opened = _File.from_address(file)
            original = _address(opened.methods)
            if original not in self._methods:
                self._methods[original] = self._recording(opened.methods.contents)
            opened.methods = ctypes.pointer(self._methods[original])
            self._files[file] = name
        return done

    def _recording(self, original: _Methods) -> _Methods:
        write, truncate, sync = _WRITE(original.write), _TRUNCATE(original.truncate), _SYNC(original.sync)
        methods = _Methods.from_buffer_copy(original)

        def on_write(file: int, data: int, length: int, offset: int) -> int:
            self._note(Write(self._files[file], offset, ctypes.string_at(data, length)))
            return int(write(file, data, length, offset))

        def on_truncate(file: int, size: int) -> int:
            self._note(Truncate(self._files[file], size))
            return int(truncate(file, size))

        def on_sync(file: int, flags: int) -> int:
            done = int(sync(file, flags))
            if done == SQLITE_OK:
                self._note(Sync(self._files[file]))
            return done

        methods.write = self._callback(_WRITE, on_write)
        methods.truncate = self._callback(_TRUNCATE, on_truncate)
        methods.sync = self._callback(_SYNC, on_sync)
        return methods

    def _on_delete(self, vfs: int, path: bytes, sync_directory: int) -> int:
        done = int(self._delete(vfs, path, sync_directory))
        name = self._name(path)
        if done == SQLITE_OK and name is not None:
            self._note(Remove(name, bool(sync_directory)))
        return done

    def _note(self, operation: Operation) -> None:
        if self._log is not None:
            self._log.append(operation)
