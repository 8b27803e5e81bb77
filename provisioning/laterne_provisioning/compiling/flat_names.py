"""On a board the modules of a firmware lie side by side, without their packages.

`laterne_firmware.app` is `app` there, in a file app.mpy: MicroPython keeps the name of a module, its name within its
package and the path of its file on the heap, for ever, and these were a third of all names. Lines stay where they are.
"""

import ast
from collections.abc import Collection, Iterable, Mapping

from laterne_provisioning.compiling.port_names import MODULES
from laterne_provisioning.compiling.sources import NotShortened, read

_BESIDE = frozenset({"boot", "main", "pins"})  # modules that lie on a board beside its slots


def flat_name(module: str) -> str:
    """What a module is called on a board; a package "p" is also found as "p.__init__"."""
    return module.removesuffix(".__init__").rpartition(".")[2]


def flattened(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """{flat name: source} of {module: source}, with the imports they need; a package that nobody asks is left out.

    Raises NotShortened: two would have the same name, or one that of a module of MicroPython's.
    """
    made: dict[str, bytes] = {}
    asked: set[str] = set()
    packages = {flat_name(name) for name in sources if name.endswith(".__init__")}
    modules = _importable(sources)
    for name, source in sources.items():
        short = flat_name(name)
        if short in made or short in MODULES | _BESIDE:
            raise NotShortened(f"{name}: there is another module {short} on a board, so it needs another name")
        made[short], wanted = _rewritten(name, source, modules)
        asked |= wanted
    return {name: source for name, source in made.items() if name not in packages - asked}


def flat(source: bytes, modules: Iterable[str]) -> bytes:
    """A program that asks for these modules, as it finds them on a board. Raises NotShortened, SyntaxError."""
    return _rewritten("", source, _importable(modules))[0]


def _importable(modules: Iterable[str]) -> frozenset[str]:
    return frozenset(name.removesuffix(".__init__") for name in modules)


def _rewritten(name: str, source: bytes, modules: Collection[str]) -> tuple[bytes, set[str]]:
    """The source with flat imports, and the flat names of modules out of which it takes names."""
    module = read(name, source)
    asked = set()
    for whole in module.whole_imports:
        if whole in modules:
            raise NotShortened(f"{name}: `import {whole}` binds its package; write `from ... import ...`")
    for statement in module.imports:
        origin = statement.module or ""
        if origin not in modules:
            continue
        parts, names = [], []
        for alias in statement.names:
            if f"{origin}.{alias.name}" in modules:
                here = alias.asname or alias.name
                parts.append(f"import {alias.name}" + ("" if here == alias.name else f" as {here}"))
            else:
                names.append(ast.unparse(alias))
        if names:
            asked.add(flat_name(origin))
            parts.append(f"from {flat_name(origin)} import {', '.join(names)}")
        module.replace(statement, "; ".join(parts))
    # Names that are loaded and unloaded are strings.
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in modules:
                module.replace(node, f'"{flat_name(node.value)}"')
            elif node.value.partition(".")[0] in modules and node.value.isprintable() and " " not in node.value:
                raise NotShortened(f"{name}, line {node.lineno}: {node.value!r} names no module as a whole")
    return module.rewritten(), asked
