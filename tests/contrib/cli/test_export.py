"""Exporting: nothing lost on the way to a file and back into another store."""

import asyncio
import base64
import hashlib
import json
import os
import stat
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import Store

from perdure_cli.errors import CommandError
from perdure_cli.export import export_to
from perdure_cli.load import import_files
from perdure_cli.target import Target
from perdure_memory.backend import MemoryBackend
from tests.contrib.cli.command import Command, contents
from tests.contrib.cli.test_values import LOOKALIKES
from tests.core.codec.values import exact, extended, scalars, texts
from tests.core.wrappers import Narrow

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)
FAR_OFF = datetime(2200, 1, 1, tzinfo=UTC)
stored = st.recursive(
    scalars | extended | LOOKALIKES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
sessions = st.fixed_dictionaries(
    {
        "entries": st.lists(stored, max_size=4),
        "cells": st.dictionaries(names, stored, max_size=2),
        "streams": st.dictionaries(names, st.lists(stored, min_size=1, max_size=2), max_size=2),
        "attachments": st.dictionaries(st.binary(max_size=9), st.none() | names, max_size=2),
        "document": st.lists(stored, max_size=1),
        "labels": st.lists(names, max_size=4, unique=True),
        "meta": st.binary(max_size=40),
        "expires_at": st.none()
        | st.integers(0, 10**12).map(lambda ms: FAR_OFF + timedelta(milliseconds=ms)),
    }
)


async def fill(backend: MemoryBackend, made: dict[str, dict[str, Any]]) -> None:
    store = Store(backend)
    for id, session in made.items():
        handle = store.session(id)
        await handle.set(
            labels=tuple(session["labels"]),
            meta=session["meta"],
            expires_at=session["expires_at"],
        )
        if session["entries"]:
            await handle.append(*session["entries"])
        for name, values in session["streams"].items():
            await handle.stream(name).append(*values)
        for name, value in session["cells"].items():
            await handle.cells.put(name, value)
        for data, media_type in session["attachments"].items():
            await handle.attachments.put(data, media_type=media_type)
        for document in session["document"]:
            await store.save(id, document)


async def everything(backend: MemoryBackend) -> dict[str, Any]:
    store = Store(backend)
    return {
        entry.key.id: {
            name: exact(value)
            for name, value in (await contents(store.session(entry.key.id))).items()
        }
        async for entry in store.list()
    }


async def import_from(store: Store, *files: Path) -> None:
    await import_files(
        store,
        target=Target(),
        as_json=True,
        files=tuple(map(str, files)),
        id=None,
        append=False,
        lines=False,
    )


@settings(max_examples=40)
@given(st.dictionaries(names, sessions, min_size=1, max_size=2))
def test_what_is_exported_and_imported_is_the_same(made: dict[str, dict[str, Any]]) -> None:
    async def run(directory: Path) -> None:
        first, second = MemoryBackend(), MemoryBackend()
        await fill(first, made)
        before = await everything(first)
        assert before.keys() == made.keys()

        exported, again = directory / "1.jsonl", directory / "2.jsonl"
        await export_to(Store(first), target=Target(), output=str(exported))
        await import_from(Store(second), exported)
        assert await everything(second) == before

        # And again: nothing is added, and the same lines come out.
        heads = [entry.head.version async for entry in Store(second).list()]
        await import_from(Store(second), exported)
        assert [entry.head.version async for entry in Store(second).list()] == heads
        await export_to(Store(second), target=Target(), output=str(again))
        assert told(again) == told(exported)

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


def told(path: Path) -> list[dict[str, Any]]:
    """The lines of an export, without what tells of the store it came from."""
    facts = {"version", "incarnation", "created_at", "updated_at", "uploaded_at"}
    return [
        {name: value for name, value in json.loads(line).items() if name not in facts}
        for line in path.read_text().splitlines()
    ]


# The format


def test_the_lines_are_as_documented(command: Command, tmp_path: Path) -> None:
    async def make(store: Store) -> None:
        session = store.session("chat-7")
        await session.append({"role": "user", "content": "Hello"}, b"hi")
        await session.cells.put("step", 1)
        await session.stream("sub").append("beside")
        await session.cells.put("soon", 2, expires_in=3600)
        await session.attachments.put(b"bytes", media_type="text/plain")
        await store.save("chat-7", None)
        await session.set(labels=("a", "b"), meta=b"m")

    command.do(make)
    begin, *rest = command("export").json
    assert list(begin)[:4] == ["perdure", "session", "kind", "tenant"]
    assert begin["perdure"] == 2
    assert (begin["session"], begin["kind"], begin["tenant"]) == (
        "chat-7",
        "session",
        "default",
    )
    assert (begin["version"], begin["labels"], begin["expires_at"]) == (7, ["a", "b"], None)
    assert begin["meta"] == {"$bytes": "bQ=="}
    moment = datetime.fromisoformat(rest[1].pop("expires_at"))
    assert timedelta(minutes=59) < moment - datetime.now(UTC) < timedelta(minutes=61)
    datetime.fromisoformat(rest[6].pop("uploaded_at"))
    assert rest == [
        {"document": None},
        {"cell": "soon", "value": 2},
        {"cell": "step", "value": 1},
        {"entry": {"role": "user", "content": "Hello"}},
        {"entry": {"$bytes": "aGk="}},
        {"entry": "beside", "stream": "sub"},
        {
            "attachment": hashlib.sha256(b"bytes").hexdigest(),
            "size": 5,
            "media_type": "text/plain",
        },
        {"bytes": "Ynl0ZXM="},
        {"end": "chat-7", "entries": 3, "cells": 2, "attachments": 1},
    ]


def test_a_large_attachment_comes_and_goes_in_pieces(command: Command, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)

    async def put(store: Store) -> None:
        await store.session("a").attachments.put(data)

    async def read(store: Store) -> list[bytes]:
        attachments = store.session("b").attachments
        return [await attachments.read(found.digest) for found in await attachments.list()]

    command.do(put)
    path = tmp_path / "export.jsonl"
    command("export", "-o", path)
    assert max(map(len, path.read_text().splitlines())) < 400_000
    assert command("import", "--id", "b", path).code == 0
    assert command.do(read) == [data]
    version = command("ls", "--prefix", "b").rows[0][1]
    assert command("import", "--id", "b", path).code == 0  # again: it is there
    assert command("ls", "--prefix", "b").rows[0][1] == version


def test_expiring_cells_expire_where_they_are_imported(
    command: Command, tmp_path: Path
) -> None:
    async def make(store: Store) -> None:
        session = store.session("a")
        await session.append(1)
        await session.cells.put("later", 1, expires_in=3600)
        await session.cells.put("soon", 2, expires_in=0.2)

    command.do(make)
    path = tmp_path / "export.jsonl"
    command("export", "-o", path)
    time.sleep(0.25)
    assert command("import", "--id", "b", path).code == 0
    assert command.cells("b") == {"later": 1}
    (line,) = (line for line in command("export", "b").json if "cell" in line)
    (was,) = (
        line
        for line in map(json.loads, path.read_text().splitlines())
        if line.get("cell") == "later"
    )
    apart = datetime.fromisoformat(line["expires_at"]) - datetime.fromisoformat(
        was["expires_at"]
    )
    assert apart == timedelta(0)


def test_a_tenant_is_exported_with_all_its_kinds(command: Command, tmp_path: Path) -> None:
    async def make(store: Store) -> None:
        for tenant, kind, id in (
            ("acme", "draft", "a"),
            ("acme", "session", "b"),
            ("acme", "session", "c"),
            ("other", "session", "d"),
        ):
            await store.tenant(tenant).kind(kind).session(id).append(1)
        await store.tenant("acme").session("c").set(labels=("red",))

    command.do(make)

    def ids(*arguments: str) -> list[str]:
        lines = command("export", *arguments).json
        return [line["end"] for line in lines if "end" in line]

    assert ids("--tenant", "acme") == ["a", "b", "c"]
    assert ids("--tenant", "acme", "--kind", "draft") == ["a"]
    assert ids("--tenant", "acme", "--label", "red") == ["c"]
    assert ids() == []
    assert command("export", "--label", "red", "a").error(2).startswith("give ids or --label")


def test_exports_of_the_first_version_are_read(command: Command, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"perdure": 1, "session": "a", "kind": "session", "tenant": "default"},
        {"entry": 1},
        {"cell": "step", "value": 2},
        {"end": "a", "entries": 1, "cells": 1},
    ]
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert command("import", path).code == 0
    assert command.log("a") == [1]
    assert command.cells("a") == {"step": 2}


