"""Emulated boards with the real firmware that come enrolled: keys, credential and trust stand in their flash.

Nobody has to wait until they have made keys, and a test knows theirs. They say on the console what they close
(hil_tests/firmware_for_tests/telling.py), so that a test can compare both ends.
"""

import hashlib
import json
import re
import struct
from binascii import crc32
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.programs import files_of
from tests.firmware.questions import verify
from tests.gateway.fake_authority import FakeAuthority, Key

from laterne_emulator import coordinator, image
from laterne_emulator.coordinator import Delivered
from laterne_protocol import cbor, cose, credential, report_reading, roster
from laterne_protocol.errors import WireError

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

MAIN = Path(__file__).parents[2] / "hil_tests" / "firmware_for_tests" / "telling.py"
HEAP_BYTES = 192 * 1024  # what is told takes memory that a board does not have
_CLOSED = re.compile(r"^closed (\d+) ([0-9a-f]{64})\r?$", re.MULTILINE)


class Pairs:
    """Two key pairs of a board and the credential for them, made here so that a test knows them."""

    def __init__(self, authority: FakeAuthority, name: str) -> None:
        self.name = name
        self.sign, self.agree = Key(), Key()
        claims = credential.Credential(
            "Testingen", name, 1_770_000_000, self.sign.kid, self.sign.public, self.agree.public, 0, "emulated", (1, 9)
        )
        self.credential = authority.enrolment_key.sign(cose.CREDENTIAL, claims.to_payload())

    @property
    def record(self) -> bytes:
        """As the firmware keeps them."""
        return self.sign.secret + self.sign.public + self.agree.secret + self.agree.public + self.sign.kid

    @property
    def files(self) -> dict[str, bytes]:
        """What stands in the flash of a board that has been enrolled with these."""
        name = cbor.encode([self.sign.kid, self.name, credential.digest(self.credential)])
        return {
            **record("k/keys", self.record),
            **record("k/credential", self.credential),
            **record("k/name", name),
        }


def record(path: str, body: bytes) -> dict[str, bytes]:
    """Both copies of a record as store.py writes them."""
    content = struct.pack("<4sII", b"LTR1", len(body), crc32(body)) + body
    return {f"{path}.0": content, f"{path}.1": content}


@dataclass(frozen=True)
class Wire:
    """A line as a gateway's configuration names it: a link to the emulator's port, and who is at its far end."""

    path: Path
    boards: "Sequence[EnrolledBoard]"


class EnrolledBoard:
    """What a gateway and a test know of one: in the place of a FakeBoard. board: the emulated one."""

    def __init__(self, board: "EmulatedBoard", address: int, pairs: Pairs) -> None:
        self.board = board
        self.address = address
        self.name = pairs.name
        self.pairs = pairs
        self.credential_digest = credential.digest(pairs.credential)

    def entry(self) -> roster.Entry:
        pairs = self.pairs
        return roster.Entry(self.name, pairs.sign.public, pairs.agree.public, 0, self.credential_digest, None)

    def meet(self, authority: FakeAuthority) -> None:
        """It believes the authority that has enrolled it, and no other."""

    def told(self) -> dict[int, bytes]:
        """sequence -> SHA-256 of every report that it said was on flash. Raises AssertionError: a number twice."""
        found: dict[int, bytes] = {}
        for name in ("console.log.1", "console.log"):
            log = self.board.folder / name
            for sequence, digest in _CLOSED.findall(log.read_text(errors="replace") if log.exists() else ""):
                former = found.setdefault(int(sequence), bytes.fromhex(digest))
                assert former == bytes.fromhex(digest), f"{self.name} has closed two reports {sequence}"
        return found

    def closed(self, delivered: Iterable[bytes], told: Mapping[int, bytes]) -> dict[int, bytes]:
        """What the coordinator compares with: sequence -> signed bytes, of which only the delivered ones are known.

        In place of others stands their hash. told: what has to be there. Also closed is what was signed by this board
        and not told: it lost its power before it could, or closed it later.
        """
        closed = dict(told)
        for body in delivered:
            try:
                found = report_reading.report_of(verify(self.pairs.sign.public, body, cose.REPORT))
            except WireError:
                continue
            if found.board == self.name and closed.get(found.sequence, digest(body)) == digest(body):
                closed[found.sequence] = body
        return closed


class Awaited:
    """Whether all that boards told has been delivered. told: board -> sequence -> hash. Looks at each delivery once."""

    def __init__(self, delivered: Mapping[str, list[Delivered]], told: Mapping[str, Mapping[int, bytes]]) -> None:
        self._delivered = delivered
        self._missing = {name: set(reports.values()) for name, reports in told.items()}
        self._seen = dict.fromkeys(told, 0)

    def arrived(self) -> bool:
        for name, missing in self._missing.items():
            new = self._delivered[name][self._seen[name] :]
            missing.difference_update(digest(one.body) for one in new)
            self._seen[name] += len(new)
        return not any(self._missing.values())


def compared(
    boards: Sequence[EnrolledBoard],
    delivered: Mapping[str, list[Delivered]],
    told: Mapping[str, Mapping[int, bytes]],
    *,
    lanes: bool = False,
) -> coordinator.Outcome:
    """What both ends say of these boards; the arguments are those of Awaited and of the coordinator."""
    return coordinator.compare(
        {one.name: one.closed((each.body for each in delivered[one.name]), told[one.name]) for one in boards},
        (each for one in boards for each in delivered[one.name]),
        lanes=lanes,
        begins={one.name: one.credential_digest for one in boards},
    )


def digest(body: bytes) -> bytes:
    """As a board tells it."""
    return hashlib.sha256(body).digest()


async def enrolled_boards(
    emulated_boards: "Benches",
    authority: FakeAuthority,
    names: Iterable[str],
    settings: Mapping[str, int],
    *,
    bus: bool = False,
) -> "tuple[Bench, list[EnrolledBoard]]":
    """A bench of boards that are enrolled and off, with these ids, at addresses 1, 2, ... settings: as in a board."""
    all_pairs = [Pairs(authority, name) for name in names]
    files = files_of(MAIN)
    trust = record("k/trust", authority.trust().to_payload())
    bench = await emulated_boards(
        len(all_pairs),
        files=files | trust,
        powered=False,
        bus=bus,
        paced=False,
        heap_bytes=HEAP_BYTES,
    )
    made = []
    for address, (board, pairs) in enumerate(zip(bench.boards.values(), all_pairs, strict=True), 1):
        told = json.dumps({**settings, "address": address}).encode()
        image.write(board.flash.image, pairs.files | {"settings.json": told})
        made.append(EnrolledBoard(board, address, pairs))
    return bench, made


def wires(folder: Path, bench: "Bench", boards: list[EnrolledBoard], *, bus: bool = False) -> list[Wire]:
    """The lines of these boards, with names that differ, in a folder."""
    made = []
    for number, group in enumerate([boards] if bus else [[board] for board in boards], 1):
        wire = Wire(folder / f"line-{number}", group)
        wire.path.symlink_to(bench.lines[group[0].board.name].path)
        made.append(wire)
    return made
