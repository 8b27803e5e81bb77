"""Short names for what only a firmware itself asks for by its name (shortening.py)."""

import ast
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping

from laterne_provisioning.compiling.port_names import OF_OTHERS
from laterne_provisioning.compiling.sources import (
    Function,
    Module,
    NotShortened,
    Scope,
    home_of,
    module_of,
    statements_of,
)

_PRIVATE = re.compile(r"_[A-Za-z]\w*")
_WORD = re.compile(rb"[A-Za-z_]\w*")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# All short names there are, the shortest first. Boards keep each name that they have ever met: so the same few serve
# all modules, and a name that is chosen by its hash is one of the first of them, as long as one of those is free.
_SHORT = [f"_{one}" for one in _LETTERS] + [f"_{one}{other}" for one in _LETTERS for other in _LETTERS]
_HASHED = len(_LETTERS)
_TRIES = 12


class Names:
    """Of all modules of an image, once its constants are gone. keep: words that are known outside of it."""

    def __init__(self, modules: dict[str, Module], keep: frozenset[str], stable: bool) -> None:
        """stable: a name does not depend on what else there is, so that a change stays in its module."""
        self._modules = modules
        self._stable = stable
        # Words of the sources that look like ours.
        self._taken = {word.decode() for module in modules.values() for word in _WORD.findall(module.source)} | keep
        self._keep = keep | OF_OTHERS
        self._words_given = set(keep)  # by their name, for a parameter
        for module in modules.values():
            self._words_given |= module.keywords
            self._keep |= module.hidden | module.asked
        # What is asked of something unknown may be an attribute or a name of a module: then it is left to both.
        self._unclear = set(self._keep)
        for module in modules.values():
            self._keep |= {word for word in module.scopes[module.tree] if not _PRIVATE.fullmatch(word)}
            self._unclear |= module.strings
            self._unclear |= {
                node.attr
                for node, scopes in module.attributes
                if module_of(modules, module, node.value, scopes) is None
            }

    def shorten(self) -> None:
        attributes = self._attributes()
        self._public = {(module.name, word) for module in self._modules.values() for word in self._public_of(module)}
        shared = self._shared()
        of_modules = {name: self._of_module(module, shared) for name, module in self._modules.items()}
        for name, module in self._modules.items():
            for node, scopes in module.attributes:
                origin = module_of(self._modules, module, node.value, scopes)
                words = attributes if origin is None else of_modules.get(origin, {})
                if node.attr in words:
                    assert node.end_lineno is not None
                    assert node.end_col_offset is not None
                    end = module.at(node.end_lineno, node.end_col_offset)
                    module.replace_word(end - len(node.attr.encode()), node.attr, words[node.attr])
            _rename_variables(module, of_modules[name], attributes, self._parameters(module, of_modules[name]))
            for statement in module.imports:
                _write_import(module, statement, of_modules)

    def _public_of(self, module: Module) -> Iterator[str]:
        """Functions, classes and variables of a module that are asked for where it is seen that they are meant.

        Classes of errors keep their names: a traceback is not worth much without.
        """
        errors = {scope.name for scope in module.scopes if isinstance(scope, ast.ClassDef) and scope.bases}
        for word, bindings in module.scopes[module.tree].items():
            if all(binding.kind == "other" for binding in bindings) and word not in self._unclear | errors:
                yield word

    def _attributes(self) -> dict[str, str]:
        """Short names for attributes: two have the same one only if no object has both."""
        families: dict[tuple[str, str], set[str]] = {}
        for module in self._modules.values():
            for scope in module.scopes:
                if isinstance(scope, ast.ClassDef):
                    self._gather(module, scope, families)
        together: dict[str, set[int]] = {}
        for family in families.values():
            for word in family:
                together.setdefault(word, set()).add(id(family))
        made: dict[str, str] = {}
        used: dict[int, set[str]] = {}
        for word in sorted(together):
            if word in self._keep or word.startswith("__"):
                continue
            barred = set[str]().union(*(used.get(number, set()) for number in together[word]))
            made[word] = self._by_hash(word, barred)
            for number in together[word]:
                used.setdefault(number, set()).add(made[word])
        return made

    def _gather(self, module: Module, scope: ast.ClassDef, families: dict[tuple[str, str], set[str]]) -> None:
        """Adds a class's attributes to its family: all classes that inherit from one another have one in common."""
        own = set(module.scopes[scope])
        for node, scopes in module.attributes:
            if scope in scopes and isinstance(node.value, ast.Name) and node.value.id == "self":
                own.add(node.attr)
        family = families.setdefault((module.name, scope.name), set())
        family |= own
        for base in scope.bases:
            other = families.setdefault(self._class(module, base, module.nested[scope]), set())
            if other is not family:
                other |= family
                for key, found in families.items():
                    if found is family:
                        families[key] = other
                family = other

    def _class(self, module: Module, base: ast.expr, scopes: tuple[Scope, ...]) -> tuple[str, str]:
        """(module, name) of a base class."""
        name = base.value if isinstance(base, ast.Attribute) else base
        if not isinstance(name, ast.Name):
            raise NotShortened(f"{module.name}, line {base.lineno}: a base class without a name")
        home = home_of(module, name.id, scopes)
        if home is None or home[1][0].kind != "import":
            return module.name, name.id
        binding = home[1][0]
        if isinstance(base, ast.Attribute):
            return (f"{binding.module}.{binding.name}" if binding.name else binding.module), base.attr
        return binding.module, binding.name

    def _shared(self) -> dict[tuple[str, str], str]:
        """Short names for what modules ask of one another: {(module, name): short}."""
        asked: dict[str, set[str]] = {}
        for module in self._modules.values():
            for statement in module.imports:
                asked.setdefault(statement.module or "", set()).update(alias.name for alias in statement.names)
            for node, scopes in module.attributes:
                origin = module_of(self._modules, module, node.value, scopes)
                if origin:
                    asked.setdefault(origin, set()).add(node.attr)
        made: dict[tuple[str, str], str] = {}
        for name in asked:
            used: set[str] = set()
            for word in sorted(asked[name]):
                if (name, word) in self._public:
                    made[name, word] = self._by_hash(word, used)
                    used.add(made[name, word])
        return made

    def _of_module(self, module: Module, shared: Mapping[tuple[str, str], str]) -> dict[str, str]:
        """Short names in one module: of what others ask for, of what it asks of others, then of what is its own."""
        made = {word: short for (name, word), short in shared.items() if name == module.name}
        own = []
        for word, bindings in module.scopes[module.tree].items():
            origin = bindings[0].module, bindings[0].name
            if word in made:
                continue
            if origin in self._public and word not in self._unclear:
                # The same as there, so that it is written once, if nothing here is called so.
                if shared[origin] not in made.values():
                    made[word] = shared[origin]
                else:
                    own.append(word)
            elif (module.name, word) in self._public:
                own.append(word)
        for word in own:
            made[word] = self._next(made.values())
        return made

    def _by_hash(self, word: str, barred: Collection[str]) -> str:
        """A short name that depends on the word, and on others only if they met at the same one."""
        if not self._stable:
            return self._next(barred)
        for attempt in range(100 * _TRIES):
            number = int.from_bytes(hashlib.sha256(f"{attempt} {word}".encode()).digest()[:4], "big")
            short = _SHORT[number % (_HASHED if attempt < _TRIES else len(_SHORT))]
            if short not in barred and short not in self._taken:
                return short
        raise NotShortened(f"there is no short name left for {word}")

    def _next(self, barred: Collection[str]) -> str:
        for short in _SHORT:
            if short not in barred and short not in self._taken:
                return short
        raise NotShortened("there are more names than short ones")

    def _parameters(self, module: Module, of_module: Mapping[str, str]) -> dict[Scope, dict[str, str]]:
        """For each function its parameters' short names: others than those of the functions around it."""
        found: dict[Scope, dict[str, str]] = {}
        for scope, bound in module.scopes.items():
            if not isinstance(scope, Function):
                continue
            barred = set(of_module.values())
            for outer in module.nested[scope]:
                barred.update(found.get(outer, {}).values())
            found[scope] = {}
            for word, bindings in bound.items():
                if bindings[0].kind == "parameter" and word != "self" and word not in self._fixed(module):
                    found[scope][word] = self._next(barred)
                    barred.add(found[scope][word])
        return found

    def _fixed(self, module: Module) -> set[str]:
        return self._words_given | module.hidden


