"""The scripts that run on the server: one for each operation, in ``lua/``.

A script's first line is its shebang (https://redis.io/docs/latest/develop/programmability/
eval-intro/#eval-flags), its second may name the parts that go before it. Each has one key.
"""

from functools import cache
from hashlib import sha1
from importlib.resources import files

import msgspec

PARTS = "-- parts: "


class Script(msgspec.Struct, frozen=True, gc=False):
    """One script, as the server gets and names it."""

    name: str
    source: bytes
    sha: bytes
    """In hexadecimal, as ``EVALSHA`` wants it."""
    writes: bool


def load(name: str) -> Script:
    """The script in ``lua/<name>.lua``, with its parts."""
    shebang, _, body = _text(f"{name}.lua").partition("\n")
    first, _, _ = body.partition("\n")
    parts = first.removeprefix(PARTS).split() if first.startswith(PARTS) else []
    source = "\n".join([shebang, *(_text(f"parts/{part}.lua") for part in parts), body])
    encoded = source.encode()
    return Script(
        name=name,
        source=encoded,
        sha=sha1(encoded, usedforsecurity=False).hexdigest().encode(),
        writes="no-writes" not in shebang,
    )


@cache
def _text(path: str) -> str:
    return files("perdure_redis").joinpath("lua", path).read_text(encoding="utf-8")


READ = load("read")
COMMIT = load("commit")
STAGE = load("stage")
DELETE = load("delete")
LIST = load("list")
NAMES = load("names")
DUE = load("due")
SWEEP = load("sweep")
SETUP = load("setup")

SCRIPTS = (READ, COMMIT, STAGE, DELETE, LIST, NAMES, DUE, SWEEP, SETUP)
