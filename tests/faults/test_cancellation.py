"""A cancelled task leaves the pool, the connection and the session clean."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure import Session, Store
from perdure.backend import Backend
from perdure.errors import Conflict
from perdure.testing.shorthand import new_commit, read_values, resent, write
from perdure.types import Append, Commit, SessionKey

from tests.faults.cancelling import WAYS, Way
from tests.faults.databases import Database
from tests.faults.operations import ALL, FIRST, FRUITS, LOG, TENANT, Operation


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(autouse=True)
async def quiet() -> AsyncIterator[None]:
    """Nothing may be left for the event loop to complain of."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def assert_clean(database: Database, others: int) -> None:
    """A backend that is open has a few connections and nothing begun on any."""
    assert await database.until(lambda: database.unfinished() == 0)
    assert await database.until(lambda: database.connections() - others <= database.limit)


async def assert_gone(database: Database, others: int) -> None:
    """No connection is left."""
    assert await database.until(lambda: database.connections() <= others)


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.__name__)
async def test_an_operation_on_an_open_backend(
    database: Database,
    operation: type[Operation],
    way: Way,
) -> None:
    others = database.connections()
    backend = await database.open()
    try:
        for number in way.numbers():
            key = SessionKey(TENANT, operation.__name__, f"{number:06}")
            attempt = operation(backend, key)
            await attempt.prepare()
            ran = await way.cancel(attempt.run(), number)
            await attempt.check(ran=ran)
            if ran:
                assert number, "nothing was cancelled"
                break
        await assert_clean(database, others)
    finally:
        await backend.aclose()
    await assert_gone(database, others)


@pytest.mark.parametrize("operation", FIRST, ids=lambda operation: operation.__name__)
async def test_the_first_operation(
    database: Database,
    operation: type[Operation],
    way: Way,
) -> None:
    others = database.connections()
    for number in way.numbers():
        backend = await database.open()
        try:
            key = SessionKey(TENANT, operation.__name__, f"{number:06}")
            attempt = operation(backend, key)
            await attempt.prepare()
            ran = await way.cancel(attempt.run(), number)
            await attempt.check(ran=ran)
            await assert_clean(database, others)
        finally:
            await backend.aclose()
        await assert_gone(database, others)
        if ran:
            break


async def test_closing(database: Database, way: Way) -> None:
    """Cancelled, it may be called again; then nothing is left."""
    others = database.connections()
    for number in way.numbers():
        backend = await database.open()
        await write(backend, SessionKey(TENANT, "closing", f"{number:06}"), puts=FRUITS)
        ran = await way.cancel(backend.aclose(), number)
        await backend.aclose()
        await assert_gone(database, others)
        if ran:
            break


async def committing(backend: Backend, key: SessionKey, commit: Commit) -> None:
    await backend.commit(key, commit)


async def test_one_of_several_commits_side_by_side(database: Database, way: Way) -> None:
    """They may share a connection or a transaction: the others come through."""
    others = database.connections()
    backend = await database.open()

    async def append(key: SessionKey) -> None:
        for n in range(3):
            await write(backend, key, appends=(Append(LOG, (b"%d" % n,)),))

    try:
        for number in way.numbers():
            keys = [SessionKey(TENANT, "others", f"{number:06}-{n}") for n in range(5)]
            key = SessionKey(TENANT, "cancelled", f"{number:06}")
            commit = new_commit(puts=FRUITS)

            async with asyncio.TaskGroup() as group:
                for other in keys:
                    group.create_task(append(other))
                ran = await way.cancel(committing(backend, key, commit), number)
            for other in keys:
                assert list((await read_values(backend, other)).values()) == [b"0", b"1", b"2"]
            await backend.commit(key, resent(commit))
            assert await read_values(backend, key) == dict(FRUITS)
            if ran:
                break
        await assert_clean(database, others)
    finally:
        await backend.aclose()
    await assert_gone(database, others)


async def test_a_handle_after_a_cancelled_append(database: Database, way: Way) -> None:
    """What it keeps is what is there, whether or not the append came through."""
    async with Store(await database.open()) as store:
        session = store.session("plum")
        for number in way.numbers():
            ran = await way.cancel(appending(session, {"cancelled": number}), number)
            await session.append({"next": number})
            kept = list(await session.entries())
            assert kept.count({"next": number}) == 1
            assert kept.count({"cancelled": number}) in ((1,) if ran else (0, 1))
            if ran:
                break
        for _ in range(100):
            kept = list(await session.entries())
            head = await session.head()
            assert head is not None
            there = list(await store.session("plum").entries())
            if kept == there and head.version == len(kept):
                break
            await asyncio.sleep(0.01)  # one that was cancelled is still on its way
        else:
            raise AssertionError("the handle does not learn what is there")
        assert len({repr(entry) for entry in kept}) == len(kept)


async def test_a_cancelled_turn_leaves_its_handle_to_the_next(
    database: Database, way: Way
) -> None:
    async with Store(await database.open()) as store:
        session = store.session("plum")
        await session.append("first")
        for number in way.numbers():
            ran = await way.cancel(taking_turn(session, number), number)
            while True:
                try:
                    async with session.turn() as turn:
                        seen = list(await turn.entries())
                        turn.append({"next": len(seen)})
                except Conflict:  # with the cancelled one, which was still on its way
                    continue
                break
            kept = list(await session.entries())
            assert kept == [*seen, {"next": len(seen)}]
            assert kept.count({"turn": number}) in ((1,) if ran else (0, 1))
            if ran:
                break


async def appending(session: Session, entry: object) -> None:
    await session.append(entry)


async def taking_turn(session: Session, number: int) -> None:
    async with session.turn() as turn:
        await turn.entries(last=1)
        turn.append({"turn": number})
        turn.cells["turn"] = number
