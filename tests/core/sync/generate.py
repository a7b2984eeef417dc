"""Writes ``perdure.sync`` from the source of the asynchronous classes: ``python -m
tests.core.sync.generate``.

Begins with ``Store`` and follows what public methods return and attributes hold. A class that
has anything to await gets a twin that has the same methods, with the same signatures and
docstrings, and does nothing but call the original in a background loop. What has nothing to
await (requests, entries, heads, errors) is shared.

Public methods and attributes that have no docstring are the store's own business, and are left
out. What this program does not know how to turn into a blocking call ends it.
"""

import ast
import inspect
import subprocess
import sys

from tests.core.sync.surface import (
    CARRIED,
    FIRST,
    GENERATORS,
    NOT_OFFERED,
    RENAMED,
    ROOT,
    SOURCE,
    Attribute,
    Function,
    Module,
    Surface,
    Unclear,
    bases,
    decorators,
    docstring,
    members,
    names_in,
    opened,
    parameters,
)

TARGET = SOURCE / "sync"
COMMAND = "python -m tests.core.sync.generate"

PACKAGE = '''\
"""The store without ``await``: the same surface, for code that runs in threads.

::

    from perdure.sync import Store

    with Store("sqlite:///sessions.db") as store:
        session = store.session("chat-7")
        session.append({{"role": "user", "content": "hi"}})
        for entry in session.watch(): ...

Each store has one thread, in whose event loop everything is done; calls block until it is. So
a store, and each of its handles, may be used from any number of threads at once, also from one
in which an event loop runs (and stands still meanwhile); only a turn belongs to one thread at
a time. ``KeyboardInterrupt`` cancels what is under way, and is raised when that has ended.
Callbacks given to the store are called in its thread, and cannot use it.

What has nothing to await is shared: import requests, errors and the like from ``perdure``.

Written by ``{command}`` from the asynchronous classes.
"""

{imports}

__all__ = {names}
'''


class Writer:
    """Writes the twin of one module."""

    def __init__(self, surface: Surface, module: Module) -> None:
        self.surface = surface
        self.module = module
        self.classes = [
            surface.home[name].classes[name]
            for name in surface.names
            if surface.home[name] is module
        ]

    def text(self) -> str:
        package, _, name = self.module.name.rpartition(".")
        body = "\n\n".join(self.class_text(node) for node in self.classes)
        return (
            f'"""Twins of :mod:`{self.module.name}`, written by ``{COMMAND}``."""\n\n'
            f"{self.imports(body)}\nfrom {package} import {name} as asynchronous\n"
            f"from perdure.background import Background\n\n{body}\n"
        )

    def imports(self, body: str) -> str:
        lines: list[str] = []
        for name in sorted(names_in(ast.parse(body))):
            if name == "Generator":
                lines.append("from collections.abc import Generator")
            elif name in self.surface.names:
                home = self.surface.home[name]
                if home is not self.module:
                    lines.append(f"from {twin(home)} import {name}")
            elif name in self.module.origin:
                source, original = self.module.origin[name]
                renamed = "" if original == name else f" as {name}"
                lines.append(f"from {source} import {original}{renamed}")
        return "\n".join(lines)

    def class_text(self, node: ast.ClassDef) -> str:
        self.node = node
        self.own = f"_{node.name.lower()}"
        inherited = [base for base in bases(node) if names_in(base) & {*self.surface.names}]
        generic = [base for base in node.bases if "Generic" in names_in(base)]
        over = ", ".join(ast.unparse(base) for base in (*inherited, *generic))
        lines = [
            f"class {node.name}({over}):" if over else f"class {node.name}:",
            *self.doc(text_of(node)),
            *([] if inherited else [f"__slots__ = {tuple(sorted(('_background', self.own)))}"]),
            *self.constructor(node, bool(inherited)),
        ]
        for member in members(node):
            if f"{node.name}.{member.name}" in NOT_OFFERED:
                continue
            if isinstance(member, Attribute):
                lines += self.attribute(member)
            else:
                lines += self.method(member)
        return "\n".join([lines[0], *indented(lines[1:])])

    def constructor(self, node: ast.ClassDef, derived: bool) -> list[str]:
        original = f"asynchronous.{node.name}"
        if node.name != FIRST:
            if derived:
                raise Unclear(f"{node.name} derives from another twin")
            return [
                f"def __init__(self, of: {original}{parameters(node)}, "
                "background: Background) -> None:",
                f"    self.{self.own} = of",
                "    self._background = background",
            ]
        (init,) = [m for m in node.body if isinstance(m, Function) and m.name == "__init__"]
        return [
            f"def __init__({ast.unparse(init.args)}) -> None:",
            f"    self.{self.own} = {original}({passed(init.args)})",
            f"    super().__init__(self.{self.own}, Background())",
        ]

    def attribute(self, attribute: Attribute) -> list[str]:
        value = f"self.{self.own}.{attribute.name}"
        return [
            "@property",
            f"def {attribute.name}(self) -> {ast.unparse(attribute.type)}:",
            *indented(self.doc(attribute.doc)),
            f"    return {self.wrapped(value, attribute.type)}",
        ]

    def method(self, function: Function) -> list[str]:
        where = f"{self.node.name}.{function.name}"
        marks = decorators(function)
        if not set(marks) <= {"property", "overload"} or function.returns is None:
            raise Unclear(where)
        name = RENAMED.get(function.name, function.name)
        for argument in every_argument(function.args):
            argument.annotation = blocking_parameter(argument.annotation, where)
            if names_in(argument.annotation) & {*self.surface.names}:
                raise Unclear(f"{where} takes a {ast.unparse(argument)}")
        result = opened(function.returns)
        generator = isinstance(result, ast.Subscript) and names_in(result.value) & GENERATORS
        returns = ast.unparse(function.returns)
        if generator:
            assert isinstance(result, ast.Subscript)
            item = result.slice.elts[0] if isinstance(result.slice, ast.Tuple) else result.slice
            if names_in(item) & {*self.surface.names}:
                raise Unclear(f"{where} yields {ast.unparse(item)}")
            returns = f"Generator[{ast.unparse(item)}, None, None]"
        head = f"def {name}({ast.unparse(function.args)}) -> {returns}:"
        if "overload" in marks:
            return ["@overload", f"{head} ..."]
        lines = [f"@{mark}" for mark in marks]
        lines += [head, *indented(self.doc(text_of(function)))]
        if self.node.name == FIRST and function.name == "aclose":
            return [*lines, f"    self._background.close(self.{self.own}.aclose())"]
        if self.node.name == FIRST and function.name == "__aexit__":
            return [*lines, "    self.close()"]
        called = f"self.{self.own}.{function.name}({passed(function.args)})"
        if "property" in marks:
            called = f"self.{self.own}.{function.name}"
        elif function.name in CARRIED:
            called = carried(function.name, f"self.{self.own}", passed(function.args))
        if generator:
            return [*lines, f"    return self._background.iterate({called})"]
        if isinstance(function, ast.AsyncFunctionDef):
            called = f"self._background.run({called})"
        match result:
            case ast.Constant(value=None):
                return [*lines, f"    {called}"]
            case ast.Name(id="Self"):
                return [*lines, f"    {called}", "    return self"]
            case _:
                return [*lines, f"    return {self.wrapped(called, function.returns)}"]

    def wrapped(self, value: str, annotation: ast.expr) -> str:
        """``value``, as the twin of what it is."""
        result = opened(annotation)
        if not names_in(result) & {*self.surface.names}:
            return value
        match result:
            case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)):
                if name in self.surface.names:
                    return f"{name}({value}, self._background)"
            case _:
                pass
        raise Unclear(f"{self.node.name}: {ast.unparse(annotation)}")

    def doc(self, text: str | None) -> list[str]:
        if text is None:
            return []
        quoted = f'"""{adapted(text)}"""'
        return [line.strip() and line for line in quoted.split("\n")]


