"""The sources of a firmware as `shortening` sees them: what each name in them means, and where it stands.

Only what runs on a board is looked at: annotations and what only type checkers read are not.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Scope = ast.Module | ast.ClassDef | Function


class NotShortened(Exception):
    """A module that this cannot rewrite without changing what it does."""


@dataclass(frozen=True)
class Binding:
    """How a name gets its meaning in a scope. module, name: of what is imported; name is empty for a module."""

    kind: str  # "parameter", "import", "other"
    module: str = ""
    name: str = ""


@dataclass
class Module:
    """One source. scopes: of each scope its names, and how each of them is bound. uses: (name node, scope, parents)."""

    name: str
    source: bytes
    tree: ast.Module
    lines: list[int]  # where each begins
    scopes: dict[Scope, dict[str, list[Binding]]] = field(default_factory=dict)
    uses: list[tuple[ast.Name, tuple[Scope, ...]]] = field(default_factory=list)
    attributes: list[tuple[ast.Attribute, tuple[Scope, ...]]] = field(default_factory=list)
    nested: dict[Scope, tuple[Scope, ...]] = field(default_factory=dict)  # what is around a scope, outermost first
    hidden: set[str] = field(default_factory=set)  # names in f-strings
    keywords: set[str] = field(default_factory=set)  # parameters that are given by name
    asked: set[str] = field(default_factory=set)  # attributes that are asked for by a string
    strings: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)  # all that is used in it
    whole_imports: list[str] = field(default_factory=list)
    is_loaded: bool = False
    imports: list[ast.ImportFrom] = field(default_factory=list)  # their names as they will be
    import_scopes: dict[ast.ImportFrom, Scope] = field(default_factory=dict)
    edits: list[tuple[int, int, bytes]] = field(default_factory=list)

    def at(self, line: int, column: int) -> int:
        return self.lines[line - 1] + column

    def replace(self, node: ast.stmt | ast.expr | ast.arg, text: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin, end = self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)
        self.edits.append((begin, end, text.encode() + b"\n" * (node.end_lineno - node.lineno)))

    def replace_word(self, begin: int, word: str, text: str) -> None:
        assert self.source[begin : begin + len(word)] == word.encode(), (self.name, word)
        self.edits.append((begin, begin + len(word), text.encode()))

    def rewritten(self) -> bytes:
        made, at = b"", 0
        for begin, end, text in sorted(self.edits, key=lambda edit: (edit[0], -edit[1])):
            if begin < at:
                continue  # inside of a statement that is gone
            made += self.source[at:begin] + text
            at = end
        return made + self.source[at:]


def read(name: str, source: bytes) -> Module:
    source = source.replace(b"\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n", b"\n\nif False:\n")
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    module = Module(name, source, ast.parse(source, name), lines)
    _enter(module, module.tree, (), module.tree.body)
    return module


def _enter(module: Module, scope: Scope, around: tuple[Scope, ...], body: list[ast.stmt] | list[ast.expr]) -> None:
    module.scopes[scope] = {}
    module.nested[scope] = around
    outside: set[str] = set()
    if isinstance(scope, Function):
        given = scope.args
        for parameter in (*given.posonlyargs, *given.args, *given.kwonlyargs):
            _bind(module, scope, parameter.arg, Binding("parameter"))
        for rest in (given.vararg, given.kwarg):
            if rest is not None:
                _bind(module, scope, rest.arg, Binding("other"))
    for statement in body:
        for node in _own(statement):
            if isinstance(node, ast.Global | ast.Nonlocal):
                outside.update(node.names)
            _bind_by(module, scope, node)
    for word in outside:
        module.scopes[scope].pop(word, None)
    for statement in body:
        _walk(module, statement, (*around, scope))


def _bind(module: Module, scope: Scope, word: str, binding: Binding) -> None:
    module.scopes[scope].setdefault(word, []).append(binding)


def _bind_by(module: Module, scope: Scope, node: ast.AST) -> None:
    match node:
        case ast.Name(id=word, ctx=ast.Store() | ast.Del()):
            _bind(module, scope, word, Binding("other"))
        case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.ClassDef(name=word):
            _bind(module, scope, word, Binding("other"))
        case ast.ExceptHandler(name=str(word)):
            _bind(module, scope, word, Binding("other"))
        case ast.Import(names=names):
            for alias in names:
                word = alias.asname or alias.name.partition(".")[0]
                whole = alias.name if alias.asname or "." not in alias.name else ""
                _bind(module, scope, word, Binding("import", whole))
        case ast.ImportFrom(names=names, module=origin):
            for alias in names:
                _bind(module, scope, alias.asname or alias.name, Binding("import", origin or "", alias.name))


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is in it, but not what is in the functions and classes in it."""
    yield node
    if _is_never_run(node):
        return
    inner: list[ast.AST] | list[ast.expr]
    if isinstance(node, Function | ast.ClassDef):
        inner = _outer_parts(node)
    else:
        inner = [child for child in ast.iter_child_nodes(node) if not _is_annotation(node, child)]
    for child in inner:
        yield from _own(child)


