"""``du``, ``sweep``, ``verify``, ``rm`` of many: what they tell, and what they leave alone."""

import random
import sqlite3
from pathlib import Path

import msgspec
import pytest

from perdure import Store
from perdure.backend import Backend
from perdure.encryption import KeyRing
from perdure.encryption.keys import KEYS_VARIABLE
from perdure.testing.faults import Forwarding
from perdure.types import Item, Read, Rows, Scan, SessionKey, Snapshot

from perdure_cli.verification import verify_all
from perdure_memory.backend import MemoryBackend
from tests.contrib.cli.command import Command, plain, run_in_terminal, run_process

NOISE = random.Random(7).randbytes(5000)
"""Is stored in as many bytes."""


async def furnish(store: Store) -> None:
    """Sessions of two tenants and three kinds."""
    acme = store.tenant("acme")
    await acme.session("small").append("a")
    await acme.session("large").append(NOISE, "b")
    await acme.session("large").attachments.put(bytes(range(256)) * 1000)
    await acme.kind("draft").session("plan").save({"steps": [1, 2]})
    await acme.kind("draft").session("plan").set(labels=("red",))
    await store.session("mine").append(1)
    await store.session("mine").set(labels=("red",))


ALL = {"small", "large", "plan", "mine"}


def all_ids(command: Command) -> set[str]:
    async def walk(store: Store) -> set[str]:
        return {
            entry.key.id
            async for tenant in store.tenants()
            async for kind in store.tenant(tenant).kinds()
            async for entry in store.tenant(tenant).kind(kind).list()
        }

    return command.do(walk)


# du


def test_du_adds_up(command: Command) -> None:
    command.do(furnish)
    rows = command("du").rows
    kinds = [row for row in rows if row[0] == "kind"]
    sessions = [row for row in rows if row[0] == "session"]
    ((*_, count, items, size),) = (row for row in rows if row[0] == "total")
    assert sorted(tuple(row[1:5]) for row in kinds) == [
        ("acme", "draft", "-", "1"),
        ("acme", "session", "-", "2"),
        ("default", "session", "-", "1"),
    ]
    assert sessions[0][3] == "large"
    assert {row[3] for row in sessions} == ALL
    for column, total in ((5, items), (6, size)):
        assert sum(int(row[column]) for row in kinds) == int(total)
        assert sum(int(row[column]) for row in sessions) == int(total)
    assert count == "4"
    assert [int(row[6]) for row in kinds] == sorted(
        (int(row[6]) for row in kinds), reverse=True
    )


def test_du_counts_what_is_stored(command: Command, tmp_path: Path) -> None:
    command.do(furnish)
    (total,) = (line for line in command("du", "--json").json if line["of"] == "total")
    with sqlite3.connect(tmp_path / "sessions.db") as database:
        query = "SELECT COUNT(*), SUM(LENGTH(key) + LENGTH(value)) FROM items"
        assert (total["items"], total["bytes"]) == database.execute(query).fetchone()
    database.close()


def test_du_narrows_and_limits_what_it_tells(command: Command) -> None:
    command.do(furnish)
    lines = command("du", "--json", "--tenant", "acme", "--top", "1").json
    assert [(line["of"], line.get("session")) for line in lines] == [
        ("kind", None),
        ("kind", None),
        ("session", "large"),
        ("total", None),
    ]
    assert lines[-1]["sessions"] == 3
    lines = command("du", "--json", "--kind", "draft", "--top", "0").json
    assert [line["of"] for line in lines] == ["kind", "total"]
    assert lines[-1]["sessions"] == 1


def test_du_of_nothing(command: Command) -> None:
    assert command("du").rows == [["total", "-", "-", "-", "0", "0", "0"]]


def test_du_on_a_terminal_is_two_tables(command: Command, tmp_path: Path) -> None:
    command.do(furnish)
    shown = plain(run_in_terminal("--url", command.url, "du", "--top", "1", cwd=tmp_path).out)
    assert shown.split("\n")[0].split() == ["tenant", "kind", "sessions", "items", "size"]
    assert "largest sessions" in shown
    assert shown.rstrip().endswith("KiB")


# sweep


