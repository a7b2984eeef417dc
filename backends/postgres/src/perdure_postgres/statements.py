"""The SQL of the backend: one statement per file in ``sql/``, made ready for a schema.

The files are written for people and for ``psql``: ``:"schema"`` is the schema's name, quoted,
and ``:name`` a value. Here the first is filled in once, and the second becomes ``$1``, ``$2``,
…, so that a value is never part of a statement. ``:clock`` is an expression for now.
"""

import re
from functools import cache
from importlib.resources import files

from psycopg.sql import Identifier

from perdure_postgres.connection import Statement
from perdure_postgres.parameters import Parameter

CLOCK = "floor(date_part('epoch', clock_timestamp()) * 1000)::bigint"
"""The server's clock in ms since the epoch. Not ``now()``, the time of the transaction's start:
whoever has waited for a lock would go back behind who held it."""

_PLACE = re.compile(r':"schema"|(?<![:\w]):([a-z_]+)\b')


class Template:
    """A statement whose values are still to come."""

    def __init__(self, name: str, schema: str, clock: str) -> None:
        text, self._names = fill(" ".join(read(name).split()), schema, clock)
        self._query = text.encode()

    def __call__(self, **values: Parameter) -> Statement:
        """The statement with these values; those it does not ask for are left out."""
        return Statement(self._query, tuple([values[name] for name in self._names]))


class Statements:
    """All statements for one schema."""

    def __init__(self, schema: str, clock: str = CLOCK) -> None:
        def load(name: str) -> Template:
            return Template(name, schema, clock)

        self.head = load("head")
        self.read = load("read")
        self.delta = load("delta")
        self.append = load("append")
        self.plain = load("plain")
        self.commit = load("commit")
        self.lock = load("lock")
        self.lock_stages = load("lock_stages")
        self.adopt = (load("adopt_1"), load("adopt_2"), load("adopt_3"))
        self.stage = load("stage")
        self.delete = load("delete")
        self.purge = load("purge")
        self.purged = load("purged")
        self.watch = load("watch")
        self.list_by_id = load("list_by_id")
        self.list_by_recency = load("list_by_recency")
        self.list_label_by_id = load("list_label_by_id")
        self.list_label_by_recency = load("list_label_by_recency")
        self.list_tenants = load("list_tenants")
        self.list_kinds = load("list_kinds")
        self.list_discarded = load("list_discarded")
        self.sweep_expired = load("sweep_expired")
        self.sweep_tombstones = load("sweep_tombstones")
        self.sweep_stages = load("sweep_stages")
        self.sweep_watches = load("sweep_watches")
        self.stamp = load("stamp")
        self.format = load("format")
        self.describe = load("describe")


@cache
def read(name: str) -> str:
    """The text of ``sql/<name>.sql`` without its comments, which have lines of their own."""
    text = files("perdure_postgres").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines)


def fill(text: str, schema: str, clock: str = CLOCK) -> tuple[str, tuple[str, ...]]:
    """SQL that the server understands, and the names of its values in order."""
    identifier = Identifier(schema).as_string()
    names: dict[str, int] = {}

    def filled(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return identifier
        return clock if name == "clock" else f"${names.setdefault(name, len(names) + 1)}"

    return _PLACE.sub(filled, text), tuple(names)
