"""What only people need of a firmware's names goes before it is compiled.

MicroPython keeps every name of every module that it has ever loaded, on the heap, for ever (firmware/README.md,
"Memory"). So the modules of an image are rewritten together:

1 - an integer constant is written as its number wherever it is used, and its definition goes;
2 - a name that only modules of the image ask for, where it is seen that they mean it, becomes one of a few short ones,
    which all modules have in common; so does an attribute, and a parameter, where nobody passes it by its name. What
    is known in one module only is numbered there. What others ask for gets its short name from a hash of the long one:
    so a change in one module does not give new names to all others, and an update is small;
3 - what only type checkers read goes, and so do `__all__`, functions that nobody calls, modules that nobody loads.

Whatever this cannot see through keeps its name: what stands in an f-string, what is asked of an object of which it is
not known what it is. Lines stay where they are, so that a traceback still tells module and line of the source.
Only what is loaded from an image with all its modules may be rewritten: afterwards nobody finds `frame.MESSAGE` there.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from laterne_provisioning.compiling.port_names import OF_BLOCK_DEVICES
from laterne_provisioning.compiling.short_constants import Constants
from laterne_provisioning.compiling.short_names import Names
from laterne_provisioning.compiling.sources import Function, Module, NotShortened, read

__all__ = ("NotShortened", "shortened")

_WORD = re.compile(rb"[A-Za-z_]\w*")


def shortened(sources: Mapping[str, bytes], *outside: bytes, stable: bool = True) -> dict[str, bytes]:
    """{module: source} of everything that can be loaded from one image, rewritten.

    outside: sources of what uses these modules or is used by them; every word in it is left as it is. stable: a change
    in one module changes the names of others rarely, as updates want it; else there are as few names as possible.
    Raises NotShortened, SyntaxError.
    """
    keep = frozenset(word for source in outside for word in _words(source))
    return dict(_shortened(tuple(sorted(sources.items())), keep, stable))


def _words(source: bytes) -> Iterator[str]:
    """Every word of a program, without its comments and docstrings; of a text that is no program, every word."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        yield from (word.decode() for word in _WORD.findall(source))
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    # What is left says all names in one form; the words of strings are among them.
    yield from (word.decode() for word in _WORD.findall(ast.unparse(tree).encode()))


@lru_cache(maxsize=8)
def _shortened(
    sources: tuple[tuple[str, bytes], ...], keep: frozenset[str], stable: bool
) -> tuple[tuple[str, bytes], ...]:
    texts = {name.removesuffix(".__init__"): source for name, source in sources}
    modules = _without_what_nobody_calls(texts, keep)
    Constants(modules, keep).write_out()
    Names(modules, keep, stable).shorten()
    rewritten = {}
    for name, source in sources:
        module = modules.get(name.removesuffix(".__init__"))
        if module is not None:
            rewritten[name] = made = module.rewritten()
            if source.count(b"\n") != made.count(b"\n"):
                raise NotShortened(f"{name}: lines have moved")
            ast.parse(made, name)
    return tuple(rewritten.items())


# What nobody calls ---------------------------------------------------------------------------------------------------


def _without_what_nobody_calls(sources: dict[str, bytes], keep: frozenset[str]) -> dict[str, Module]:
    """The modules without functions, classes and methods whose name is nowhere in those modules that can be loaded.

    Names of modules stand in imports, in strings, or in `keep`. What is used only by what goes, goes in the next round;
    only what has changed is read again.
    """
    modules = {name: read(name, source) for name, source in sources.items()}
    while True:
        _find_loaded(modules, keep)
        loaded = [module for module in modules.values() if module.is_loaded]
        used = (keep | OF_BLOCK_DEVICES).union(*(module.words for module in loaded))
        made = {}
        for module in loaded:
            module.is_loaded = False
            for scope, around in module.nested.items():
                if (
                    isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                    and not isinstance(around[-1], Function)
                    and not scope.name.startswith("__")
                    and scope.name not in used
                ):
                    first = min([scope.lineno, *(node.lineno for node in scope.decorator_list)])
                    assert scope.end_lineno is not None
                    indent = b" " * scope.col_offset
                    begin, end = module.lines[first - 1], module.lines[scope.end_lineno]
                    module.edits.append((begin, end, indent + b"pass" + b"\n" * (scope.end_lineno - first + 1)))
            made[module.name] = read(module.name, module.rewritten()) if module.edits else module
        if made == modules:
            return made
        modules = made


def _find_loaded(modules: dict[str, Module], keep: frozenset[str]) -> None:
    waiting = [name for name in modules if name.rpartition(".")[2] in keep]
    while waiting:
        name = waiting.pop()
        if name not in modules or modules[name].is_loaded:
            continue
        modules[name].is_loaded = True
        waiting.append(name.rpartition(".")[0])
        waiting.extend(modules[name].strings)
        for statement in modules[name].imports:
            waiting.append(statement.module or "")
            waiting.extend(f"{statement.module}.{alias.name}" for alias in statement.names)
        waiting.extend(modules[name].whole_imports)
