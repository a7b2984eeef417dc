"""Format 1, byte by byte: what was written once is read for ever."""

import asyncio

from perdure.testing.shorthand import list_ids, new_commit, read_items
from perdure.types import (
    Append,
    Condition,
    Expect,
    Head,
    Item,
    Order,
    SessionKey,
    append_key,
)

from perdure_redis.keys import Names
from tests.backends.redis.opened import opened

KEY = SessionKey.of("acme", "session", "chat-7")
NAME = b"acme\0session\0chat-7"
LIFE, FIRST, SECOND = b"incarnation 1234", b"first commit 123", b"second commit 12"
DELETION, STAGE = b"a deletion 12345", b"a stage 12345678"
CREATED, UPDATED = 1_700_000_000_000, 1_700_000_100_000
EXPIRES = 4_000_000_000_000
LATEST = 1 << 52


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


HEAD = b"h0" + b"".join(
    [
        *map(number, (2, 1, 2, CREATED, UPDATED, EXPIRES, CREATED, 63)),
        *(LIFE, SECOND),
    ]
)
SESSION = [
    b"d" + b"another life 123" + number(CREATED),
    HEAD,
    b"h1red\0\xc3\xa9",
    b"h2meta",
    b"ic\x01\x01\x01\x02\xff\0" + number(2) + b"cell \0\x01",
    b"il\x01\x01"
    + b"\x01\x01" * 7
    + b"\x01\x02"
    + b"\x01\x01" * 4
    + b"\0"
    + number(1)
    + b"row",
    b"p" + LIFE + STAGE + b"ipart\0" + b"of a stage",
    b"r" + DELETION + b"d" + b"another life 123" + number(9) + bytes(8) + number(CREATED),
    b"r" + FIRST + b"c" + LIFE + number(1) + b"digest 1" + number(CREATED),
    b"r" + SECOND + b"c" + LIFE + number(2) + b"digest 2" + number(UPDATED),
    b"s" + LIFE + STAGE + number(UPDATED),
]
SCOPE = b"acme\0session\0"
AGE = number(LATEST - CREATED)
INDEX = [
    b"f1",
    b"i" + NAME,
    b"l" + SCOPE + b"red\0chat-7",
    b"l" + SCOPE + b"\xc3\xa9\0chat-7",
    b"r" + SCOPE + AGE + b"chat-7",
    b"s" + SCOPE + b"red\0" + AGE + b"chat-7",
    b"s" + SCOPE + b"\xc3\xa9\0" + AGE + b"chat-7",
    b"x" + number(EXPIRES) + number(CREATED) + b"\0\x13" + NAME + b"red\0\xc3\xa9",
]
ITEMS = [
    Item(b"c\0\x01\xff", b"cell \0\x01", 2),
    Item(append_key(b"l\0", 1, 0), b"row", 1),
]


def test_the_bucket_and_the_name_of_a_key() -> None:
    assert Names("perdure").session(KEY) == (37, b"perdure:{37}:" + NAME)


async def test_what_was_written_is_read(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, raw):
        raw.client.zadd(raw.name(KEY), dict.fromkeys(SESSION, 0))
        raw.client.zadd(raw.index(KEY), dict.fromkeys(INDEX, 0))
        head = Head(
            version=2,
            incarnation=LIFE,
            tip=SECOND,
            last_delete=1,
            created_at=CREATED,
            updated_at=UPDATED,
            expires_at=EXPIRES,
            meta=b"meta",
            meta_version=2,
            labels=("red", "é"),
        )
        assert (await backend.read(KEY)).head == head
        assert await read_items(backend, KEY) == ITEMS
        for label in (None, "red", "é"):
            for order in Order:
                assert await list_ids(backend, KEY, label=label, order=order) == ["chat-7"]
        again = new_commit(id=FIRST, digest=b"digest 1")
        assert (await backend.commit(KEY, again)).version == 1
        assert await backend.delete(KEY, id=DELETION)
        made = await backend.commit(KEY, new_commit(stages=(STAGE,), incarnation=LIFE))
        assert made.version == 3
        assert [item.value for item in await read_items(backend, KEY)] == [
            b"cell \0\x01",
            b"row",
            b"of a stage",
        ]


async def test_what_is_written_now_is_what_was_written(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, raw):
        first = new_commit(
            id=FIRST,
            digest=b"digest 1",
            new_incarnation=LIFE,
            expect=Expect.ABSENT,
            labels=("red", "é"),
            deletes=(b"gone",),
            appends=(Append(b"l\0", (b"row",)),),
        )
        created = (await backend.commit(KEY, first)).now
        await asyncio.sleep(0.01)  # so that no two times are alike
        second = new_commit(
            id=SECOND,
            digest=b"digest 2",
            incarnation=LIFE,
            base=1,
            conditions=(Condition(b"gone", 0),),
            puts=((b"c\0\x01\xff", b"cell \0\x01"),),
            meta=b"meta",
            expires_at=EXPIRES,
        )
        updated = (await backend.commit(KEY, second)).now
        await asyncio.sleep(0.01)
        await backend.stage(KEY, LIFE, STAGE, ((b"part", b"of a stage"),))
        found = raw.members(raw.name(KEY))
        staged = int.from_bytes(found[-1][33:], "big")
        assert created < updated < staged < updated + 60_000
        for old, new in ((CREATED, created), (UPDATED, updated), (UPDATED, staged)):
            found = [member.replace(number(new), number(old)) for member in found]
        assert found == [m for m in SESSION if m[:1] != b"d" and m[17:18] != b"d"]
        index = [m for m in raw.members(raw.index(KEY)) if m[:1] != b"u"]
        index = [m.replace(number(created), number(CREATED)) for m in index]
        assert [m.replace(number(LATEST - created), AGE) for m in index] == INDEX
