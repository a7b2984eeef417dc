"""Making the tables: once, whoever comes, and never on top of what is somebody else's."""

import asyncio
import shutil
import subprocess
from importlib.resources import files
from typing import LiteralString
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from perdure.errors import Corrupt, FormatTooNew, Unavailable
from perdure.testing.shorthand import list_ids, new_id, read_values, write
from perdure.types import KeyRange, Scan, SessionKey

from perdure_postgres.settings import Settings
from perdure_postgres.setup import FORMAT, schema_script
from tests.backends.postgres.children import SHARED, spawn
from tests.backends.postgres.conftest import Connect
from tests.backends.postgres.databases import administer
from tests.backends.postgres.harness import with_options
from tests.services.postgres import _programs


@pytest.fixture
def schema() -> str:
    """One that is not there yet."""
    return f"setup-{uuid4()}"


async def relations(url: str, schema: str) -> list[tuple[str, str]]:
    """Names and kinds of all that a schema holds."""
    return await administer(
        url,
        "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1",
        schema,
    )


def in_schema(text: LiteralString, schema: str) -> str:
    return SQL(text).format(schema=Identifier(schema)).as_string()


async def use(connect: Connect, key: SessionKey, **changes: object) -> None:
    """Do everything once."""
    backend = connect(**changes)
    made = await write(backend, key, puts=((b"a", b"1"), (b"b", b"2")), labels=("l",))
    stage = new_id()
    await backend.stage(key, made.incarnation, stage, ((b"part", b"3"),))
    await write(backend, key, stages=(stage,), deletes=(KeyRange(b"a", b"b"),))
    await write(backend, key, incarnation=made.incarnation, base=2, returning=(Scan(),))
    assert await read_values(backend, key) == {b"b": b"2", b"part": b"3"}
    assert await list_ids(backend, key, label="l") == [key.id]
    assert key.tenant in (await backend.tenants()).items
    head = (await backend.read(key)).head
    assert await backend.wait(key, after=head, timeout=0.1) == head
    assert await backend.delete(key, id=new_id())
    await backend.sweep()
    assert (await backend.describe()).details["schema"] == changes["schema"]


async def test_ten_processes_that_come_first_make_one_set_of_tables(
    postgres_url: str, schema: str, connect: Connect
) -> None:
    url = with_options(postgres_url, schema=schema)
    children = await asyncio.gather(*[spawn(url) for _ in range(10)])
    results = await asyncio.gather(*[child.communicate(b"\n") for child in children])
    assert [child.returncode for child in children] == [0] * 10
    assert sorted(int(out) for out, _ in results) == list(range(1, 11))
    head = (await connect(schema=schema).read(SHARED)).head
    assert head is not None
    assert head.version == 10


async def test_ten_backends_that_come_first_make_one_set_of_tables(
    schema: str, connect: Connect, key: SessionKey
) -> None:
    made = await asyncio.gather(*[write(connect(schema=schema), key) for _ in range(10)])
    assert sorted(result.version for result in made) == list(range(1, 11))


@pytest.mark.parametrize(
    "name",
    ['Sessions "of" ours; DROP', "perdüre", "a.b", "select", "%s", "x" * 63, "'", ":clock"],
)
async def test_a_schema_may_have_any_name(
    connect: Connect, key: SessionKey, postgres_url: str, name: str
) -> None:
    await use(connect, key, schema=name)
    assert ("sessions", "r") in await relations(postgres_url, name)


async def test_schemas_do_not_see_one_another(
    connect: Connect, key: SessionKey, schema: str
) -> None:
    one, other = connect(schema=schema), connect(schema=schema.upper())
    await write(one, key, puts=((b"a", b"1"),))
    assert (await other.read(key)).head is None
    assert await list_ids(other, key) == []


async def test_without_setup_nothing_is_made(
    connect: Connect, postgres_url: str, schema: str
) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable, match="setup is off") as refused:
            await connect(schema=schema, setup=False).open()
        assert refused.value.lasting
        assert await relations(postgres_url, schema) == []
        await administer(
            postgres_url, in_schema("CREATE SCHEMA IF NOT EXISTS {schema}", schema)
        )


@pytest.mark.usefixtures("administrator")
async def test_a_dba_runs_the_script_and_grants_as_it_says(
    connect: Connect, settings: Settings, postgres_url: str, key: SessionKey
) -> None:
    """The user of the application then owns nothing and may create nothing."""
    schema, user = f'by "hand" {uuid4()}', f"app-{uuid4()}"
    run_psql(postgres_url, schema)
    await administer(
        postgres_url, SQL("CREATE ROLE {} LOGIN").format(Identifier(user)).as_string()
    )
    for grant in (
        "GRANT USAGE ON SCHEMA {schema} TO {user}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {user}",
    ):
        text = SQL(grant).format(schema=Identifier(schema), user=Identifier(user))
        await administer(postgres_url, text.as_string())
    before = await relations(postgres_url, schema)
    theirs = make_conninfo(settings.conninfo, user=user)
    for setup in (False, True):
        await use(connect, key, schema=schema, conninfo=theirs, setup=setup)
    assert await relations(postgres_url, schema) == before
    with pytest.raises(Unavailable, match="privilege") as refused:
        await connect(schema=f"{schema[:40]} 2", conninfo=theirs).open()
    assert refused.value.lasting