def test_lineage_is_told(command: Command) -> None:
    async def make(store: Store) -> None:
        parent = store.session("parent")
        position = await parent.append(1)
        await parent.append(2)
        await parent.fork("child", at=position)

    command.do(make)
    begin, entry, _ = command("export", "child").json
    assert begin["lineage"]["session"] == "parent"
    assert entry == {"entry": 1}


def test_members_of_a_later_version_of_format_1_are_ignored(
    command: Command, tmp_path: Path
) -> None:
    command.put("a", 1, 2)
    lines = command("export").json
    for line in lines:
        line["new"] = {"$later": True}
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert command("import", "--id", "b", path).code == 0
    assert command.log("b") == [1, 2]


def test_a_tenant_of_the_export_is_kept_unless_another_is_named(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "export.jsonl"

    async def make(store: Store) -> None:
        await store.tenant("acme").kind("draft").session("a").append(1)

    command.do(make)
    command("export", "--tenant", "acme", "--kind", "draft", "-o", path)
    (report,) = command("import", "--json", "--id", "b", path).json
    assert (report["tenant"], report["kind"]) == ("acme", "draft")
    (report,) = command("import", "--json", "--tenant", "other", path).json
    assert (report["tenant"], report["kind"]) == ("other", "draft")


def test_an_expiry_that_has_passed_is_not_restored(command: Command, tmp_path: Path) -> None:
    command.put("a", 1)
    begin, *rest = command("export").json
    begin["expires_at"] = "2001-01-01T00:00:00Z"
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [begin, *rest]))
    done = command("import", "--id", "b", path)
    assert done.code == 0
    assert done.err == (
        f"perdure: {path}:1: session 'a' expired at 2001-01-01T00:00:00+00:00; it is imported "
        "without expiry\n"
    )
    assert command.log("b") == [1]


