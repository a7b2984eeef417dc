"""Adopting stages whose parts the same commit writes again."""

import pytest

from perdure.testing.shorthand import new_id, read_items, write
from perdure.types import Item, SessionKey

from tests.backends.redis.opened import opened

KEY = SessionKey.of("acme", "session", "chat-7")


@pytest.mark.parametrize("parts", [1, 499, 500, 501, 1000])
async def test_a_put_replaces_a_part_adopted_by_the_commit_that_creates(
    valkey_url: str, parts: int
) -> None:
    incarnation, first, second = new_id(), new_id(), new_id()
    keys = [b"%04d" % n for n in range(parts)]
    async with opened(valkey_url) as (backend, _):
        for stage in (first, second):
            puts = tuple((key, b"of " + stage) for key in keys)
            await backend.stage(KEY, incarnation, stage, puts)
        await write(
            backend,
            KEY,
            new_incarnation=incarnation,
            stages=(first, second),
            puts=((keys[0], b"put"),),
        )
        values = [b"put", *[b"of " + second] * (parts - 1)]
        expected = [Item(key, value, 1) for key, value in zip(keys, values, strict=True)]
        assert await read_items(backend, KEY) == expected
