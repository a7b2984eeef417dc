"""Creating the file, recognising it, and refusing what is not ours."""

import asyncio
import hashlib
import os
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest

from perdure.backend import Durability
from perdure.errors import Corrupt, FormatTooNew, Outcome, PerdureError, Unavailable
from perdure.testing.shorthand import read_head, read_items, write
from perdure.types import Append, SessionKey

from perdure_sqlite.backend import SqliteBackend
from perdure_sqlite.file import APPLICATION_ID, FORMAT, schema
from tests.backends.sqlite.children import begin, line, spawn
from tests.backends.sqlite.conftest import Connect, names_in, size_of

STATEMENTS = [statement for part in schema() for statement in part]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def damage(path: Path, pages: range) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def refused(path: Path, key: SessionKey, error: type[PerdureError]) -> str:
    """Every operation is refused with ``error``, which says so, and the file stays as it is."""
    before = digest(path)
    backend = SqliteBackend(path)
    for operation in (backend.open, backend.describe, lambda: backend.read(key)):
        with pytest.raises(error, match=path.name):
            await operation()
    with pytest.raises(error) as caught:
        await write(backend, key)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    await backend.aclose()
    assert digest(path) == before
    return str(caught.value)


async def test_making_a_backend_does_no_io(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "new" / "sessions.db")
    assert names_in(tmp_path) == []
    await backend.open()
    assert "sessions.db" in names_in(tmp_path / "new")
    await backend.aclose()


async def test_a_directory_that_it_creates_is_private(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / ".perdure" / "sessions.db")
    await backend.open()
    await backend.aclose()
    assert mode_of(tmp_path / ".perdure") == 0o700