def test_cells_too_large_for_the_store_are_refused_before_anything_is_written(
    command: Command, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [
        {"perdure": 1, "session": "a", "kind": "session", "tenant": "default"},
        {"entry": 1},
        {"cell": "big", "value": os.urandom(9_000_000).hex()},
        {"cell": "dull", "value": "x" * 18_000_000},
        {"end": "a", "entries": 1, "cells": 2},
    ]
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert command("import", path).code == 0  # both fit once they are compressed
    lines[2]["value"] = {"$bytes": base64.b64encode(os.urandom(17_000_000)).decode()}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = command("import", "--id", "b", path).error()
    assert said == f"{path}:3: cell 'big' is too large for this store"
    assert command.ids() == ["a"]


@pytest.mark.parametrize("change", ["cut", "delete"])
def test_a_session_cut_or_deleted_meanwhile_is_not_exported_by_halves(
    change: str, tmp_path: Path
) -> None:
    async def export() -> None:
        backend = MemoryBackend()
        other = Store(backend).session("a")
        for n in range(20):
            await other.append(os.urandom(100), n)

        async def act() -> None:
            await (other.clear() if change == "cut" else other.delete())

        narrow = Narrow(backend)
        narrow.between.append(act)
        output = str(tmp_path / "export.jsonl")
        with pytest.raises(CommandError, match="'a' was cut or deleted while it was exported"):
            await export_to(Store(narrow), target=Target(), output=output)
        assert narrow.between == []

    asyncio.run(export())
    assert list(tmp_path.iterdir()) == []


# The file


def test_without_ids_all_sessions_are_exported_and_with_ids_those(command: Command) -> None:
    for id in ("a", "b", "c"):
        command.put(id, 1)
    assert [line["end"] for line in command("export").json if "end" in line] == ["a", "b", "c"]
    some = command("export", "c", "a", "c").json
    assert [line["end"] for line in some if "end" in line] == ["c", "a"]


def test_a_missing_session_is_an_error_before_anything_is_written(
    command: Command, tmp_path: Path
) -> None:
    command.put("a", 1)
    done = command("export", "a", "b", "-o", tmp_path / "export.jsonl")
    assert done.error() == "there is no session 'b' (tenant 'default', kind 'session')"
    assert done.out == ""
    assert not (tmp_path / "export.jsonl").exists()


def test_a_file_is_for_its_owner_and_keeps_the_permissions_it_has(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "export.jsonl"
    command.put("a", 1)
    done = command("export", "-o", path)
    assert done.err == f"exported 1 session to {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    command.put("b", 1)
    command("export", "-o", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == command("export").out
    assert sorted(file.name for file in tmp_path.glob("*export*")) == ["export.jsonl"]


def test_a_link_stays_one(command: Command, tmp_path: Path) -> None:
    command.put("a", 1)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    command("export", "-o", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == command("export").out


def test_what_is_no_file_is_written_to_and_not_replaced(
    command: Command, tmp_path: Path
) -> None:
    command.put("a", 1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert command("export", "-o", pipe).code == 0
    assert os.read(end, 65_536).decode() == command("export").out
    os.close(end)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("output", "code", "reason"),
    [
        ("{0}", 2, "--output is to name a file; {0!r} is none"),
        ("", 2, "--output is to name a file; '' is none"),
        ("{0}/missing/a", 1, "{0}/missing/a: No such file or directory"),
    ],
)
def test_where_nothing_can_be_written_is_said(
    command: Command, tmp_path: Path, output: str, code: int, reason: str
) -> None:
    command.put("a", 1)
    done = command("export", "-o", output.format(str(tmp_path)))
    assert done.error(code) == reason.format(str(tmp_path))