def _outer_parts(node: "Function | ast.ClassDef") -> list[ast.expr]:
    """What of a function or a class is worked out where it stands."""
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases]
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return [*decorators, *node.args.defaults, *(value for value in node.args.kw_defaults if value is not None)]


def _is_annotation(node: ast.AST, child: ast.AST) -> bool:
    return (isinstance(node, ast.AnnAssign) and child is node.annotation) or (
        isinstance(node, ast.arg) and child is node.annotation
    )


def _is_never_run(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and node.test.value is False


def _walk(module: Module, node: ast.AST, scopes: tuple[Scope, ...]) -> None:
    if _is_never_run(node):
        return
    if isinstance(node, ast.JoinedStr):  # Python says only from 3.12 on where a name in an f-string stands
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                module.hidden.add(inner.id)
            elif isinstance(inner, ast.Attribute):
                module.hidden.add(inner.attr)
        module.words |= module.hidden
        return
    if isinstance(node, Function | ast.ClassDef):
        for part in _outer_parts(node):
            _walk(module, part, scopes)
        _enter(module, node, scopes, [node.body] if isinstance(node, ast.Lambda) else node.body)
        return
    if isinstance(node, ast.Name):
        module.uses.append((node, scopes))
        module.words.add(node.id)
    elif isinstance(node, ast.Attribute):
        module.attributes.append((node, scopes))
        module.words.add(node.attr)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        module.strings.add(node.value)
    elif isinstance(node, ast.Import):
        module.whole_imports.extend(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module.imports.append(node)
        module.import_scopes[node] = scopes[-1]
        module.words.update(alias.name for alias in node.names)
    elif isinstance(node, ast.Call):
        module.keywords.update(keyword.arg for keyword in node.keywords if keyword.arg)
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr", "delattr"):
            module.asked.update(str(part.value) for part in node.args if isinstance(part, ast.Constant))
    for child in ast.iter_child_nodes(node):
        if not _is_annotation(node, child):
            _walk(module, child, scopes)


def home_of(module: Module, word: str, scopes: tuple[Scope, ...]) -> tuple[Scope, list[Binding]] | None:
    """The scope in which a name that is used has its meaning; None for what is built in."""
    for scope in reversed(scopes):
        if isinstance(scope, ast.ClassDef) and scope is not scopes[-1]:
            continue  # a class's names are not those of its methods
        if word in module.scopes[scope]:
            return scope, module.scopes[scope][word]
    return None


def module_of(modules: Mapping[str, Module], module: Module, node: ast.expr, scopes: tuple[Scope, ...]) -> str | None:
    """The module for which an expression stands: "" for one that is not of the image, None if it is not known."""
    if not isinstance(node, ast.Name):
        return None
    home = home_of(module, node.id, scopes)
    if home is None or any(binding != home[1][0] or binding.kind != "import" for binding in home[1]):
        return None
    binding = home[1][0]
    whole = f"{binding.module}.{binding.name}" if binding.name else binding.module
    if whole in modules:
        return whole
    return "" if not binding.name else None


def statements_of(tree: ast.Module) -> Iterator[ast.stmt]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if not _is_never_run(node):
            if isinstance(node, ast.stmt):
                yield node
            waiting.extend(ast.iter_child_nodes(node))


def needed_by(name: str, sources: Mapping[str, bytes]) -> list[str]:
    """A module and all modules of these sources that it imports, directly or not, with their packages; sorted.

    sources: {module: source}, a package under "name.__init__".
    """
    found: set[str] = set()
    waiting = [name]
    while waiting:
        here = waiting.pop()
        if f"{here}.__init__" in sources:
            here = f"{here}.__init__"
        if here in found or here not in sources:
            continue
        found.add(here)
        waiting.append(here.removesuffix(".__init__").rpartition(".")[0])
        module = read(here, sources[here])
        waiting.extend(module.whole_imports)
        for statement in module.imports:
            waiting.append(statement.module or "")
            waiting.extend(f"{statement.module}.{alias.name}" for alias in statement.names)
    return sorted(found)
