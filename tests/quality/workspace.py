"""The distributions of this checkout, as their pyproject files describe them."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Member(NamedTuple):
    """One distribution: ``core``, a backend or an adapter."""

    directory: Path
    project: dict[str, Any]
    """Its ``[project]`` table."""

    @property
    def name(self) -> str:
        return self.project["name"]

    @property
    def package(self) -> str:
        """The name that it is imported by."""
        (package,) = (path.name for path in (self.directory / "src").iterdir() if path.is_dir())
        return package

    def modules(self) -> Iterator[tuple[str, ast.Module]]:
        """Its modules by name, parsed."""
        source = self.directory / "src"
        for path in sorted(source.rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(path.read_text())


def pyproject(directory: Path = ROOT) -> dict[str, Any]:
    return tomllib.loads((directory / "pyproject.toml").read_text())


def members() -> list[Member]:
    """All distributions that have code, the core first."""
    return [
        Member(directory, pyproject(directory)["project"])
        for pattern in pyproject()["tool"]["uv"]["workspace"]["members"]
        for directory in sorted(ROOT.glob(pattern))
        if (directory / "pyproject.toml").exists()
    ]


def requirement_name(requirement: str) -> str:
    """The distribution that a requirement asks for, normalized."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules(module: ast.Module) -> Iterator[str]:
    """What a module imports when it runs, anywhere in it; ``from a import b`` is ``a.b``.

    Imports under ``if TYPE_CHECKING:`` are not run.
    """
    pending: list[ast.AST] = [module]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)
