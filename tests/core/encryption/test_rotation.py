"""Rotation: everything sealed with the new key, while others read and write."""

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest

from perdure import InvalidKeys, KeyRing, Store, Undecryptable
from perdure.backend import Backend
from perdure.copying import Fate, copy_sessions
from perdure.encryption import as_stored, rotation
from perdure.encryption.backend import EncryptedBackend
from perdure.encryption.rotation import Rotated, rotate, rotate_session
from perdure.encryption.rows import key_id_of
from perdure.encryption.verification import verify_session
from perdure.testing.faults import LoseReplies
from perdure.types import Commit, Committed, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.encryption.conftest import KEYS, RING
from tests.core.encryption.stored import Stored
from tests.core.encryption.test_tampering import READINGS, TURNS, fill, log_key

Opened = Callable[..., Store]
NEW = KeyRing(KEYS, primary="2026-06")
ONLY_NEW = KeyRing({"2026-06": KEYS["2026-06"]}, primary="2026-06")


class Stopped(Exception):
    """As by Ctrl+C."""


async def rotated(store: Store) -> dict[str, Rotated]:
    found: dict[str, Rotated] = {}

    def report(one: Rotated) -> None:
        found[one.key.id] = one

    await rotate(store, report=report)
    return found


def sealing(store: Store) -> EncryptedBackend:
    backend = store.backend
    assert isinstance(backend, EncryptedBackend)
    return backend


async def everything(store: Store, id: str) -> list[object]:
    return [await reading(store, id) for reading in READINGS.values()]


async def test_afterwards_the_old_key_is_not_needed(
    store: Store, opened: Opened, stored: Stored
) -> None:
    keys = {id: await fill(store, id) for id in ("a", "b")}
    before = {id: await everything(store, id) for id in keys}
    with pytest.raises(Undecryptable):
        await everything(opened(ONLY_NEW), "a")
    found = await rotated(opened(NEW))
    for id, key in keys.items():
        values = await stored.values(key)
        assert {key_id_of(value) for value in values.values()} == {"2026-06"}
        assert found[id] == Rotated(key=key, items=len(values), sealed=len(values))
        assert await everything(opened(ONLY_NEW), id) == before[id]
        verified = await verify_session(sealing(opened(ONLY_NEW)), key)
        assert verified is not None
        assert verified.problems == ()
    again = await rotated(opened(NEW))
    assert all(one.done and one.sealed == 0 for one in again.values())


async def test_a_store_that_was_not_encrypted_becomes_so(
    backend: Backend, opened: Opened, stored: Stored
) -> None:
    key = await fill(Store(backend))
    before = await everything(Store(backend), "s")
    (refused,) = (await rotated(opened(RING))).values()
    assert refused.reason
    assert "in plain" in refused.reason
    assert not refused.done
    migrating = KeyRing(KEYS, primary="2026-01", accept_plaintext=True)
    assert await everything(opened(migrating), "s") == before
    assert (await rotated(opened(migrating)))["s"].done
    assert await everything(opened(RING), "s") == before
    row = (await stored.values(key))[log_key(7)]
    await stored.forge(key, {log_key(7): None})  # what was in plain is linked now
    with pytest.raises(Undecryptable):
        await opened(RING).session("s").entries()
    await stored.forge(key, {log_key(7): row})
    assert await everything(opened(RING), "s") == before


async def test_a_log_half_in_plain_is_read_while_that_is_accepted(
    backend: Backend, opened: Opened
) -> None:
    migrating = KeyRing(KEYS, primary="2026-01", accept_plaintext=True)
    plain, sealed = Store(backend).session("s"), opened(migrating).session("s")
    for n in range(0, 30, 3):
        await plain.append(n)
        await sealed.append(n + 1, n + 2)
    assert await opened(migrating).session("s").entries() == list(range(30))
    await sealed.pop()
    with pytest.raises(Undecryptable):
        await opened(RING).session("s").entries()
    assert (await rotated(opened(migrating)))["s"].done
    assert await opened(RING).session("s").entries() == list(range(29))


async def test_writers_go_on_meanwhile(
    store: Store, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "PAGE_ITEMS", 5)
    key = await fill(store)
    writer, reader = opened(NEW).session("s"), opened(NEW).session("s")
    stop = asyncio.Event()
    written = TURNS

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            await writer.append({"n": written})
            written += 1
            await writer.cells.put("step", written)
            assert len(await reader.entries()) == written
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.01)
    found = await rotate_session(sealing(opened(NEW)), key)
    stop.set()
    await writing
    assert found.done
    assert found.sealed >= TURNS
    entries = await opened(ONLY_NEW).session("s").entries()
    assert entries == [{"n": n} for n in range(written)]
    assert await reader.entries() == entries


