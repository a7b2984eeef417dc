"""A stored document that is not what was written is found out, never returned."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from perdure import Corrupt, Document, InvalidValue, Store, TooLarge
from perdure.backend import Backend
from perdure.codec import MAX_DEPTH, MAX_VALUE_BYTES, Codec
from perdure.document import DOCUMENT_ITEMS, encoded_document
from perdure.layout import DOCUMENT, DOCUMENT_STOP
from perdure.manifest import Manifest, slot_key
from perdure.request import View
from perdure.testing.shorthand import write
from perdure.types import Item, Scan, SessionKey

from tests.core.documents import Meter, chat, text

KEY = SessionKey("default", "session", "s")
LONG = chat(300_000)

Items = dict[bytes, bytes]


async def stored(backend: Backend) -> Items:
    snapshot = await backend.read(KEY, Scan(DOCUMENT, DOCUMENT_STOP))
    return {item.key: item.value for item in snapshot.rows[0].items}


def _flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _flip_a_bit_of_a_piece(items: Items) -> Items:
    return {slot_key(5): _flipped(items[slot_key(5)], 8 * 3000 + 4)}


def _swap_two_pieces(items: Items) -> Items:
    return {slot_key(5): items[slot_key(6)], slot_key(6): items[slot_key(5)]}


def _cut_a_piece_short(items: Items) -> Items:
    return {slot_key(5): items[slot_key(5)][:-1]}


def _empty_a_piece(items: Items) -> Items:
    return {slot_key(5): Codec().seal_bytes(KEY, b"")}


def _blow_a_piece_up(items: Items) -> Items:
    return {slot_key(5): Codec().seal_bytes(KEY, bytes(60_000_000))}


DAMAGES = (
    _flip_a_bit_of_a_piece,
    _swap_two_pieces,
    _cut_a_piece_short,
    _empty_a_piece,
    _blow_a_piece_up,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
async def test_a_damaged_piece_is_found_and_a_save_heals_it(
    backend: Backend, damage: Callable[[Items], Items]
) -> None:
    store = Store(backend)
    await store.save("s", LONG)
    await write(backend, KEY, puts=tuple(damage(await stored(backend)).items()))
    with pytest.raises(Corrupt, match="'s'"):
        await store.session("s").read(Document())
    with pytest.raises(Corrupt, match="'s'"):
        await store.load("s")
    await store.save("s", LONG)
    assert await Store(backend).load("s") == LONG


async def test_a_piece_is_not_expanded_beyond_the_length_that_it_should_have(
    backend: Backend,
) -> None:
    await Store(backend).save("s", LONG)
    await write(backend, KEY, puts=tuple(_blow_a_piece_up(await stored(backend)).items()))
    with pytest.raises(Corrupt, match=r"60000000 bytes; \d{4,5} are allowed"):
        await Store(backend).load("s")


async def test_a_missing_piece_is_found(backend: Backend) -> None:
    await Store(backend).save("s", LONG)
    await write(backend, KEY, deletes=(slot_key(5),))
    with pytest.raises(Corrupt, match=r"piece 5 .* is missing"):
        await Store(backend).load("s")


async def test_a_stale_piece_is_found(backend: Backend) -> None:
    """One that the document held before, brought back into its slot."""
    store = Store(backend)
    await store.save("s", LONG)
    before = await stored(backend)
    changed = {**LONG, "messages": [m | {"role": "changed"} for m in LONG["messages"]]}
    await store.save("s", changed)
    now = await stored(backend)
    slot = next(k for k in before if k != DOCUMENT and now.get(k, b"") != before[k])
    await write(backend, KEY, puts=((slot, before[slot]),))
    with pytest.raises(Corrupt):
        await Store(backend).load("s")


@pytest.mark.parametrize("document", [{"short": [1, "two", 3.0]}, LONG], ids=["short", "long"])
async def test_every_bit_of_a_manifest_matters(backend: Backend, document: Any) -> None:
    await Store(backend).save("s", document)
    items = await stored(backend)
    good = items.pop(DOCUMENT)
    bits = random.Random(0).sample(range(16, 8 * len(good)), min(60, 8 * len(good) - 16))
    for bit in bits:
        await write(backend, KEY, puts=((DOCUMENT, _flipped(good, bit)),))
        with pytest.raises(Corrupt):
            await Store(backend).load("s")
    await write(backend, KEY, deletes=(DOCUMENT,))
    if items:
        with pytest.raises(Corrupt, match="no manifest"):
            await Store(backend).load("s")


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(((b"\x01", 0),), 0, b"cut short"),
        Manifest(((b"\x01", 2),), 1, bytes(22)),
        Manifest(((b"\x01", -1), (b"", 2)), 1, bytes(22)),
        Manifest(((b"\x01", 1),), 0, bytes(22)),
        Manifest(((b"\x01", 0),), 2**32, b""),
        Manifest(((b"\x01", 0),), -1, b""),
        Manifest(((b"\x91", 2800),), 1, (bytes(16) + b"\x60\0\0\0\0\0") * 2800),
    ],
    ids=["table", "count", "negative", "slot", "slots", "no slots", "over the limit"],
)
async def test_a_manifest_that_makes_no_sense_is_corrupt_and_can_be_replaced(
    backend: Backend, manifest: Manifest
) -> None:
    """A digest proves nothing about who has made it."""
    await write(backend, KEY, puts=((DOCUMENT, manifest.seal(Codec(), KEY)),))
    with pytest.raises(Corrupt):
        await Store(backend).load("s")
    long = text(random.Random(1), 700_000)
    await Store(backend).save("s", long)
    assert await Store(backend).load("s") == long


async def test_a_manifest_that_is_no_longer_true_is_not_built_on_after_a_new_life(
    backend: Backend,
) -> None:
    """The same version, in another incarnation of the session, says other things."""
    store, other = Store(backend), Store(backend)
    await store.save("s", LONG)
    await other.delete("s")
    await other.save("s", chat(300_000, seed=1))
    version = await store.save("s", {**LONG, "step": 1})
    assert version == 2
    assert await other.load("s") == {**LONG, "step": 1}


class Point(msgspec.Struct):
    x: int
    when: datetime


@dataclass
class Shape:
    name: str
    points: list[Point]


VALUES = {
    "a Struct": Point(1, datetime(2026, 11, 23, tzinfo=UTC)),
    "a dataclass": Shape("line", [Point(n, datetime(2026, 11, 23)) for n in range(5000)]),  # noqa: DTZ001
    "extension types": [
        {"id": UUID(int=n), "price": Decimal(n), "huge": 2**70 + n, "at": datetime.now(UTC)}
        for n in range(2000)
    ],
    "bytes": {"blob": random.Random(0).randbytes(200_000), "n": 1},
    "scalars": None,
    "dense": {f"k{n}": n for n in range(30_000)},
    "lists in lists": [[[n] * 20 for n in range(100)] for _ in range(40)],
}


@pytest.mark.parametrize("name", VALUES)
async def test_whatever_can_be_stored_is_loaded_again(backend: Backend, name: str) -> None:
    value = VALUES[name]
    store = Store(backend)
    for _ in range(2):
        await store.save("s", value)
    loaded = await Store(backend).load("s", type=type(value)) if value is not None else None
    assert loaded == value
    items = await stored(backend)
    (document,) = await store.session("s").read(Document(type(value)))
    assert document is not None
    assert document.value == value
    assert DOCUMENT in items


async def test_a_document_that_does_not_fit_the_type_is_refused(backend: Backend) -> None:
    store = Store(backend)
    await store.save("s", {"x": "one", "when": None})
    with pytest.raises(InvalidValue):
        await store.load("s", type=Point)
    assert await store.load("s") == {"x": "one", "when": None}
    assert await store.load("absent", type=Point) is None


async def test_what_cannot_be_saved_leaves_what_is_there(backend: Backend) -> None:
    store = Store(Meter(backend))
    await store.save("s", LONG)
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(InvalidValue, match=r"data\.a\[1\]"):
        await store.save("s", {"a": [1, {2}]})
    with pytest.raises(InvalidValue):
        await store.save("s", deep)
    with pytest.raises(TooLarge):
        await store.save("s", [bytes(MAX_VALUE_BYTES)])
    assert await store.load("s") == LONG


async def test_one_value_is_what_the_pieces_are_when_joined(backend: Backend) -> None:
    await Store(backend).save("s", LONG)
    snapshot = await backend.read(KEY, DOCUMENT_ITEMS)
    view = View(KEY, snapshot.head, snapshot.now, Codec())
    items: list[Item] = list(snapshot.rows[0].items)
    body = encoded_document(items, view)
    assert msgspec.msgpack.decode(body) == LONG
    assert encoded_document([], view) == b""