def _rename_variables(
    module: Module,
    of_module: Mapping[str, str],
    of_classes: Mapping[str, str],
    parameters: Mapping[Scope, Mapping[str, str]],
) -> None:
    def names_of(scope: Scope) -> Mapping[str, str]:
        if scope is module.tree:
            return of_module
        return of_classes if isinstance(scope, ast.ClassDef) else parameters[scope]

    for node, scopes in module.uses:
        home = home_of(module, node.id, scopes)
        if home is not None and node.id in names_of(home[0]):
            module.replace_word(module.at(node.lineno, node.col_offset), node.id, names_of(home[0])[node.id])
    for scope, around in module.nested.items():
        if isinstance(scope, Function):
            given = scope.args
            for parameter in (*given.posonlyargs, *given.args, *given.kwonlyargs):
                short = parameters[scope].get(parameter.arg)
                if short is not None:
                    at = module.at(parameter.lineno, parameter.col_offset)
                    module.replace_word(at, parameter.arg, short)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            short = names_of(around[-1]).get(scope.name)
            if short is not None:
                begin = module.at(scope.lineno, scope.col_offset)
                found = re.compile(rb"(?:async +)?(?:def|class) +").match(module.source, begin)
                assert found is not None
                module.replace_word(found.end(), scope.name, short)
    for statement in statements_of(module.tree):
        if isinstance(statement, ast.Global):
            module.replace(statement, "global " + ", ".join(of_module.get(word, word) for word in statement.names))


def _write_import(module: Module, statement: ast.ImportFrom, of_modules: Mapping[str, Mapping[str, str]]) -> None:
    wanted = []
    for alias in statement.names:
        word = alias.asname or alias.name
        local = of_modules[module.name].get(word, word) if module.import_scopes[statement] is module.tree else word
        name = of_modules.get(statement.module or "", {}).get(alias.name, alias.name)
        wanted.append(name if name == local else f"{name} as {local}")
    module.replace(statement, f"from {statement.module} import {', '.join(wanted)}" if wanted else "pass")