def run_psql(url: str, schema: str) -> None:
    script = files("perdure_postgres").joinpath("sql", "schema.sql").read_text()
    options = ["-v", "ON_ERROR_STOP=1", "-v", f"schema={schema}", "--single-transaction"]
    program = shutil.which("psql") or str(_programs() / "psql")
    done = subprocess.run(
        [program, "--no-psqlrc", *options, "-f", "-", url],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("administrator")
async def test_who_may_not_make_schemas_may_fill_one(
    connect: Connect, settings: Settings, postgres_url: str, key: SessionKey, schema: str
) -> None:
    user = f"app-{uuid4()}"
    await administer(
        postgres_url, SQL("CREATE ROLE {} LOGIN").format(Identifier(user)).as_string()
    )
    text = SQL("CREATE SCHEMA {schema} AUTHORIZATION {user}")
    await administer(
        postgres_url, text.format(schema=Identifier(schema), user=Identifier(user)).as_string()
    )
    await use(connect, key, schema=schema, conninfo=make_conninfo(settings.conninfo, user=user))


async def test_a_newer_format_is_refused_and_left_alone(
    connect: Connect, postgres_url: str, schema: str, key: SessionKey
) -> None:
    await write(connect(schema=schema), key, puts=((b"a", b"1"),))
    stamp = in_schema("UPDATE {schema}.perdure_format SET format = %s", schema)
    await administer(postgres_url, stamp, FORMAT + 1)
    backend = connect(schema=schema)
    for attempt in (backend.open(), write(backend, key), backend.read(key), backend.sweep()):
        with pytest.raises(FormatTooNew, match=f"format {FORMAT + 1}"):
            await attempt
    await administer(postgres_url, stamp, FORMAT)
    assert await read_values(connect(schema=schema), key) == {b"a": b"1"}


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE {schema}.sessions (id serial PRIMARY KEY, user_name text)",
        "CREATE VIEW {schema}.items AS SELECT 1 AS item",
        "CREATE SEQUENCE {schema}.commits",
    ],
)
async def test_what_belongs_to_something_else_is_refused_and_left_alone(
    connect: Connect,
    postgres_url: str,
    schema: str,
    key: SessionKey,
    statement: LiteralString,
) -> None:
    await administer(postgres_url, in_schema("CREATE SCHEMA {schema}", schema))
    await administer(postgres_url, in_schema(statement, schema))
    before = await relations(postgres_url, schema)
    for setup in (True, False):
        with pytest.raises(Corrupt, match="did not make") as refused:
            await write(connect(schema=schema, setup=setup), key)
        assert "?schema=" in str(refused.value)
    assert await relations(postgres_url, schema) == before


async def test_tables_of_others_may_be_beside_ours(
    connect: Connect, postgres_url: str, schema: str, key: SessionKey
) -> None:
    await administer(postgres_url, in_schema("CREATE SCHEMA {schema}", schema))
    await administer(postgres_url, in_schema("CREATE TABLE {schema}.users (id int)", schema))
    await use(connect, key, schema=schema)


@pytest.mark.parametrize("stamps", [[], [0], [1, 1]])
async def test_a_stamp_that_nobody_makes_is_refused(
    connect: Connect, postgres_url: str, schema: str, stamps: list[int]
) -> None:
    await administer(postgres_url, in_schema("CREATE SCHEMA {schema}", schema))
    await administer(
        postgres_url, in_schema("CREATE TABLE {schema}.perdure_format (format int)", schema)
    )
    for stamp in stamps:
        insert = in_schema("INSERT INTO {schema}.perdure_format VALUES (%s)", schema)
        await administer(postgres_url, insert, stamp)
    with pytest.raises(Corrupt, match="stamp"):
        await connect(schema=schema).open()


@pytest.mark.usefixtures("administrator")
async def test_setup_that_fails_half_way_leaves_nothing(
    connect: Connect, postgres_url: str, schema: str
) -> None:
    """An event trigger stands for a server that dies, or a disk that is full, on the way."""
    await administer(
        postgres_url,
        "CREATE FUNCTION public.refuse_stages() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF current_query() LIKE '%%.stages (%%' THEN RAISE disk_full; END IF; END $$",
    )
    await administer(
        postgres_url,
        "CREATE EVENT TRIGGER refuse ON ddl_command_start "
        "EXECUTE FUNCTION public.refuse_stages()",
    )
    try:
        with pytest.raises(Unavailable, match="53100"):
            await connect(schema=schema).open()
        assert await relations(postgres_url, schema) == []
    finally:
        await administer(postgres_url, "DROP EVENT TRIGGER refuse")
        await administer(postgres_url, "DROP FUNCTION public.refuse_stages()")
    await connect(schema=schema).open()


def test_the_script_makes_one_thing_per_statement() -> None:
    """It is split at semicolons."""
    statements = [statement.query.decode() for statement in schema_script("s")]
    assert all(text.startswith(("CREATE ", "ALTER ", "INSERT ")) for text in statements)
    assert statements[0].startswith("CREATE SCHEMA")
    assert statements[1].startswith('CREATE TABLE "s".perdure_format')