def test_sweep_removes_what_has_expired(command: Command) -> None:
    async def make(store: Store) -> None:
        await store.session("a").append(1)
        await store.session("a").cells.put("gone", 1, expires_in=0.001)
        await store.session("b").append(1)
        await store.session("b").set(expires_in=0.001)

    command.do(make)
    swept = command("sweep", "--json")
    assert swept.code == 0
    assert swept.json[0]["removed"] >= 2
    assert command("sweep").lines == ["nothing to remove"]
    assert command.log("a") == [1]


# verify


def test_verify_finds_nothing_wrong_where_nothing_is(command: Command) -> None:
    command.do(furnish)
    verified = command("verify")
    assert verified.code == 0
    assert {(row[0], row[3], row[6]) for row in verified.rows} == {
        (id, "well", "0") for id in ALL
    }
    assert verified.err.endswith("read: all is well\n")
    assert verified.err.startswith("4 sessions, ")


def damage(path: Path, query: str) -> None:
    with sqlite3.connect(path) as database:
        assert database.execute(query).rowcount == 1
    database.close()


DAMAGES = {
    "an entry": "UPDATE items SET value = substr(value, 1, length(value) - 1) "
    "WHERE key > x'6c00' AND key < x'6d' AND length(value) > 5000",
    "a part of an attachment": "UPDATE items SET value = CAST(substr(value, 1, 50) || x'ff' "
    "|| substr(value, 52) AS BLOB) WHERE key > x'62' AND key < x'63'",
    "a part of an attachment that is missing": "DELETE FROM items "
    "WHERE key > x'62' AND key < x'63'",
    "a document": "UPDATE items SET value = substr(value, 1, length(value) - 1) "
    "WHERE key = x'64'",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_verify_finds_what_is_damaged(what: str, command: Command, tmp_path: Path) -> None:
    command.do(furnish)
    damage(tmp_path / "sessions.db", DAMAGES[what])
    verified = command("verify", "--json")
    assert verified.code == 1
    damaged = [line for line in verified.json if line["problems"]]
    assert len(damaged) == 1
    assert {line["session"] for line in verified.json} == ALL
    told = verified.err.splitlines()
    assert len(told) == len(damaged[0]["problems"]) + 1
    assert told[0].startswith(f"perdure: '{damaged[0]['session']}' (acme, ")
    assert told[-1].endswith("read: 1 session damaged")
    assert command("verify", "small", "--tenant", "acme").code == 0


async def everything(store: Store) -> None:
    """A session with an item of every kind, and a fork of it."""
    session = store.session("s")
    await session.append({"role": "user"}, "b")
    at = await session.append("c", key="webhook")
    await session.derive("summary", "abc", at=at)
    for n in range(2):
        await session.stream("sub").append(n)
    await session.cells.put("cell", [1], expires_in=3600)
    await session.save({"page": 1})
    await session.attachments.put(b"hello", media_type="text/plain")
    await session.attachments.put(b"")
    await session.fork("f")
    async with session.turn(exclusive=True) as turn:
        turn.append("d")


class Flipping(Forwarding):
    """Shows one item with one byte changed."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.flipped: tuple[SessionKey, bytes, int] | None = None

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await super().read(key, *reads)
        rows = tuple(Rows([self._flip(key, i) for i in r.items], r.more) for r in snapshot.rows)
        return msgspec.structs.replace(snapshot, rows=rows)

    def _flip(self, key: SessionKey, item: Item) -> Item:
        if self.flipped is None or self.flipped[:2] != (key, item.key):
            return item
        value = bytearray(item.value)
        value[self.flipped[2]] ^= 1
        return Item(item.key, bytes(value), item.version)


@pytest.mark.parametrize("keys", [None, KeyRing.generate("one")], ids=["plain", "sealed"])
async def test_verify_tells_of_every_byte_that_a_check_covers_and_stops_at_none(
    keys: str | None,
) -> None:
    flipping = Flipping(MemoryBackend())
    store = Store(flipping, keys=keys)
    await everything(store)
    missed: set[bytes] = set()
    for key in (store.key("s"), store.key("f")):
        verified = await verify_all(store, key)
        assert verified is not None
        assert verified.problems == ()
        stored = (await flipping.backend.read(key, Scan())).rows[0].items
        for item, at in [(each, at) for each in stored for at in range(len(each.value))]:
            flipping.flipped = (key, item.key, at)
            verified = await verify_all(store, key)
            assert verified is not None
            if not verified.problems:
                missed.add(item.key[:1])
        flipping.flipped = None
    # In plain, digests are kept of the document and of what is attached only.
    assert missed == (set() if keys else missed - {b"b", b"d"})


def test_verify_checks_only_what_was_named(command: Command) -> None:
    command.do(furnish)
    assert [row[0] for row in command("verify", "mine").rows] == ["mine"]
    assert [row[0] for row in command("verify", "--kind", "draft").rows] == ["plan"]
    assert command("verify", "nobody").error().startswith("there is no session 'nobody'")


def test_verify_of_an_encrypted_store(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, KeyRing.generate("one"))
    command.do(furnish)
    assert command("verify").code == 0
    path = tmp_path / "sessions.db"
    damage(
        path,
        "UPDATE items SET value = CAST(substr(value, 1, 4000) || x'00' || "
        "substr(value, 4002) AS BLOB) "
        "WHERE key > x'6c00' AND key < x'6d' AND length(value) > 5000",
    )
    verified = command("verify")
    assert verified.code == 1
    assert [row[0] for row in verified.rows if row[3] == "damaged"] == ["large"]


def test_verify_without_the_keys_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, KeyRing.generate("one"))
    command.put("a", 1)
    monkeypatch.delenv(KEYS_VARIABLE)
    verified = command("verify")
    assert verified.code == 1
    (said, total) = verified.err.splitlines()
    assert "open the store with its keys" in said
    assert total.endswith("1 session damaged")


# rm


def test_rm_of_a_tenant_takes_every_kind_of_it_and_nothing_else(command: Command) -> None:
    command.do(furnish)
    removed = command("rm", "--tenant", "acme", "--yes")
    assert (removed.code, removed.lines) == (0, ["deleted 3 sessions of acme"])
    assert all_ids(command) == {"mine"}
    (line,) = command("rm", "--tenant", "acme", "--yes", "--json").json
    assert line == {"tenant": "acme", "label": None, "deleted": 0}


def test_rm_of_a_label_stays_within_a_tenant(command: Command) -> None:
    command.do(furnish)
    assert command("rm", "--label", "red", "--tenant", "acme", "--yes").code == 0
    assert all_ids(command) == {"small", "large", "mine"}
    assert command("rm", "--label", "red", "--yes").code == 0
    assert all_ids(command) == {"small", "large"}


def test_rm_with_forks(command: Command) -> None:
    async def make(store: Store) -> None:
        await store.session("a").append(1)
        await store.session("a").fork("b")
        await store.session("c").append(1)

    command.do(make)
    assert command("rm", "--forks", "--yes", "a").lines == ["deleted a with its forks"]
    assert command.ids() == ["c"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name sessions by their ids, or all of them by --tenant or --label"),
        (("--yes",), "name sessions by their ids, or all of them by --tenant or --label"),
        (("--kind", "draft", "--yes"), "name sessions by their ids"),
        (("a", "--label", "red", "--yes"), "give ids or --label, not both"),
        (("--tenant", "acme", "--kind", "draft", "--yes"), "--tenant and --label take every"),
        (("--tenant", "acme", "--forks", "--yes"), "--tenant and --label take every"),
        (("--tenant", "acme"), "rm deletes for good: without a terminal"),
    ],
)
def test_rm_that_is_not_clear_deletes_nothing(
    arguments: tuple[str, ...], said: str, command: Command, tmp_path: Path
) -> None:
    command.do(furnish)
    done = run_process("rm", "--url", command.url, *arguments, cwd=tmp_path)
    assert done.error(2).startswith(said)
    assert all_ids(command) == ALL


def test_rm_of_a_tenant_asks_first(command: Command, tmp_path: Path) -> None:
    command.do(furnish)
    arguments = ("--url", command.url, "rm", "--tenant", "acme")
    asked = run_in_terminal(*arguments, cwd=tmp_path, typed="n\n")
    assert "Delete all sessions of the tenant acme, of every kind, for good?" in plain(
        asked.out
    )
    assert asked.code == 1
    assert all_ids(command) == ALL
    assert run_in_terminal(*arguments, cwd=tmp_path, typed="y\n").code == 0
    assert all_ids(command) == {"mine"}