async def test_rows_that_others_still_write_with_the_old_key_are_reported(
    store: Store, opened: Opened
) -> None:
    key = await fill(store)
    behind = sealing(opened(NEW)).backend

    class Meanwhile(EncryptedBackend):
        """Every time that the end is reached, another process has written with its old keys."""

        async def commit_linked(
            self, key: SessionKey, commit: Commit, links: Mapping[bytes, bytes]
        ) -> Committed:
            result = await super().commit_linked(key, commit, links)
            await store.session("s").append("late")
            return result

    found = await rotate_session(Meanwhile(behind, NEW), key)
    assert found.left == 1
    assert not found.done
    assert (await rotate_session(sealing(opened(NEW)), key)).done


async def test_an_interrupted_rotation_is_finished_by_the_next(
    store: Store, opened: Opened, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "PAGE_ITEMS", 4)
    key = await fill(store)
    before = await everything(store, "s")

    def stop(count: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await rotate_session(sealing(opened(NEW)), key, advance=stop)
    ids = {key_id_of(value) for value in (await stored.values(key)).values()}
    assert ids == {"2026-01", "2026-06"}
    assert await everything(opened(NEW), "s") == before
    assert (await rotate_session(sealing(opened(NEW)), key)).done
    assert await everything(opened(ONLY_NEW), "s") == before


async def test_lost_replies_do_not_stop_it(
    store: Store, backend: Backend, opened: Opened
) -> None:
    key = await fill(store)
    found = await rotate_session(EncryptedBackend(LoseReplies(backend, on={0, 1}), NEW), key)
    assert found.done
    assert await opened(ONLY_NEW).session("s").entries() == [{"n": n} for n in range(TURNS)]


async def test_what_was_tampered_with_is_reported_and_not_sealed_over(
    store: Store, opened: Opened, stored: Stored
) -> None:
    keys = {id: await fill(store, id) for id in ("bad", "good")}
    await stored.forge(keys["bad"], {log_key(5): None})
    before = await stored.values(keys["bad"])
    found = await rotated(opened(NEW))
    assert found["good"].done
    assert not found["bad"].done
    assert "does not follow" in (found["bad"].reason or "")
    assert await stored.values(keys["bad"]) == before


async def test_a_store_without_keys_has_nothing_to_rotate(backend: Backend) -> None:
    with pytest.raises(InvalidKeys, match="PERDURE_ENCRYPTION_KEYS"):
        await rotate(Store(backend), report=print)


async def test_a_copy_needs_no_keys_and_opens_with_those_of_its_source(
    store: Store, backend: Backend
) -> None:
    key = await fill(store)
    before = await everything(store, "s")
    target = MemoryBackend()
    fates: list[Fate] = []
    await copy_sessions(
        Store(backend),
        Store(target),
        report=lambda copied: fates.append(copied.fate),
    )
    assert fates == [Fate.COPIED]
    there = Store(target, keys=RING)
    assert await everything(there, "s") == before
    assert as_stored(there.backend) is target
    await there.session("s").append("more")
    await there.session("s").cells.put("step", 9)
    fresh = Store(target, keys=RING).session("s")
    assert len(await fresh.entries()) == TURNS + 1
    assert (await rotate_session(EncryptedBackend(target, NEW), key)).done
    assert len(await Store(target, keys=ONLY_NEW).session("s").entries()) == TURNS + 1


async def test_verification_finds_all_that_is_wrong(
    store: Store, opened: Opened, stored: Stored, backend: Backend
) -> None:
    key = await fill(store)
    values = await stored.values(key)
    row = values[log_key(15)]
    await stored.forge(
        key,
        {
            log_key(5): None,
            log_key(9): values[log_key(10)],
            log_key(15): row[:-1] + bytes((row[-1] ^ 1,)),
            b"cstep": b"\x01\x40\x01",
        },
    )
    verified = await verify_session(sealing(opened()), key)
    assert verified is not None
    assert verified.items == len(values) - 1
    text = "\n".join(verified.problems)
    for told in ("does not follow", "moved here", "was altered", "in plain"):
        assert told in text
    assert len(verified.problems) >= 4
    keyless = await verify_session(backend, key)
    assert keyless is not None
    assert sum("2026-01" in problem for problem in keyless.problems) == 1
    assert await verify_session(backend, SessionKey.of("t", "k", os.urandom(4).hex())) is None
