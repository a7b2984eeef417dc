"""A session copied here from elsewhere: what its key remembers of itself."""

import pytest

from perdure.backend import TOMBSTONE_MS
from perdure.errors import OutcomeUnknown
from perdure.testing.shorthand import at, new_commit, new_id, read_head, resent, write
from perdure.types import Expect, Restored, SessionKey

from tests.backends.redis.moved_clock import MovedValkey
from tests.backends.redis.opened import opened

KEY = SessionKey.of("acme", "session", "chat-7")


async def test_what_was_committed_elsewhere_between_two_copies_is_not_taken_for_lost(
    valkey_url: str,
) -> None:
    async with opened(valkey_url) as (backend, _):
        first = await write(backend, KEY, expect=Expect.ABSENT, restored=Restored(500, 1, 2))
        assert first.head is not None
        again = new_commit(
            expect=at(first.head),
            incarnation=first.incarnation,
            base=500,
            restored=Restored(600, 1, 3),
        )
        await backend.commit(KEY, again)
        elsewhere = new_commit(incarnation=first.incarnation, base=550, puts=((b"a", b"1"),))
        with pytest.raises(OutcomeUnknown) as caught:
            await backend.commit(KEY, resent(elsewhere))
        assert caught.value.forgotten
        assert (await backend.commit(KEY, resent(again))).replayed


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
