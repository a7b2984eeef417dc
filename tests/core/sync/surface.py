"""What the asynchronous surface offers, read from its source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "core" / "src" / "perdure"

FIRST = "Store"
NOT_OFFERED = {"Store.backend"}
"""The backend is used from the background loop alone."""

SHARED = {"Lease"}
"""Classes whose methods that are to be awaited are the store's own business."""

RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
CARRIED = {"__repr__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__"}
"""Special methods that twins have too."""

GENERATORS = {"AsyncGenerator", "AsyncIterator", "AsyncIterable"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Unclear(Exception):
    """Something in the asynchronous surface that this program does not know about."""


class Module:
    """One source file: its classes, and where its names come from."""

    def __init__(self, path: Path) -> None:
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.classes: dict[str, ast.ClassDef] = {}
        self.origin: dict[str, tuple[str, str]] = {}
        """Name → (module, name there)."""
        for node in ast.parse(path.read_text()).body:
            self._take(node)

    def _take(self, node: ast.stmt) -> None:
        match node:
            case ast.ImportFrom(module=str(module), names=aliases):
                for alias in aliases:
                    self.origin[alias.asname or alias.name] = (module, alias.name)
            case ast.If(body=body):  # TYPE_CHECKING
                for inner in body:
                    self._take(inner)
            case ast.ClassDef(name=name):
                self.classes[name] = node
                self.origin[name] = (self.name, name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                self.origin[name] = (self.name, name)
            case _:
                pass


class Surface:
    """The classes that get a twin."""

    def __init__(self) -> None:
        self.modules = [
            Module(path)
            for path in sorted(SOURCE.rglob("*.py"))
            if path.relative_to(SOURCE).parts[0] not in ("sync", "testing", "protocol")
        ]
        self.home = {name: module for module in self.modules for name in module.classes}
        self.names: list[str] = []
        """Each behind those that it needs."""
        self._reached: set[str] = set()
        self._reach(FIRST)

    def _reach(self, name: str) -> None:
        if name in self._reached:
            return
        self._reached.add(name)
        node = self.home[name].classes[name]
        for base in bases(node):
            self._reach_in(base)
        for member in members(node):
            if f"{name}.{member.name}" in NOT_OFFERED:
                continue
            result = member.returns if isinstance(member, Function) else member.type
            self._reach_in(result)
        self.names.append(name)

    def _reach_in(self, annotation: ast.expr | None) -> None:
        for name in names_in(annotation):
            if name in self.home and name not in SHARED and self._awaits(name):
                self._reach(name)

    def _awaits(self, name: str) -> bool:
        node = self.home[name].classes[name]
        return any(
            isinstance(member, ast.AsyncFunctionDef)
            or (isinstance(member, Function) and names_in(member.returns) & GENERATORS)
            for member in node.body
        ) or any(
            base in self.home and self._awaits(base)
            for expression in bases(node)
            for base in names_in(expression)
        )


class Attribute:
    """A documented public attribute of instances."""

    def __init__(self, name: str, type: ast.expr, doc: str) -> None:
        self.name = name
        self.type = type
        self.doc = doc


def members(node: ast.ClassDef) -> Iterator[Function | Attribute]:
    """What a class offers: methods and attributes, in the order of the source."""
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        match statement:
            case ast.FunctionDef(name="__init__"):
                yield from attributes(statement)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                special = name in RENAMED or name in CARRIED
                documented = ast.get_docstring(statement) or is_overload(statement)
                if special or (not name.startswith("_") and documented):
                    yield statement
                elif name.startswith("__") and name not in ("__init__", "__init_subclass__"):
                    raise Unclear(f"{node.name}.{name}")
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                if not name.startswith("_") and (doc := docstring(after)):
                    yield Attribute(name, annotation, doc)
            case _:
                pass


def attributes(function: ast.FunctionDef) -> Iterator[Attribute]:
    """The documented attributes that ``__init__`` sets."""
    for statement, after in zip(function.body, [*function.body[1:], None], strict=True):
        match statement:
            case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=type):
                pass
            case ast.Assign(
                targets=[ast.Attribute(attr=name)], value=ast.Call(func=ast.Name() as type)
            ):
                pass
            case ast.Assign(targets=[ast.Attribute(attr=name)]) if not name.startswith(
                "_"
            ) and docstring(after):
                raise Unclear(f"the type of the attribute {name}")
            case _:
                continue
        if not name.startswith("_") and (doc := docstring(after)):
            yield Attribute(name, type, doc)


def docstring(node: ast.stmt | None) -> str | None:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
        case _:
            return None


def bases(node: ast.ClassDef) -> list[ast.expr]:
    return [base for base in node.bases if not names_in(base) & {"Generic", "ABC"}]


def parameters(node: ast.ClassDef) -> str:
    """``[T]`` of ``Generic[T]``, or nothing."""
    for base in node.bases:
        match base:
            case ast.Subscript(value=ast.Name(id="Generic"), slice=slice):
                return f"[{ast.unparse(slice)}]"
            case _:
                pass
    return ""


def opened(annotation: ast.expr | None) -> ast.expr | None:
    """An annotation, out of its quotes."""
    match annotation:
        case ast.Constant(value=str(text)):
            return ast.parse(text, mode="eval").body
        case _:
            return annotation


def names_in(node: ast.AST | None) -> set[str]:
    """The names that a piece of source uses, quoted ones too."""
    found: set[str] = set()
    for inner in ast.walk(node) if node is not None else ():
        match inner:
            case ast.Name(id=name):
                found.add(name)
            case ast.Constant(value=str(text)) if re.fullmatch(r"[A-Za-z_][\w\[\], .|]*", text):
                found |= set(re.findall(r"[A-Za-z_]\w*", text))
            case _:
                pass
    return found


def is_overload(function: Function) -> bool:
    return decorators(function) == ["overload"]


def decorators(function: Function) -> list[str]:
    """Those that make something else of a method: ours, which have a dot, do not."""
    return [mark.id for mark in function.decorator_list if isinstance(mark, ast.Name)]
