"""Integer constants of a firmware are written as numbers (shortening.py)."""

import ast
import re
from collections.abc import Iterator

from laterne_provisioning.compiling.sources import Module, Scope, home_of, module_of

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
_LARGEST = (1 << 30) - 1  # what every port keeps without an object


class Constants:
    """Of all modules of an image. keep: words that are known outside of it."""

    def __init__(self, modules: dict[str, Module], keep: frozenset[str]) -> None:
        self._modules = modules
        self._assigned: dict[tuple[str, str], ast.expr] = {}
        self._values: dict[tuple[str, str], int | None] = {}
        for module in modules.values():
            for statement in module.tree.body:
                for target, value in _assignments(statement):
                    # One that is known outside may be changed from there.
                    if (
                        target not in keep
                        and _CONSTANT.fullmatch(target)
                        and len(module.scopes[module.tree][target]) == 1
                    ):
                        self._assigned[module.name, target] = value
        # Definitions that stay: somebody may ask for them in a way that is not seen here.
        self._stay = keep.union(*(module.hidden for module in modules.values()))
        for module in modules.values():
            self._stay |= {
                node.attr
                for node, scopes in module.attributes
                if module_of(modules, module, node.value, scopes) is None
            }
            self._stay |= {
                alias.name for statement in module.imports for alias in statement.names if alias.asname in module.hidden
            }

    def write_out(self) -> None:
        for module in self._modules.values():
            for node, scopes in module.uses:
                number = self._number_of_name(module, node.id, scopes)
                if number is not None and isinstance(node.ctx, ast.Load):
                    module.replace(node, f"({number})")
            for attribute, scopes in module.attributes:
                origin = module_of(self._modules, module, attribute.value, scopes)
                number = self._number(origin, attribute.attr) if origin else None
                if number is not None and isinstance(attribute.ctx, ast.Load):
                    module.replace(attribute, f"({number})")
            self._drop_definitions(module)

    def _drop_definitions(self, module: Module) -> None:
        gone: set[ast.stmt] = set()
        for statement in module.tree.body:
            targets = [target for target, _ in _assignments(statement)]
            if targets and all(self._goes(module.name, target) for target in targets):
                gone.add(statement)
                for target in targets:
                    module.scopes[module.tree].pop(target)
                module.replace(statement, "pass")
        constants_left = any(
            node.id == "const" and not any(_is_in(node, statement) for statement in gone) for node, _ in module.uses
        )
        for statement in module.imports:
            statement.names = [
                alias
                for alias in statement.names
                if not (statement.module == "micropython" and alias.name == "const" and not constants_left)
                and (
                    self._number(statement.module or "", alias.name) is None
                    or alias.name in self._stay
                    or (alias.asname or alias.name) in self._stay
                )
            ]

    def _goes(self, module: str, word: str) -> bool:
        return word == "__all__" or (word not in self._stay and self._number(module, word) is not None)

    def _number_of_name(self, module: Module, word: str, scopes: tuple[Scope, ...]) -> int | None:
        home = home_of(module, word, scopes)
        if home is None:
            return None
        scope, bindings = home
        if scope is module.tree and (module.name, word) in self._assigned:
            return self._number(module.name, word)
        if len(bindings) == 1 and bindings[0].kind == "import" and bindings[0].name:
            return self._number(bindings[0].module, bindings[0].name)
        return None

    def _number(self, module: str, word: str) -> int | None:
        """The value of a module's constant; None if it has none, or not a small integer."""
        if module not in self._modules:
            return None
        key = module, word
        if key not in self._values:
            self._values[key] = None
            if key in self._assigned:
                found = self._work_out(self._modules[module], self._assigned[key])
                self._values[key] = found if found is not None and abs(found) <= _LARGEST else None
            else:
                for binding in self._modules[module].scopes[self._modules[module].tree].get(word, []):
                    if binding.kind == "import" and binding.name:
                        self._values[key] = self._number(binding.module, binding.name)
        return self._values[key]

    def _work_out(self, module: Module, node: ast.expr) -> int | None:
        if isinstance(node, ast.Constant):
            return node.value if type(node.value) is int else None
        if isinstance(node, ast.Name):
            return self._number_of_name(module, node.id, (module.tree,))
        if isinstance(node, ast.Attribute):
            origin = module_of(self._modules, module, node.value, (module.tree,))
            return self._number(origin, node.attr) if origin else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "const":
            return self._work_out(module, node.args[0])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._work_out(module, node.operand)
            return None if value is None else -value
        if isinstance(node, ast.BinOp):
            left, right = self._work_out(module, node.left), self._work_out(module, node.right)
            if left is None or right is None:
                return None
            match node.op:
                case ast.Add():
                    return left + right
                case ast.Sub():
                    return left - right
                case ast.Mult():
                    return left * right
                case ast.FloorDiv():
                    return left // right
                case ast.LShift():
                    return left << right
        return None


def _assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of `A = 1` and of `A, B = 1, 2`."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=word)], value=value):
            yield word, value
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
            for name, value in zip(names, values, strict=True):
                yield (name.id if isinstance(name, ast.Name) else ""), value


def _is_in(node: ast.expr, statement: ast.stmt) -> bool:
    assert statement.end_lineno is not None
    return statement.lineno <= node.lineno <= statement.end_lineno
