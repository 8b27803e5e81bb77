"""What an update costs: a change in one module stays there, and a release is small against its sources."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from laterne_protocol.release_file import Release
from laterne_provisioning import firmware_sources, releases
from laterne_provisioning.compiling import mpy, port_names
from laterne_provisioning.compiling.flat_names import flat_name
from laterne_provisioning.firmware_sources import Sources
from laterne_provisioning.releases import Wanted

REPOSITORY = Path(__file__).parents[2]
MODULES = ["laterne_protocol.cbor", "laterne_firmware.sessions", "laterne_firmware.reports", "laterne_firmware.backlog"]
METHOD = (
    "\n    def fresh_method(self, a_thing: int) -> int:\n        self.fresh_value = a_thing\n        return a_thing\n"
)


@cache
def sources() -> Sources:
    return firmware_sources.read(REPOSITORY / "firmware")


@cache
def release() -> Release:
    return built(sources())


def built(wanted: Sources) -> Release:
    return releases.build(wanted, mpy.found(None), Wanted(1))


def with_change(module: str, source: str) -> Sources:
    here = sources()
    return Sources(here.folder, here.modules | {module: source.encode()}, here.started, here.pins, here.commit)


def changed_by(change: Sources) -> list[str]:
    return list(releases.changed_files(built(change), release()))


def source_of(module: str) -> str:
    return sources().modules[module].decode()


@pytest.mark.parametrize("module", MODULES)
def test_a_change_in_a_function_of_one_module_is_an_update_of_that_module_alone(module: str) -> None:
    lines = source_of(module).splitlines(keepends=True)
    function = next(
        node
        for node in ast.walk(ast.parse(source_of(module)))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__") and len(node.body) > 1
    )
    at = function.body[1]
    new = "".join(f"{' ' * at.col_offset}{line}\n" for line in ("brand_new = 5 + len('x')", "print(brand_new)"))
    made = built(with_change(module, "".join([*lines[: at.lineno - 1], new, *lines[at.lineno - 1 :]])))
    changed = releases.changed_files(made, release())
    assert changed == [flat_name(module) + ".mpy"]
    everything = [path for path, _, _ in made.entries]
    assert releases.packed_bytes(made, changed) <= 0.1 * releases.packed_bytes(made, everything)


def test_a_new_function_changes_the_modules_that_have_to_do_with_it_and_few_others() -> None:
    more = "\n\ndef fresh_function(a_thing: int) -> int:\n    return a_thing + 1\n"
    user = (
        "\n\ndef _later() -> int:\n    from laterne_firmware.store import fresh_function\n\n"
        "    return fresh_function(2)\n\n\n_later()\n"
    )
    here = with_change("laterne_firmware.store", source_of("laterne_firmware.store") + more)
    here.modules["laterne_firmware.app"] = (source_of("laterne_firmware.app") + user).encode()
    changed = changed_by(here)
    assert {"app.mpy", "store.mpy"} <= set(changed)
    assert len(changed) <= 6


def test_a_new_method_and_a_new_attribute_change_few_other_modules() -> None:
    module = "laterne_firmware.backlog"
    source = source_of(module)
    (backlog,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Backlog"]
    lines = source.splitlines(keepends=True)
    assert backlog.end_lineno is not None
    call = "\n\ndef _call(one: Backlog) -> int:\n    return one.fresh_method(1)\n\n\nprint(_call)\n"
    changed = changed_by(
        with_change(module, "".join([*lines[: backlog.end_lineno], METHOD, *lines[backlog.end_lineno :]]) + call)
    )
    assert "backlog.mpy" in changed
    assert len(changed) <= 6


def test_the_whole_release_is_a_fifth_of_its_sources_or_less() -> None:
    sizes = releases.sizes(release(), sources())
    assert sizes.packed <= 0.195 * sizes.sources
    assert sizes.packed < 0.8 * sizes.files


def test_no_name_that_the_ports_bring_along_is_shortened() -> None:
    """The emulated boards' `machine` stands for the ports': what it has, boards have under the same name."""
    source = (REPOSITORY / "hil_tests" / "laterne_emulator" / "on_board" / "machine.py").read_text(encoding="utf-8")
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    public = {name for name in names if not re.match("_", name)}
    assert len(public) > 30
    assert public <= port_names.OF_OTHERS