def every_argument(arguments: ast.arguments) -> list[ast.arg]:
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return found + [rest for rest in (arguments.vararg, arguments.kwarg) if rest]


def passed(arguments: ast.arguments) -> str:
    """What hands the arguments of a method on."""
    given = [a.arg for a in (*arguments.posonlyargs, *arguments.args) if a.arg != "self"]
    if arguments.vararg:
        given.append(f"*{arguments.vararg.arg}")
    given += [f"{a.arg}={a.arg}" for a in arguments.kwonlyargs]
    if arguments.kwarg:
        given.append(f"**{arguments.kwarg.arg}")
    return ", ".join(given)


def carried(name: str, value: str, arguments: str) -> str:
    """A special method, as the syntax that calls it."""
    key, _, new = arguments.partition(", ")
    return {
        "__repr__": f"repr({value})",
        "__len__": f"len({value})",
        "__contains__": f"{key} in {value}",
        "__getitem__": f"{value}[{key}]",
        "__setitem__": f"{value}[{key}] = {new}",
        "__delitem__": f"del {value}[{key}]",
    }[name]


def blocking_parameter(annotation: ast.expr | None, where: str) -> ast.expr | None:
    """A parameter's type without the alternatives that are to be awaited."""
    asynchronous = names_in(annotation) & {*GENERATORS, "Awaitable", "Coroutine"}
    if not asynchronous:
        return annotation
    match opened(annotation):
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            if names_in(right) & asynchronous and not names_in(left) & asynchronous:
                return left
            if names_in(left) & asynchronous:
                kept = blocking_parameter(left, where)
                if names_in(right) & asynchronous:
                    return kept
                assert kept is not None
                return ast.BinOp(kept, ast.BitOr(), right)
        case _:
            pass
    raise Unclear(f"{where} takes {ast.unparse(annotation) if annotation else ''}")


def text_of(node: ast.ClassDef | Function) -> str | None:
    """A docstring, without the indentation of its lines."""
    if (text := docstring(node.body[0])) is None:
        return None
    return inspect.cleandoc(text) + ("\n" if text.rstrip(" ").endswith("\n") else "")


def adapted(doc: str) -> str:
    """A docstring that speaks of the twin."""
    doc = doc.replace("async with ", "with ").replace("async for ", "for ")
    return doc.replace("await ", "").replace("aclose", "close").replace("\\", "\\\\")


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def twin(module: Module) -> str:
    """The name of the module that holds the twins of a module's classes."""
    return f"perdure.sync.{module.name.rpartition('.')[2]}"


def formatted(text: str) -> str:
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, f"--stdin-filename={TARGET}/x.py", "-"],
            cwd=ROOT,
            input=text,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    return text


def generate() -> dict[str, str]:
    """The files of the package: name → text."""
    surface = Surface()
    homes = dict.fromkeys(surface.home[name] for name in surface.names)
    files = {
        f"{twin(module).rpartition('.')[2]}.py": Writer(surface, module).text()
        for module in homes
    }
    imports = [f"from {twin(surface.home[n])} import {n}" for n in surface.names]
    files["__init__.py"] = PACKAGE.format(
        command=COMMAND, imports="\n".join(imports), names=sorted(surface.names)
    )
    return {name: formatted(text) for name, text in files.items()}


def main() -> None:
    files = generate()
    TARGET.mkdir(exist_ok=True)
    for name, text in files.items():
        path = TARGET / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in TARGET.glob("*.py"):
        if path.name not in files:
            path.unlink()


if __name__ == "__main__":
    main()
