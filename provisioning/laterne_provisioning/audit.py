"""The audit log: what operators and technicians have done with an authority, one line for each act.

A line is a record as JSON in its one form, a tab, the SHA-256 of that JSON in hexadecimal, a newline. A record names
the digest of the record before it, so that the lines are a chain; now and then a record carries an authority key's
signature over the chain so far (provisioning/README.md, "The audit log"). Lines are only ever appended.

A record is on the disk before what it says takes effect: nothing happens that the log does not tell. The price is that
the power can fail between the two, and then the log tells of an act that did not happen; audit_check.py finds
which by comparing with the registry.
"""

import base64
import fcntl
import hashlib
import json
import os
import pwd
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from laterne_protocol import cbor, fields
from laterne_provisioning import files
from laterne_provisioning.errors import OperatorError, UsageError

LOG: Final = "audit.log"
DOMAIN: Final = "laterne/audit/1"  # external_aad of a signature over the chain
SIGNERS: Final = ("enrolment", "roster")  # whose keys may sign it: those that are open in an operator's day
SIGN_EVERY = 32  # records: what may be lost unseen is less than a morning's enrolments
MAX_RECORD_BYTES = 16384  # the longest, a new trust file: 40 public keys in hexadecimal
MAX_PAYLOAD_BYTES = 256

# Acts of the log itself. All others belong to the commands that write them.
INIT, SIGN, TORN, KEY_USE, TRUST = "init", "sign", "torn", "key use", "trust rotate"

_BEFORE_THE_FIRST: Final = "0" * 64
_KEYS: Final = ("number", "time", "who", "act", "subject", "details", "former")

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]
Details = Mapping[str, Json]
"""What else is to be known of an act. Never a secret. Acts that change a board name its `state` afterwards."""


class NotARecord(ValueError):
    """A line that this program did not write, or did not finish."""


@dataclass(frozen=True)
class Record:
    """One act. number: 1 for the first. time: RFC 3339, UTC. who: user@host. former: digest of the record before."""

    number: int
    time: str
    who: str
    act: str
    subject: str
    details: Details
    former: str

    @property
    def digest(self) -> str:
        """SHA-256 of the record's JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self._json()).hexdigest()

    def document(self) -> dict[str, Json]:
        """The record as JSON shows it, in the order of its members."""
        return {name: dict(self.details) if name == "details" else getattr(self, name) for name in _KEYS}

    def to_line(self) -> bytes:
        """The line of the log, with its newline."""
        return self._json() + b"\t" + self.digest.encode() + b"\n"

    def _json(self) -> bytes:
        # One form: ASCII, no blanks, members in their order, those of the details sorted.
        document = self.document() | {"details": {name: self.details[name] for name in sorted(self.details)}}
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def record_of(line: bytes) -> Record:
    """The record in a line without its newline. Raises NotARecord: not the bytes that to_line() makes."""
    content, _, digest = line.partition(b"\t")
    if len(line) >= MAX_RECORD_BYTES or hashlib.sha256(content).hexdigest().encode() != digest:
        raise NotARecord("its digest is not that of its content")
    try:
        parts = json.loads(content)
        record = Record(**parts)
        fields.integer(record.number, "number", 1)
        good = all(isinstance(parts[name], str) for name in _KEYS if name not in ("number", "details"))
        if not good or not isinstance(record.details, dict) or record.to_line() != line + b"\n":
            raise NotARecord("it is not in its one form")
    except (ValueError, TypeError, KeyError, RecursionError) as why:
        raise NotARecord(f"it is no record: {why}") from why
    return record


@dataclass(frozen=True)
class Checkpoint:
    """What a signature over the log says: the record with this number has this digest (32 bytes)."""

    authority: str
    number: int
    digest: bytes

    def to_payload(self) -> bytes:
        """The payload to sign under laterne/audit/1."""
        return cbor.encode({1: self.authority, 2: self.number, 3: self.digest})


def checkpoint_of(payload: bytes) -> Checkpoint:
    """The checkpoint in a payload. Raises CborError, ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_PAYLOAD_BYTES), "checkpoint", (1, 2, 3))
    return Checkpoint(
        fields.text(parts[1], "authority", 64),
        fields.integer(parts[2], "record number", 1),
        fields.byte_string(parts[3], "digest", 32),
    )


