"""Whoever has the database and not the keys: what they do to it is noticed, never skipped."""

import os
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from perdure import (
    Corrupt,
    Derived,
    Document,
    FormatTooNew,
    KeyRing,
    Outcome,
    Store,
    Undecryptable,
)
from perdure.backend import Backend
from perdure.codec import Codec
from perdure.encryption.backend import EncryptedBackend
from perdure.encryption.rows import NO_LINK, Seal
from perdure.forwarding import Forwarding
from perdure.request import Stored as StoredRows
from perdure.types import Commit, Get, Item, Read, Scan, SessionKey, Snapshot, append_key

from tests.core.encryption.conftest import KEYS, RING
from tests.core.encryption.stored import Stored
from tests.core.wrappers import Narrow

Opened = Callable[..., Store]
Reading = Callable[[Store, str], Awaitable[object]]

READINGS: dict[str, Reading] = {
    "all": lambda store, id: store.session(id).entries(),
    "last": lambda store, id: store.session(id).entries(last=15),
    "first": lambda store, id: store.session(id).entries(limit=15),
    "stream": lambda store, id: store.session(id).stream("sub").entries(),
    "cell": lambda store, id: store.session(id).cells.get("step"),
    "cells": lambda store, id: store.session(id).cells.scan(),
    "document": lambda store, id: store.load(id),
    "derived": lambda store, id: store.session(id).read(Derived("summary")),
}
TURNS = 20
"""Enough that rows are opened all at once."""


def log_key(version: int) -> bytes:
    return append_key(b"l\0", version, 0)


async def fill(store: Store, id: str = "s", turns: int = TURNS) -> SessionKey:
    """A session with something of each kind; its main log begins at version 1."""
    session = store.session(id)
    for n in range(turns - 1):
        await session.append({"n": n})
    position = await session.append({"n": turns - 1})
    for n in range(3):
        await session.stream("sub").append({"sub": n})
    await session.derive("summary", {"up to": turns}, at=position)
    await session.cells.put("step", 1)
    await session.cells.put("other", 2)
    await store.save(id, {"pages": ["x" * 100] * 1000})
    return session.key


async def refused(store: Store, id: str, *names: str) -> None:
    for name in names:
        with pytest.raises(Undecryptable):
            await READINGS[name](store, id)


async def test_untouched_everything_is_read(store: Store, opened: Opened) -> None:
    await fill(store)
    for reading in READINGS.values():
        assert await reading(opened(), "s")


async def test_nothing_that_was_written_is_stored_in_plain(
    store: Store, stored: Stored
) -> None:
    session = store.session("s")
    secret = "the patient's diagnosis"
    await session.append({"content": secret}, secret)
    await session.cells.put("c", secret)
    await session.stream("sub").append([secret] * 500)
    await store.save("s", {"text": secret})
    for value in (await stored.values(session.key)).values():
        assert secret.encode() not in value
        assert b"content" not in value
        assert value[1] & 0x20


KEY = SessionKey.of("tenant", "kind", "id")
INCARNATION = bytes(range(16))
LOG_ROW = Codec().pack(KEY, bytes(16), [{"role": "user"}])[0]
CELL_ROW = Codec().seal(KEY, {"a": 1}, expires_at=10**15)
BYTES_ROW = Codec().seal_bytes(KEY, b"piece")


@pytest.mark.parametrize("row", [LOG_ROW, CELL_ROW, BYTES_ROW], ids=["log", "cell", "bytes"])
def test_no_byte_can_be_altered(row: bytes) -> None:
    seal = Seal(RING, KEY, INCARNATION)
    key = append_key(b"l\0", 7, 0)
    sealed = seal.seal(key, row, 7, NO_LINK)
    assert seal.open_one(Item(key, sealed, 7), 0) == row
    for place in range(len(sealed)):
        for bit in (0x01, 0x20, 0x80):
            altered = sealed[:place] + bytes((sealed[place] ^ bit,)) + sealed[place + 1 :]
            with pytest.raises((Corrupt, FormatTooNew)):
                seal.open_one(Item(key, altered, 7), 0)
    for length in range(len(sealed)):
        with pytest.raises(Corrupt):
            seal.open_one(Item(key, sealed[:length], 7), 0)
    with pytest.raises(Corrupt):
        seal.open_one(Item(key, sealed + b"\0", 7), 0)


