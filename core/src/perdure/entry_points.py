"""Reading the entry points of installed distributions, quickly.

``importlib.metadata`` answers the same question, but importing it takes longer than everything
else that opening a store needs. Where all of ``sys.path`` is plain directories, which is nearly
always, the files it would read are read here. Their format is that of the PyPA specification,
https://packaging.python.org/en/latest/specifications/entry-points/.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from functools import reduce
from importlib.machinery import PathFinder
from typing import NamedTuple


class EntryPoint(NamedTuple):
    """One line of a distribution's ``entry_points.txt``."""

    name: str
    value: str
    """``module`` or ``module:attribute``."""
    distribution: str
    """Name and version of the distribution, as in ``perdure-sqlite 0.1.0``."""

    def load(self) -> object:
        """Import what it names. Raises whatever that raises."""
        module, _, attributes = self.value.partition(":")
        loaded: object = importlib.import_module(module)
        return reduce(getattr, attributes.split("."), loaded) if attributes else loaded


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of ``group``, each distribution's from where it would be imported."""
    if "importlib.metadata" in sys.modules or not _plain_directories():
        return list(_from_metadata(group))
    return list(_from_directories(group))


def _plain_directories() -> bool:
    """Whether distributions can only be found as directories on ``sys.path``."""
    return not any(
        hasattr(finder, "find_distributions") and finder is not PathFinder
        for finder in sys.meta_path
    ) and not any(path.endswith(".egg") or os.path.isfile(path) for path in sys.path)


def _from_metadata(group: str) -> Iterator[EntryPoint]:
    import importlib.metadata

    for point in importlib.metadata.entry_points(group=group):
        label = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        yield EntryPoint(point.name, point.value.partition("[")[0].strip(), label)


def _from_directories(group: str) -> Iterator[EntryPoint]:
    seen: set[str] = set()
    for path in dict.fromkeys(sys.path):
        try:
            names = os.listdir(path or ".")
        except OSError:  # not there, or not ours to read: Python's import skips it too
            continue
        for name in names:
            stem, _, kind = name.rpartition(".")
            distribution = stem.partition("-")[0].lower().replace(".", "_")
            # One found earlier on the path shadows later ones of the same name.
            if kind in ("dist-info", "egg-info") and distribution not in seen:
                seen.add(distribution)
                yield from _from_directory(os.path.join(path, name), group)


def _from_directory(directory: str, group: str) -> Iterator[EntryPoint]:
    inside = False
    for line in _lines(os.path.join(directory, "entry_points.txt")):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("["):
            inside = text == f"[{group}]"
        elif inside:
            name, _, value = text.partition("=")
            yield EntryPoint(name.strip(), value.partition("[")[0].strip(), _label(directory))


def _label(directory: str) -> str:
    """Name and version, from the headers of the distribution's metadata."""
    headers: dict[str, str] = {}
    file = "METADATA" if directory.endswith(".dist-info") else "PKG-INFO"
    for line in _lines(os.path.join(directory, file)):
        name, colon, value = line.partition(":")
        if not colon:
            break
        headers.setdefault(name.lower(), value.strip())
    return f"{headers.get('name', os.path.basename(directory))} {headers.get('version', '?')}"


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