def who() -> str:
    """user@host, as the operating system names them. It is no proof: whoever is root can be anybody."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def create(path: Path) -> None:
    """A new log, empty, 0600. Raises FileExistsError, OSError."""
    files.write_private(path, b"")


class Log:
    """The log of an authority. Every method raises UsageError: it is missing; OperatorError: the disk failed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, act: str, subject: str, details: Details) -> Record:
        """Write down an act, before it takes effect: when this returns, the record is on the disk."""
        with self._locked() as file:
            return self._append(file, act, subject, lambda _: details)

    def sign(self, authority: str, role: str, kid: bytes, signed: Callable[[bytes], bytes]) -> bytes:
        """Sign the chain so far and write the signature down; the COSE_Sign1.

        signed(payload): the COSE_Sign1 of a payload under DOMAIN by the key of this role with this kid.
        """
        made = b""

        def details(last: Record | None) -> Details:
            nonlocal made
            if last is None:
                raise OperatorError(f"There is nothing to sign: {self.path} is empty. Bring it back from a backup.")
            made = signed(Checkpoint(authority, last.number, bytes.fromhex(last.digest)).to_payload())
            return {"kid": kid.hex(), "role": role, "signature": base64.b64encode(made).decode()}

        with self._locked() as file:
            self._append(file, SIGN, "", details)
        return made

    def _append(self, file: int, act: str, subject: str, details: Callable[[Record | None], Details]) -> Record:
        last, after = self._end(file)
        lines = b""
        if after:
            # A command was killed, or the power failed, while it wrote. Its act never began; its bytes stay.
            last = _next(last, TORN, "", {"bytes": len(after), "sha256": hashlib.sha256(after).hexdigest()})
            lines = (b"" if after.endswith(b"\n") else b"\n") + last.to_line()
        elif last is not None and not self._ends_whole(file):
            lines = b"\n"  # only the newline was missing: the record counts
        record = _next(last, act, subject, details(last))
        line = record.to_line()
        if len(line) > MAX_RECORD_BYTES:
            raise OperatorError(f"A record of {len(line)} bytes is too long for {self.path}: name fewer at once.")
        self._write(file, lines + line)
        return record

    def last(self) -> Record | None:
        """The newest record."""
        with self._locked() as file:
            return self._end(file)[0]

    def since_signature(self) -> int:
        """How many records there are after the last signature."""
        count = 0
        for line in reversed(self.read().split(b"\n")):
            try:
                if record_of(line).act == SIGN:
                    break
            except NotARecord:
                continue
            count += 1
        return count

    def read(self) -> bytes:
        """All of the log, as it is now."""
        with self._locked() as file:
            return os.pread(file, os.fstat(file).st_size, 0)

    def of(self, act: str) -> Iterator[Record]:
        """The records of such acts, the oldest first. What is no record is passed over: audit_check.py judges it."""
        for line in self.read().split(b"\n"):
            if act.encode() not in line:
                continue  # most of a long log: nothing is parsed
            try:
                record = record_of(line)
            except NotARecord:
                continue
            if record.act == act:
                yield record

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError as why:
            raise UsageError(f"The audit log is missing: {self.path}. Bring it back from a backup.") from why
        except OSError as why:
            raise UsageError(f"The audit log cannot be opened: {why.strerror}: {self.path}") from why
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        except OSError as why:
            raise OperatorError(
                f"The audit log {self.path} cannot be used, so nothing is done: {why.strerror}."
            ) from why
        finally:
            os.close(file)

    def _end(self, file: int) -> tuple[Record | None, bytes]:
        """The last record and what comes after it that is none."""
        size = os.fstat(file).st_size
        # Nearly always the last record is at the end; what was torn may hide it further ahead.
        for reach in (2 * MAX_RECORD_BYTES, size):
            start = max(0, size - reach)
            lines = os.pread(file, size - start, start).split(b"\n")
            for at in range(len(lines) - 1, -1, -1):
                try:
                    record = record_of(lines[at])
                except NotARecord:
                    continue
                return record, b"\n".join(lines[at + 1 :])
        return None, b"\n".join(lines)

    def _ends_whole(self, file: int) -> bool:
        return os.pread(file, 1, os.fstat(file).st_size - 1) == b"\n"

    def _write(self, file: int, data: bytes) -> None:
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)


def _next(last: Record | None, act: str, subject: str, details: Details) -> Record:
    return Record(
        1 if last is None else last.number + 1,
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        who(),
        act,
        subject,
        details,
        _BEFORE_THE_FIRST if last is None else last.digest,
    )
