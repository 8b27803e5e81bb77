"""What boards load has short names, and does what the sources say."""

import subprocess
from pathlib import Path

import pytest
from tests.firmware.micropython import interpreter

from laterne_emulator.image import find_firmware, firmware_files
from laterne_provisioning.compiling.shortening import NotShortened, shortened

WIRE = b'''
"""Numbers and a class that others use."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MESSAGE, RECORD = 1, 3
HEAD_BYTES = 1 + RECORD
MINUS = -HEAD_BYTES
LATER = 7
NAME = "a text stays"


class WireError(ValueError):
    """Not of ours."""


class Frame:
    def __init__(self, kind: "Any", payload: bytes = b"") -> None:
        self.kind = kind
        self._payload = payload

    def size(self, *, twice: bool = False) -> int:
        return (len(self._payload) + HEAD_BYTES) * (2 if twice else 1)

    def never_called(self) -> int:
        return LATER


class Sealed(Frame):
    def __init__(self, key: bytes) -> None:
        Frame.__init__(self, RECORD, key)
        self._key = key

    def both(self) -> bytes:
        return self._payload + self._key


def doubled(number: int) -> "list[int]":
    def added(other: int) -> int:
        return number + other

    return [added(number) for number in (number, number)]


def never_called() -> int:
    return MINUS
'''

USER = b"""
from micropython import const

from wire import LATER as AFTER
from wire import MESSAGE, Sealed, doubled
import wire

_LIMIT = const(12)
_calls = 0


def run(kind: int) -> "list[object]":
    global _calls
    _calls += 1
    sealed = Sealed(b"key")
    MINUS = 5
    return [
        MESSAGE + wire.HEAD_BYTES, wire.MINUS, AFTER, _LIMIT, MINUS, _calls, kind, sealed.size(twice=True),
        sealed.both(), sealed.kind, doubled(4), wire.NAME, f"{AFTER} {kind}", getattr(sealed, "kind"),
    ]


def fails() -> None:
    raise wire.WireError("line 29")
"""
MAIN = b"""
import user
print(user.run(9))
try:
    user.fails()
except ValueError as why:
    import sys
    sys.print_exception(why)
"""


def _printed(folder: Path, sources: dict[str, bytes]) -> str:
    for name, source in sources.items():
        (folder / f"{name}.py").write_bytes(source)
    ran = subprocess.run(
        [interpreter(), str(folder / "main.py")], capture_output=True, text=True, check=False, timeout=20
    )
    return (ran.stdout + ran.stderr).replace(str(folder), "")


def test_a_program_does_the_same_with_short_names(tmp_path: Path) -> None:
    plain, short = tmp_path / "plain", tmp_path / "short"
    plain.mkdir()
    short.mkdir()
    made = shortened({"wire": WIRE, "user": USER}, MAIN)
    expected = _printed(plain, {"wire": WIRE, "user": USER, "main": MAIN})
    assert "[5, -4, 7, 12, 5, 1, 9, 14, b'keykey', 3, [8, 8], 'a text stays', '7 9', 3]" in expected
    printed = _printed(short, {**made, "main": MAIN})
    assert printed == expected  # with line numbers and the names of errors and of what main.py calls


def test_constants_and_what_nobody_calls_are_gone() -> None:
    made = shortened({"wire": WIRE, "user": USER}, MAIN)
    text = b"".join(made.values())
    for word in (
        b"HEAD_BYTES",
        b"MESSAGE",
        b"RECORD",
        b"_LIMIT",
        b"never_called",
        b"NAME",
        b"const",
        b"_payload",
        b"doubled",
    ):
        assert word not in text, word
    for word in (b"WireError", b"kind", b"twice", b"run(", b"AFTER"):  # asked for by a string, or outside
        assert word in text, word


def test_a_constant_that_is_known_outside_can_be_changed_from_there(tmp_path: Path) -> None:
    main = b"import user, wire\nwire.LATER = 70\nprint(user.run(9)[2])\n"
    made = shortened(
        {
            "wire": WIRE,
            "user": USER.replace(b"from wire import LATER as AFTER", b"import wire as later").replace(
                b"AFTER", b"later.LATER"
            ),
        },
        main,
    )
    assert _printed(tmp_path, {**made, "main": main}) == "70\n"


def test_objects_of_one_family_never_have_two_attributes_under_one_name() -> None:
    text = shortened({"wire": WIRE, "user": USER}, MAIN)["wire"].decode()
    stores = {line.split()[0] for line in text.splitlines() if line.strip().startswith("self.") and " = " in line}
    assert len(stores) == 3, stores


def test_a_base_class_that_cannot_be_named_is_refused() -> None:
    with pytest.raises(NotShortened, match="line 2"):
        shortened({"odd": b"\nclass A(type(1)):\n    x = 1\n"}, b"A odd")


def test_an_image_holds_fewer_names_and_no_module_that_boards_never_load() -> None:
    short, plain = firmware_files(find_firmware()), firmware_files(find_firmware(), short=False)
    assert "a/laterne_protocol/report_reading.mpy" in plain
    assert "a/report_reading.mpy" not in short
    assert "a/edhoc_responder.mpy" in short
    assert b"MAX_PAYLOAD_BYTES" in plain["a/laterne_protocol/frame.mpy"]
    assert b"MAX_PAYLOAD_BYTES" not in short["a/frame.mpy"]
    assert sum(map(len, short.values())) < 0.85 * sum(map(len, plain.values()))
