"""On a board modules have no packages, and find one another."""

import pytest

from laterne_provisioning.compiling.flat_names import flat, flattened
from laterne_provisioning.compiling.sources import NotShortened

SOURCES = {
    "laterne_firmware.__init__": b'RELEASE = "1"\n',
    "laterne_firmware.app": (
        b"from laterne_firmware import RELEASE as version, store\n"
        b"from laterne_firmware.sensors import (\n    light as lamp,\n    sound,\n)\n"
        b"from laterne_protocol import wire as _w\n"
        b"from laterne_protocol.wire import MESSAGE\n\n"
        b'LATER = ("laterne_firmware.sensors.light", "laterne_firmware is a package")\n'
        b"line = 10\n"
    ),
    "laterne_firmware.store": b"def load():\n    from laterne_protocol import wire\n\n    return wire.MESSAGE\n",
    "laterne_firmware.sensors.__init__": b'"""Nobody asks this one for anything."""\n',
    "laterne_firmware.sensors.light": b"",
    "laterne_firmware.sensors.sound": b"import os\n",
    "laterne_protocol.__init__": b"",
    "laterne_protocol.wire": b"MESSAGE = 3\n",
}


def test_imports_and_names_of_modules_lose_their_packages_and_lines_stay() -> None:
    made = flattened(SOURCES)
    # A package of which only modules are asked for is no module on a board.
    assert made.keys() == {"laterne_firmware", "app", "store", "light", "sound", "wire"}
    assert made["app"] == (
        b"import store; from laterne_firmware import RELEASE as version\n"
        b"import light as lamp; import sound\n\n\n\n"
        b"import wire as _w\n"
        b"from wire import MESSAGE\n\n"
        b'LATER = ("light", "laterne_firmware is a package")\n'
        b"line = 10\n"
    )
    assert made["store"] == b"def load():\n    import wire\n\n    return wire.MESSAGE\n"
    assert made["sound"] == b"import os\n"
    assert flat(b"from laterne_firmware import app\n\napp.run()\n", SOURCES) == b"import app\n\napp.run()\n"


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("laterne_protocol.store", b"", "another module store"),
        ("laterne_protocol.machine", b"", "another module machine"),  # MicroPython finds its own first
        ("laterne_protocol.main", b"", "another module main"),
        ("laterne_protocol.more", b"import laterne_protocol.wire\n", "binds its package"),
        (
            "laterne_protocol.more",
            b'NAMES = "a b"\nunload("laterne_protocol." + "wire")\n',
            "line 2: 'laterne_protocol.'",
        ),
        ("laterne_protocol.more", b'__import__("laterne_protocol.wires")\n', "no module as a whole"),
    ],
)
def test_what_would_find_another_module_on_a_board_or_none_is_refused(module: str, source: bytes, said: str) -> None:
    with pytest.raises(NotShortened, match=said):
        flattened(SOURCES | {module: source})
