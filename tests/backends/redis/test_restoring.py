"""A session copied here from elsewhere: what its key remembers of itself."""

from perdure.backend import TOMBSTONE_MS
from perdure.testing.shorthand import new_commit, new_id, read_head, resent, write
from perdure.types import Expect, Restored, SessionKey

from tests.backends.redis.moved_clock import MovedValkey
from tests.backends.redis.opened import opened

KEY = SessionKey.of("acme", "session", "chat-7")


async def test_the_tombstone_of_a_life_that_goes_on_takes_nothing_along(
    moved_valkey: MovedValkey,
) -> None:
    async with opened(moved_valkey.url) as (backend, _):
        first = await write(backend, KEY)
        await backend.delete(KEY, id=new_id())
        await write(
            backend,
            KEY,
            expect=Expect.ABSENT,
            new_incarnation=first.incarnation,
            restored=Restored(9, 1, 2),
        )
        commit = new_commit(incarnation=first.incarnation, base=9, puts=((b"a", b"1"),))
        await backend.commit(KEY, commit)
        moved_valkey.advance(2 * TOMBSTONE_MS)
        while await backend.sweep():
            pass
        assert (await backend.commit(KEY, resent(commit))).replayed
        assert (await read_head(backend, KEY)).version == 10
