"""Forks at positions that are gone, never were, or go while the fork is made."""

from collections.abc import Awaitable, Callable

import pytest

from perdure import Conflict, Corrupt, InvalidKey, Position, Session, Store
from perdure.backend import Backend
from perdure.client import Client
from perdure.codec import Codec
from perdure.handle import Handle
from perdure.layout import LINEAGE
from perdure.testing.faults import Forwarding
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot

from tests.core.wrappers import Narrow

LONG = "x" * 200_000
"""An entry of more than two rows."""


class Meanwhile(Forwarding):
    """Lets something happen right before the first calls about ``s``, one thing before each."""

    def __init__(
        self, backend: Backend, *events: Callable[[Session], Awaitable[object]]
    ) -> None:
        super().__init__(backend)
        self.events = list(events)

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        await self._happen(key)
        return await super().read(key, *reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        await self._happen(key)
        return await super().commit(key, commit)

    async def _happen(self, key: SessionKey) -> None:
        if self.events and key.id == "s":
            await self.events.pop(0)(Store(self.backend).session(key.id))


async def nothing(session: Session) -> None:
    del session


async def pop(session: Session) -> None:
    await session.pop()


async def cut_in_front(session: Session) -> None:
    await session.truncate(before=(await session.entries()).positions[-1])


async def replace(session: Session) -> None:
    await session.delete()
    await session.append("x", LONG, "y")


@pytest.mark.parametrize("removed", ["before", "after", "popped", "cleared"])
async def test_a_fork_at_an_entry_that_was_removed_is_refused(
    store: Store, removed: str
) -> None:
    session = store.session("s")
    await session.append("a", "b", "c", "d")
    positions = (await session.entries()).positions
    if removed == "before":
        await session.truncate(before=positions[2])
        gone = positions[:2]
    elif removed == "after":
        await session.truncate(after=positions[1])
        gone = positions[2:]
    elif removed == "popped":
        await session.pop()
        gone = positions[3:]
    else:
        await session.clear()
        gone = positions
    for position in gone:
        with pytest.raises(InvalidKey):
            await session.fork("copy", at=position)
    assert await store.session("copy").head() is None
    left = await session.entries()
    for n, position in enumerate(left.positions):
        copy = await session.fork(f"copy-{n}", at=position)
        assert await copy.entries() == left[: n + 1]


@pytest.mark.parametrize(
    "event", [pop, cut_in_front, replace], ids=lambda event: event.__name__
)
@pytest.mark.parametrize("calls", [0, 1, 2])
@pytest.mark.parametrize("row", ["several entries", "one long entry"])
async def test_a_fork_that_races_is_of_some_version_or_refused(
    backend: Backend, event: Callable[[Session], Awaitable[object]], calls: int, row: str
) -> None:
    session = Store(backend).session("s")
    at = await session.append(*(["a", "b", "c"] if row == "several entries" else [LONG]))
    copied = await session.entries()
    racing = Store(Meanwhile(backend, *[nothing] * calls, event))
    try:
        await racing.session("s").fork("copy", at=at)
    except (InvalidKey, Conflict):
        assert await Store(backend).session("copy").head() is None
        return
    found = await Store(backend).session("copy").entries()
    # The position may be that of an entry of the successor, too.
    assert found in (copied, copied[-1:], ["x"])


async def test_a_fork_is_not_made_of_two_lives_of_its_parent(backend: Backend) -> None:
    """The position is that of an entry of one row; in the life that follows, a long one of
    several begins there."""

    async def another_life(session: Session) -> None:
        await session.delete()
        await session.append(LONG, "y")

    for calls in range(3):
        store = Store(backend)
        await store.delete("s")
        at = await store.session("s").append("a")
        racing = Store(Meanwhile(backend, *[nothing] * calls, another_life))
        copy = store.session(f"copy-{calls}")
        try:
            await racing.session("s").fork(copy.key.id, at=at)
        except (InvalidKey, Conflict):
            assert await copy.head() is None
        else:
            assert await copy.entries() in (["a"], [LONG])


async def test_a_position_in_another_log_cuts_between_entries_or_not_at_all(
    store: Store,
) -> None:
    """In a fork all rows are of one version, so that other logs' positions may point to any
    of them, also to the later ones of a long entry."""
    session, other = store.session("s"), store.session("other")
    await session.append("a", "b")
    await session.append(LONG, "c")
    await other.append("o" * 70_000, "o" * 70_000, "o")
    whole = await session.entries()
    positions = (await other.entries()).positions + whole.positions
    for n, position in enumerate(positions):
        for cut in ("before", "after"):
            copy = await session.fork(f"copy-{cut}-{n}")
            try:
                if cut == "before":
                    await copy.truncate(before=position)
                else:
                    await copy.truncate(after=position)
            except InvalidKey:
                assert await copy.entries() == whole
                continue
            left = await store.session(copy.key.id).entries()
            assert left == await copy.entries()
            assert left == (
                whole[len(whole) - len(left) :] if cut == "before" else whole[: len(left)]
            )


async def test_a_position_in_another_log_bounds_a_read_between_entries(store: Store) -> None:
    session, other = store.session("s"), store.session("other")
    await session.append(LONG, "tail")
    await other.append("o" * 70_000, "o" * 70_000, "o")
    whole = await session.entries()
    for position in (await other.entries()).positions:
        for handle in (session, store.session("s")):
            before = await handle.entries(before=position)
            after = await handle.entries(after=position)
            assert before == whole[: len(before)]
            assert after == whole[len(whole) - len(after) :]
            assert await handle.entries(before=position, last=1) == before[-1:]
            assert await handle.entries(after=position, limit=1) == after[:1]


async def test_a_fork_of_a_fork_is_a_fork(store: Store) -> None:
    session = store.session("s")
    await session.append("a", LONG)
    first = await session.fork("first")
    await first.append("b", "c")
    positions = (await first.entries()).positions
    second = await first.fork("second", at=positions[2])
    assert await second.entries() == ["a", LONG, "b"]
    lineage = await second.lineage()
    assert lineage is not None
    assert (lineage.parent, lineage.position) == (first.key, positions[2])
    await session.delete()
    await first.delete()
    assert await store.session("second").entries() == ["a", LONG, "b"]


async def test_a_fork_of_what_is_larger_than_a_read_or_a_commit_is_whole(
    backend: Backend,
) -> None:
    session = Store(backend).session("s")
    for n in range(30):
        await session.append([n, "y" * 300], [n, "z" * 300])
    await session.append(LONG, "end")
    await session.cells.update({f"c{n:02}": n for n in range(30)})
    entries = await session.entries()
    narrow = Store(Narrow(backend, read_bytes=2000, commit_bytes=70_000)).session("s")
    at = entries.positions[-2]
    copy = await narrow.fork("copy", at=at)
    assert await Store(backend).session("copy").entries() == entries[:-1]
    assert await copy.cells.scan() == await session.cells.scan()
    assert await narrow.fork("whole") is not None
    assert await Store(backend).session("whole").entries() == entries


async def test_a_fork_at_a_position_behind_everything_is_refused(store: Store) -> None:
    session = store.session("s")
    position = await session.append("a", "b")
    for at in (Position(position[:-8] + "00000002"), Position("0" * 32), Position("f" * 32)):
        with pytest.raises(InvalidKey):
            await session.fork("copy", at=at)
    assert await store.session("copy").head() is None


async def end(session: Session) -> None:
    await session.delete()


async def end_and_begin_again(session: Session) -> None:
    await session.delete()
    await session.attachments.put(b"of another session")


@pytest.mark.parametrize("event", [end, end_and_begin_again])
async def test_a_parent_that_goes_while_its_attachments_are_copied_has_no_fork(
    backend: Backend, event: Callable[[Session], Awaitable[object]]
) -> None:
    session = Store(backend).session("s")
    put = await session.attachments.put(b"of this one")
    await session.append(put.digest)
    # Read, noted in the parent, and then.
    meanwhile = Store(Meanwhile(backend, nothing, nothing, event))
    with pytest.raises(Conflict, match="went"):
        await meanwhile.session("s").fork("copy")
    assert await Store(backend).session("copy").head() is None


async def test_a_lineage_that_makes_no_sense_is_corrupt(backend: Backend) -> None:
    store = Store(backend)
    await store.session("s").append(1)
    fork = await store.session("s").fork("f")
    row = Codec().seal(fork.key, ["s"])
    await Handle(Client(backend, deadline=5), fork.key).commit(puts=((LINEAGE, row),))
    with pytest.raises(Corrupt):
        await fork.lineage()
