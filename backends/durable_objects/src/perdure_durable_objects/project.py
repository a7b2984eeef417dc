"""The Worker as a project of its own, ready to be deployed with wrangler."""

import json
import os
import re
import secrets
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from perdure.errors import Unsupported
from perdure.protocol.auth import InvalidKeys, Keys

OBJECTS = {"SESSIONS": "Session", "DIRECTORIES": "Directory"}
"""The classes of Durable Objects that it has, behind their bindings."""

KEYS_FILE = "keys.json"
CONFIGURATION = Path("wrangler.jsonc")
MODULE = "worker.js"
"""The whole Worker as one module, made of ``src`` by ``npm run build``."""

_IGNORED = f"{KEYS_FILE}\n.dev.vars\nnode_modules/\n.perdure/\n.wrangler/\n"

_NAME = '"name": "perdure"'
"""Of the Worker, in ``wrangler.jsonc``."""
_DATE = re.compile(r'"compatibility_date": *"(\d{4}-\d\d-\d\d)"')


class CannotWrite(Unsupported):
    """There is something where the project would be written, or no way to write there."""


def write_project(directory: Path, name: str) -> list[Path]:
    """Write a Worker called ``name``, with a key of its own; returns the files.

    The directory may exist and hold other things. Raises :class:`CannotWrite`, also if any of
    the files exists; then none is written.
    """
    contents = {
        Path(file): text for file, text in _sources(files("perdure_durable_objects") / "worker")
    }
    configuration = contents[CONFIGURATION].replace(_NAME, f'"name": "{name}"')
    contents[CONFIGURATION] = configuration
    contents[Path(".gitignore")] = _IGNORED
    contents[Path(KEYS_FILE)] = new_keys()
    taken = [directory / file for file in contents if os.path.lexists(directory / file)]
    taken += [
        directory / parent
        for parent in {parent for file in contents for parent in file.parents}
        if os.path.lexists(directory / parent) and not (directory / parent).is_dir()
    ]
    if taken:
        others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise CannotWrite(f"{min(taken)}{others}: there already, and nothing is overwritten")
    written: list[Path] = []
    try:
        for file, text in contents.items():
            path = directory / file
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o600 if file.name == KEYS_FILE else 0o666
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(path)
            with open(descriptor, "w", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise CannotWrite(
            f"{error.filename or directory}: {error.strerror or error}"
        ) from error
    return written


def new_keys() -> str:
    """A list of one key, as JSON."""
    return json.dumps([{"id": "app", "secret": secrets.token_urlsafe(32)}], indent=2) + "\n"


def read_keys(directory: Path) -> str:
    """A project's list of keys. Raises ``InvalidKeys``."""
    path = directory / KEYS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InvalidKeys(f"{path}: {error}") from None
    try:
        Keys.parse(text)
    except InvalidKeys as error:
        raise InvalidKeys(f"{path}: {error}") from None
    return text


def compatibility_date(directory: Path) -> str:
    """Of the Workers runtime, for which a project is made. Raises ``Unsupported``."""
    path = directory / CONFIGURATION
    try:
        found = _DATE.search(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise Unsupported(f"{path}: {error}") from None
    if found is None:
        raise Unsupported(f"{path}: it names no compatibility_date")
    return found[1]


def _sources(directory: Traversable, before: str = "") -> list[tuple[str, str]]:
    """The files of the Worker, with their paths."""
    found: list[tuple[str, str]] = []
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name not in ("node_modules", "test"):
                found += _sources(entry, f"{before}{entry.name}/")
        elif entry.name.endswith((".ts", ".js", ".json", ".jsonc", ".md")):
            found.append((before + entry.name, entry.read_text(encoding="utf-8")))
    return found