async def test_a_relative_path_stays_the_same_file(
    tmp_path: Path, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = SqliteBackend("a?b#c%20 ü.db")
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    await write(backend, key)
    await backend.read(key)
    await backend.aclose()
    assert names_in(tmp_path) == ["a?b#c%20 ü.db", "elsewhere"]
    assert names_in(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("_", range(3))
async def test_eight_processes_may_start_on_a_missing_file_at_once(
    path: Path, backend: SqliteBackend, _: int
) -> None:
    children = [await spawn("first", path) for _ in range(8)]
    for child in children:
        await begin(child)
    versions = [int(await line(child)) for child in children]
    assert [await child.wait() for child in children] == [0] * 8
    assert sorted(versions) == list(range(1, 9))
    shared = SessionKey("t", "session", "shared")
    assert len(await read_items(backend, shared)) == 8


async def test_many_backends_may_start_on_a_missing_file_at_once(
    connect: Connect, key: SessionKey
) -> None:
    backends = [connect() for _ in range(12)]
    await asyncio.gather(
        *(write(backend, key, appends=(Append(b"log", (b"x",)),)) for backend in backends)
    )
    assert (await read_head(backends[0], key)).version == 12


async def test_the_stamp_and_the_mode_of_a_new_file(path: Path, backend: SqliteBackend) -> None:
    await backend.open()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA page_size").fetchone() == (4096,)
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (0,)


async def test_no_file_without_setup(connect: Connect, path: Path, key: SessionKey) -> None:
    backend = connect(setup=False)
    with pytest.raises(Unavailable, match="setup is off"):
        await backend.read(key)
    with pytest.raises(Unavailable, match="setup is off"):
        await write(backend, key)
    assert names_in(path.parent) == []


async def test_no_tables_without_setup(connect: Connect, path: Path, key: SessionKey) -> None:
    make(path, b"")
    backend = connect(setup=False)
    with pytest.raises(Unavailable, match=r"setup is off: run schema\.sql"):
        await write(backend, key)
    assert size_of(path) == 0


async def test_what_schema_sql_makes_serves_without_setup(
    connect: Connect, path: Path, key: SessionKey
) -> None:
    script = resources.files("perdure_sqlite").joinpath("sql", "schema.sql")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(script.read_text(encoding="utf-8"))
    backend = connect(setup=False)
    await write(backend, key)
    assert (await read_head(backend, key)).version == 1


async def test_another_applications_database_is_left_alone(path: Path, key: SessionKey) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    assert "another application" in await refused(path, key, Corrupt)


async def test_another_applications_empty_database_is_left_alone(
    path: Path, key: SessionKey
) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 252006673")
    assert "another application" in await refused(path, key, Corrupt)


async def test_a_newer_format_is_not_touched(path: Path, key: SessionKey) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in STATEMENTS:
            db.execute(statement)
        db.execute("PRAGMA user_version = 2")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert "format 2" in await refused(path, key, FormatTooNew)


@pytest.mark.parametrize(
    "content", [b"not a database", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000]
)
async def test_a_file_that_is_no_database_is_left_alone(
    path: Path, key: SessionKey, content: bytes
) -> None:
    make(path, content)
    await refused(path, key, Corrupt)


async def test_a_truncated_database_is_refused(path: Path, key: SessionKey) -> None:
    backend = SqliteBackend(path)
    for _ in range(100):
        await write(backend, key, appends=(Append(b"log", (b"." * 3000,)),))
    await backend.aclose()
    os.truncate(path, size_of(path) // 2 // 4096 * 4096)
    await refused(path, key, Corrupt)


async def test_a_damaged_page_is_reported_by_the_read_that_meets_it(
    path: Path, key: SessionKey
) -> None:
    backend = SqliteBackend(path)
    for _ in range(100):
        await write(backend, key, appends=(Append(b"log", (b"." * 3000,)),))
    await backend.aclose()
    damage(path, range(20, 60))
    backend = SqliteBackend(path)
    with pytest.raises(Corrupt, match=r"sessions\.db is damaged"):
        await read_items(backend, key)
    await backend.aclose()


async def test_a_directory_is_no_file(tmp_path: Path, key: SessionKey) -> None:
    backend = SqliteBackend(tmp_path)
    with pytest.raises(Unavailable, match="is a directory, not a file"):
        await backend.read(key)
    await backend.aclose()


async def test_a_directory_that_cannot_be_made_is_unavailable_until_it_can(
    tmp_path: Path, key: SessionKey
) -> None:
    make(tmp_path / "in-the-way", b"")
    backend = SqliteBackend(tmp_path / "in-the-way" / "sessions.db")
    with pytest.raises(Unavailable, match="cannot be created"):
        await write(backend, key)
    os.unlink(tmp_path / "in-the-way")
    assert (await write(backend, key)).version == 1
    await backend.aclose()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write anything"
)
async def test_a_file_without_permission_is_unavailable_until_it_has(
    path: Path, key: SessionKey
) -> None:
    backend = SqliteBackend(path)
    await write(backend, key)
    await backend.aclose()
    os.chmod(path, 0o400)
    backend = SqliteBackend(path)
    with pytest.raises(Unavailable, match="permissions"):
        await write(backend, key)
    for name in names_in(path.parent):  # SQLite gives its other files the same permissions
        os.chmod(path.with_name(name), 0o600)
    assert (await write(backend, key)).version == 2
    await backend.aclose()


async def test_durability_is_what_synchronous_says(connect: Connect) -> None:
    for synchronous, durability, level in (
        ("full", Durability.HOST, 2),
        ("normal", Durability.PROCESS, 1),
    ):
        backend = connect(synchronous=synchronous)
        assert backend.capabilities.durability is durability
        await backend.open()
        for db in backend._writer.connections():
            assert db.execute("PRAGMA synchronous").fetchone() == (level,)


async def test_describe_says_where_and_how(backend: SqliteBackend, path: Path) -> None:
    description = await backend.describe()
    assert description.backend == "sqlite"
    assert description.location == str(path)
    assert description.details["sqlite"] == sqlite3.sqlite_version
    assert description.details["journal mode"] == "wal"
    assert description.details["synchronous"] == "full"
    assert description.details["format"] == "1"
    assert int(description.details["size"].removesuffix(" bytes")) >= 4096
    assert ("warning" in description.details) == (sqlite3.sqlite_version_info < (3, 51, 3))
