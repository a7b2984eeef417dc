"""A log that is trimmed from its beginning, again and again, reads as what is left of it."""

import random

import pytest

from perdure.testing import TestClock
from perdure.testing.shorthand import at, read_head, write
from perdure.types import Append, Item, KeyRange, Restored, Scan, SessionKey, append_key

from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.chain import SETTLING_MS
from tests.backends.dynamodb.conftest import Fresh
from tests.backends.dynamodb.raw import Raw

KEY = SessionKey.of("acme", "session", "chat-7")
LOG = b"log/"
PREFIXES = (b"", b"log", LOG, b"log/\0", append_key(LOG, 1, 0))


def a_bound(rng: random.Random, version: int) -> bytes | None:
    near = append_key(LOG, rng.randint(0, version + 2), rng.randint(0, 2))
    return rng.choice(
        (near, near[:-4], near + b"\0", near[: rng.randint(0, len(near))], b"log0", None)
    )


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_left_is_read_and_nothing_else(
    backend: DynamoDBBackend, fresh: Fresh, raw: Raw, clock: TestClock, seed: int
) -> None:
    rng = random.Random(seed)
    left: dict[bytes, tuple[bytes, int]] = {}
    other = await fresh()
    version = 0
    for step in range(40):
        writer = rng.choice((backend, other))
        deletes: tuple[KeyRange, ...] = ()
        restored, expect = None, None
        version += 1
        if step and rng.random() < 0.3:
            deletes = (KeyRange(rng.choice(PREFIXES), a_bound(rng, version)),)
        elif step and rng.random() < 0.1:
            head = await read_head(writer, KEY)
            version += rng.randint(0, 5)
            restored = Restored(version, head.created_at, head.updated_at)
            expect = at(head)
        values = tuple(b"%d" % n for n in range(rng.randint(0, 2)))
        appends = (Append(LOG, values),) if values else ()
        if restored is None or expect is None:
            made = await write(writer, KEY, deletes=deletes, appends=appends)
        else:
            made = await write(writer, KEY, restored=restored, expect=expect, appends=appends)
        assert made.version == version
        for gone in deletes:
            for key in list(left):
                if gone.start <= key and (gone.stop is None or key < gone.stop):
                    del left[key]
        for ordinal, value in enumerate(values):
            left[append_key(LOG, version, ordinal)] = value, version
        expected = [Item(key, *left[key]) for key in sorted(left)]
        for reader in (backend, other, await fresh()):
            for scan in (Scan(LOG, b"log0"), Scan(LOG, b"log0", reverse=True), Scan()):
                (found,) = (await reader.read(KEY, scan)).rows
                assert list(found.items) == (expected[::-1] if scan.reverse else expected)
            (found,) = (await reader.read(KEY, Scan(LOG, b"log0", limit=2))).rows
            assert list(found.items) == expected[:2]
    await backend.aclose()
    await other.aclose()
    clock.advance(SETTLING_MS + 1)
    last = await fresh()
    while await last.sweep():
        pass
    assert raw.items(KEY) == {key: value for key, (value, _) in left.items()}