@pytest.mark.parametrize("row", [LOG_ROW, CELL_ROW, BYTES_ROW], ids=["log", "cell", "bytes"])
def test_the_same_row_is_never_sealed_alike(row: bytes) -> None:
    seal = Seal(RING, KEY, INCARNATION)
    assert len({seal.seal(b"k", row, 1, NO_LINK) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("key", "incarnation", "item_key"),
    [
        (SessionKey.of("other", "kind", "id"), INCARNATION, b"c1"),
        (SessionKey.of("tenant", "other", "id"), INCARNATION, b"c1"),
        (SessionKey.of("tenant", "kind", "other"), INCARNATION, b"c1"),
        (SessionKey.of("ten", "antkind", "id"), INCARNATION, b"c1"),
        (KEY, bytes(16), b"c1"),
        (KEY, INCARNATION, b"c2"),
        (KEY, INCARNATION, b"c"),
        (KEY, INCARNATION, b""),
    ],
    ids=["tenant", "kind", "id", "parts", "incarnation", "key", "shorter key", "no key"],
)
def test_a_row_belongs_to_one_place(
    key: SessionKey, incarnation: bytes, item_key: bytes
) -> None:
    sealed = Seal(RING, KEY, INCARNATION).seal(b"c1", CELL_ROW, 1, NO_LINK)
    with pytest.raises(Undecryptable, match="moved"):
        Seal(RING, key, incarnation).open_one(Item(item_key, sealed, 1), 0)


def test_two_keys_of_the_same_id_are_told_apart() -> None:
    sealed = Seal(RING, KEY, INCARNATION).seal(b"c", CELL_ROW, 1, NO_LINK)
    other = KeyRing({"2026-01": KEYS["2026-06"]}, primary="2026-01")
    with pytest.raises(Undecryptable, match="its key is not what it was"):
        Seal(other, KEY, INCARNATION).open_one(Item(b"c", sealed, 1), 0)


@pytest.mark.parametrize("version", [3, 12])
async def test_a_row_altered_in_the_log_stops_every_read_of_it(
    store: Store, opened: Opened, stored: Stored, version: int
) -> None:
    key = await fill(store)
    row = (await stored.values(key))[log_key(version)]
    await stored.forge(key, {log_key(version): row[:-1] + bytes((row[-1] ^ 1,))})
    await refused(opened(), "s", "all", "last" if version > 5 else "first")
    assert await opened().session("s").cells.get("step") == 1


async def test_rows_that_change_places_are_noticed(
    store: Store, opened: Opened, stored: Stored
) -> None:
    key = await fill(store)
    values = await stored.values(key)
    swaps = [(log_key(4), log_key(5)), (b"cstep", b"cother")]
    for one, other in swaps:
        await stored.forge(key, {one: values[other], other: values[one]})
        await refused(opened(), "s", *(("all", "first") if one[:1] == b"l" else ("cell",)))
        await stored.forge(key, {one: values[one], other: values[other]})


async def test_a_session_put_in_place_of_another_is_noticed(
    store: Store, opened: Opened, stored: Stored
) -> None:
    one, other = await fill(store, "s"), await fill(store, "other")
    values = await stored.values(one)
    await stored.forge(other, dict(values))
    await refused(opened(), "other", *READINGS)


async def test_a_row_of_a_deleted_session_is_not_one_of_its_successor(
    store: Store, opened: Opened, stored: Stored
) -> None:
    key = await fill(store)
    before = await stored.values(key)
    await store.delete("s")
    await fill(opened())
    await stored.forge(key, {b"cstep": before[b"cstep"]})
    await refused(opened(), "s", "cell", "cells")
    await stored.forge(key, {log_key(3): before[log_key(3)]})
    await refused(opened(), "s", "all", "first")


async def test_a_row_missing_in_the_middle_of_a_log_is_noticed(
    store: Store, opened: Opened, stored: Stored
) -> None:
    key = await fill(store)
    for version, names in ((10, ("all", "last", "first")), (2, ("all", "first"))):
        row = (await stored.values(key))[log_key(version)]
        await stored.forge(key, {log_key(version): None})
        await refused(opened(), "s", *names)
        await stored.forge(key, {log_key(version): row})
        assert len(await opened().session("s").entries()) == TURNS
    second = append_key(b"lsub\0", TURNS + 2, 0)
    await stored.forge(key, {second: None})
    await refused(opened(), "s", "stream")


@pytest.mark.parametrize("last", [None, TURNS])
async def test_a_row_missing_between_two_pages_is_noticed(
    store: Store, backend: Backend, stored: Stored, last: int | None
) -> None:
    key = await fill(store)
    for version in range(2, TURNS):
        row = (await stored.values(key))[log_key(version)]
        await stored.forge(key, {log_key(version): None})
        paged = Store(Narrow(backend, read_bytes=100), keys=RING, deadline=5)
        with pytest.raises(Undecryptable, match="does not follow"):
            await paged.session("s").entries(last=last)
        await stored.forge(key, {log_key(version): row})
    paged = Store(Narrow(backend, read_bytes=100), keys=RING, deadline=5)
    assert len(await paged.session("s").entries(last=last)) == TURNS


async def test_a_page_that_begins_another_log_continues_none(
    store: Store, backend: Backend
) -> None:
    """As an export reads: all streams, one after another, in pages."""
    session = store.session("s")
    for n in range(6):
        for name in ("a", "b", "c"):
            await session.stream(name).append(n)
    paged = Store(Narrow(backend, read_bytes=1), keys=RING)
    for reverse in (False, True):
        read = StoredRows(Scan(b"l", b"m", reverse=reverse))
        _, (items,) = await paged.session("s")._handle.read([read])  # pyright: ignore[reportPrivateUsage]
        assert len(items) == 18


async def test_a_log_cut_before_an_entry_while_it_is_read_misses_nothing(
    store: Store, backend: Backend
) -> None:
    """Between two pages the rows that the next one continues may go by right."""
    session = store.session("s")
    positions = [await session.append(n) for n in range(30)]
    narrow = Narrow(backend, read_bytes=100)
    narrow.between.append(lambda: session.truncate(before=positions[20]))
    paged = Store(narrow, keys=RING, deadline=5)
    assert await paged.session("s").entries() == list(range(20, 30))


async def test_a_former_value_put_back_is_noticed(
    store: Store, opened: Opened, stored: Stored
) -> None:
    key = await fill(store)
    cells = store.session("s").cells
    before = await stored.values(key)
    await cells.put("step", 2)
    await store.save("s", {"pages": ["y" * 100] * 1000})
    await stored.write(key, {b"cstep": before[b"cstep"]})  # with a stamp of its own
    await refused(opened(), "s", "cell", "cells")
    await stored.write(key, {b"d": before[b"d"]})
    await refused(opened(), "s", "document")
    with pytest.raises(Undecryptable, match="former value"):
        await opened().session("s").cells.get("step")


@pytest.mark.parametrize("keyless", [True, False], ids=["a store without keys", "by hand"])
async def test_what_is_written_in_plain_is_refused(
    store: Store,
    backend: Backend,
    opened: Opened,
    stored: Stored,
    keyless: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = await fill(store)
    if keyless:
        plain = Store(backend).session("s")
        await plain.append("forged")
        await plain.stream("sub").append("forged")
        await plain.cells.put("step", "forged")
        await plain.save("forged")
    else:
        codec = Codec()
        row = codec.seal(key, "forged")
        await stored.write(key, {log_key(9): codec.pack(key, os.urandom(16), ["forged"])[0]})
        await stored.write(key, {append_key(b"lsub\0", 21, 0): LOG_ROW, b"cstep": row})
        await stored.write(key, {b"d": row})
    await refused(opened(), "s", "all", "stream", "cell", "cells", "document")


async def test_without_keys_nothing_is_read_and_the_key_is_named(
    store: Store, backend: Backend
) -> None:
    await fill(store)
    for keyless in (
        Store(backend),
        Store(backend, keys=KeyRing({"2031": os.urandom(32)}, primary="2031")),
    ):
        for reading in READINGS.values():
            with pytest.raises(Undecryptable, match="2026-01") as caught:
                await reading(keyless, "s")
            assert caught.value.missing_key == "2026-01"


async def test_the_ends_of_a_log_are_not_vouched_for(
    store: Store, opened: Opened, stored: Stored
) -> None:
    """As the format says: nothing that is left would tell."""
    key = await fill(store)
    await store.session("s").cells.delete("other")  # so that something may be gone by right
    await stored.forge(key, {log_key(1): None, log_key(TURNS): None, b"cother": None})
    head = await stored.head(key)
    await stored.write(key, {}, deletes=(b"cother",))
    assert (await stored.head(key)).last_delete > head.last_delete
    entries = await opened().session("s").entries()
    assert entries == [{"n": n} for n in range(1, TURNS - 1)]


@pytest.mark.parametrize("turns", [3, TURNS])
async def test_the_beginning_of_a_log_is_vouched_for_until_something_is_deleted(
    store: Store, opened: Opened, stored: Stored, turns: int
) -> None:
    key = await fill(store, turns=turns)
    await stored.forge(key, {log_key(1): None})
    session = opened().session("s")
    for read in (session.entries(), session.entries(limit=2), session.entries(last=turns)):
        with pytest.raises(Undecryptable, match="does not follow"):
            await read


@pytest.mark.parametrize("missing", [0, 1, 9])
@pytest.mark.parametrize("name", ["", "sub"])
async def test_a_row_missing_behind_those_that_a_handle_holds_is_noticed(
    store: Store, opened: Opened, stored: Stored, name: str, missing: int
) -> None:
    """Whoever reads what is new only: a handle, a turn, somebody who watches."""
    mine = store.session("s")
    position = await mine.stream("sub").append("first")
    position = await mine.append("first") if not name else position
    reader = mine.stream(name) if name else mine
    held = list(await reader.entries())
    other = opened().session("s")
    for n in range(12):
        await (other.stream(name) if name else other).append(n)
    prefix = b"l%b\0" % name.encode()
    rows = [row for row in await stored.values(mine.key) if row.startswith(prefix)]
    await stored.forge(mine.key, {rows[1 + missing]: None})
    for read in (reader.entries, reader.entries, lambda: reader.entries(after=position)):
        with pytest.raises(Undecryptable, match="does not follow"):
            await read()
    with pytest.raises(Undecryptable, match="does not follow"):
        async for _ in reader.watch(after=position):
            pass
    if not name:
        with pytest.raises(Undecryptable, match="does not follow"):
            async with mine.turn() as turn:
                turn.append("built on half of it")
    assert len(held) == 1


async def test_an_impossible_head_is_refused(store: Store, backend: Backend) -> None:
    """It would excuse what is missing."""

    class Lying(Forwarding):
        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            snapshot = await super().read(key, *reads)
            assert snapshot.head is not None
            head = msgspec.structs.replace(snapshot.head, last_delete=1 << 40)
            return msgspec.structs.replace(snapshot, head=head)

    await store.session("s").append(1)
    with pytest.raises(Undecryptable, match="head"):
        await Store(Lying(backend), keys=RING).session("s").entries()


async def test_an_answer_to_another_question_is_refused(store: Store, backend: Backend) -> None:
    """Each row is where it was written; but it was not asked for."""

    class Evasive(Forwarding):
        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            return await super().read(key, *map(self._another, reads))

        def _another(self, read: Read) -> Read:
            if isinstance(read, Get):
                return Get(b"cother")
            return msgspec.structs.replace(read, start=b"lone\0", stop=b"lone\0\xff")

    session = store.session("s")
    await session.stream("one").append(1)
    await session.stream("two").append(2)
    await session.cells.update({"step": 1, "other": 2})
    evaded = Store(Evasive(backend), keys=RING).session("s")
    for read in (
        evaded.cells.get("step"),
        evaded.cells.scan(),
        evaded.entries(),
        evaded.stream("two").entries(last=1),
    ):
        with pytest.raises(Undecryptable, match="asked for"):
            await read
    assert await evaded.stream("one").entries() == [1]


async def test_what_was_written_before_a_row_could_not_be_opened_is_said_to_be(
    store: Store, backend: Backend, stored: Stored
) -> None:
    session = store.session("s")
    await session.cells.put("c", 1)
    key = session.key
    row = (await stored.values(key))[b"cc"]
    await stored.forge(key, {b"cc": row[:-1] + bytes((row[-1] ^ 1,))})
    commit = Commit(
        id=os.urandom(16),
        digest=os.urandom(8),
        new_incarnation=os.urandom(16),
        puts=((b"cd", CELL_ROW),),
        returning=(Get(b"cc"),),
    )
    with pytest.raises(Undecryptable, match="altered") as caught:
        await EncryptedBackend(backend, RING).commit(key, commit)
    assert caught.value.outcome is Outcome.APPLIED
    assert b"cd" in await stored.values(key)


async def test_a_document_of_pieces_is_whole_or_refused(
    store: Store, opened: Opened, stored: Stored
) -> None:
    key = store.session("s").key
    await store.save("s", [os.urandom(1000) for _ in range(300)])
    values = await stored.values(key)
    pieces = sorted(name for name in values if name.startswith(b"d\0"))
    assert len(pieces) > 1
    await stored.forge(key, {pieces[0]: None})
    with pytest.raises(Corrupt):
        await opened().session("s").read(Document())


async def test_a_missing_key_does_not_hide_rows_of_others(
    store: Store, opened: Opened, stored: Stored
) -> None:
    """Half the log sealed with a key that the reader lacks: an error, not half a log."""
    session = store.session("s")
    for n in range(10):
        await session.append(n)
    newer = opened(KeyRing(KEYS, primary="2026-06")).session("s")
    for n in range(10):
        await newer.append(n)
    assert len(await opened().session("s").entries()) == 20
    older = KeyRing({"2026-01": KEYS["2026-01"]}, primary="2026-01")
    with pytest.raises(Undecryptable, match="2026-06"):
        await opened(older).session("s").entries()
