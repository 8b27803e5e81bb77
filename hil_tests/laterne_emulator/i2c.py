"""The I2C buses of an emulated board: which device answers at which address, and buses that fail."""

import errno
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class NoAcknowledge(Exception):
    """The device does not answer: it is missing, or not ready yet."""


class Device(Protocol):
    """One chip on the bus. Both methods raise NoAcknowledge."""

    def write(self, data: bytes) -> None: ...

    def read(self, length: int) -> bytes: ...


class BusFault(Enum):
    NONE = "none"
    STUCK = "stuck"  # a device holds the clock down: every transfer times out


@dataclass
class Bus:
    devices: dict[int, Device] = field(default_factory=dict)
    fault: BusFault = BusFault.NONE

    def transfer(self, address: int, written: bytes, length: int) -> tuple[int, bytes]:
        """(errno as machine.I2C raises it on rp2, or 0; the bytes read)."""
        if self.fault is BusFault.STUCK:
            return errno.ETIMEDOUT, b""
        device = self.devices.get(address)
        if device is None:
            return errno.EIO, b""
        try:
            if written or not length:
                device.write(written)
            return 0, device.read(length) if length else b""
        except NoAcknowledge:
            return errno.EIO, b""

    def scan(self) -> bytes:
        """The addresses that acknowledge an empty write."""
        found = []
        for address in sorted(self.devices):
            status, _ = self.transfer(address, b"", 0)
            if status == 0:
                found.append(address)
        return bytes(found)
