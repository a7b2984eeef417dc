"""Making the tables, and refusing what is not ours or is too new."""

from perdure.errors import Corrupt, FormatTooNew, PerdureError, Unavailable

from perdure_postgres.connection import Statement
from perdure_postgres.database import Database
from perdure_postgres.settings import Settings
from perdure_postgres.statements import Statements, fill, read

FORMAT = 1

_STAMP = "perdure_format"
_NAMES = (
    _STAMP,
    *("sessions", "items", "commits", "tombstones", "discarded", "stages", "watches"),
    *("lives", "used", "watched"),
)


async def prepare(database: Database, statements: Statements, settings: Settings) -> None:
    """Check the schema's stamp, or make the tables where there are none.

    Safe when many processes do so at once: it is one transaction, which one of them wins.
    Raises ``FormatTooNew``, ``Corrupt`` if tables of others are in the way, ``Unavailable``;
    nothing was changed then.
    """
    there = await _look(database, statements, settings)
    if there is None or not there:
        if not settings.setup:
            raise Unavailable(
                f"{settings.location}: schema {settings.schema!r} has no perdure tables, and "
                "setup is off: run schema.sql on it",
                lasting=True,
            )
        script = schema_script(settings.schema)
        make = script if there is None else script[1:]
        try:
            await database.run(*make, writes=True)
        except PerdureError:
            # Perhaps somebody else has made them just now.
            if not await _look(database, statements, settings):
                raise


async def _look(database: Database, statements: Statements, settings: Settings) -> bool | None:
    """Whether the tables are there and ours to use; ``None``: not even the schema is."""
    schema = settings.schema
    (found,) = await database.run(statements.stamp(schema=schema, names=_NAMES), writes=False)
    if not found:
        return None
    names = {name for (name,) in found if name is not None}
    if not names:
        return False
    if _STAMP not in names:
        raise Corrupt(
            f"{settings.location}: schema {schema!r} holds {', '.join(sorted(names))}, which "
            "perdure did not make; it was left as it is. Choose another with ?schema="
        )
    (stamps,) = await database.run(statements.format(), writes=False)
    format = stamps[0][0] if len(stamps) == 1 else 0
    if format > FORMAT:
        raise FormatTooNew(
            f"{settings.location}: schema {schema!r} has format {format}, written by a newer "
            f"perdure-postgres; this one knows format {FORMAT}. Nothing was touched: upgrade"
        )
    if format < 1:
        raise Corrupt(
            f"{settings.location}: the stamp of schema {schema!r} is not one that perdure "
            "makes; it was left as it is"
        )
    return True


def schema_script(schema: str) -> list[Statement]:
    """The statements of ``schema.sql``. The first makes the schema itself."""
    statements = [part.strip() for part in read("schema").split(";") if part.strip()]
    return [Statement(fill(part, schema)[0].encode()) for part in statements]
