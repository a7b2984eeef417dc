"""What saving a document again sends: what is new of it, in one round trip."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

from perdure import Conflict, Store
from perdure.backend import Backend
from perdure.layout import DOCUMENT, DOCUMENT_STOP
from perdure.types import Scan

from tests.core.documents import Meter, chat, message, text

LIMIT = 64 * 1024
MEGABYTE = chat(1_000_000)


@pytest.fixture
def meter(backend: Backend) -> Meter:
    return Meter(backend)


async def test_ten_megabytes_after_one_more_turn_are_saved_by_64_kib(meter: Meter) -> None:
    store = Store(meter)
    document = chat(10_000_000)
    await store.save("s", document)
    assert meter.bytes > 8_000_000
    rng = random.Random(1)
    for _ in range(12):
        document["messages"] += [message(rng), message(rng)]
        meter.reset()
        await store.save("s", document)
        assert (meter.trips, meter.commits) == (1, 1)
        assert meter.bytes <= LIMIT
    document["messages"].append(message(rng))
    meter.reset()
    await Store(meter).save("s", document)
    assert (meter.reads, meter.commits) == (1, 1)
    assert meter.bytes <= LIMIT
    assert await Store(meter).load("s") == document


def _insert_first(document: dict[str, Any]) -> None:
    document["messages"].insert(0, message(random.Random(2)))


def _edit_in_the_middle(document: dict[str, Any]) -> None:
    document["messages"][200]["content"][0]["text"] += "!"


def _remove_from_the_middle(document: dict[str, Any]) -> None:
    del document["messages"][100:250]


def _remove_the_end(document: dict[str, Any]) -> None:
    del document["messages"][-100:]


def _change_a_line(document: dict[str, Any]) -> None:
    lines = document["files"]["src/f5.py"].splitlines(keepends=True)
    lines[600] = "another line, longer than before\n"
    document["files"]["src/f5.py"] = "".join(lines)


def _remove_a_file(document: dict[str, Any]) -> None:
    del document["files"]["src/f3.py"]


def _add_a_key(document: dict[str, Any]) -> None:
    document["step"] = 3


def _put_a_key_first(document: dict[str, Any]) -> None:
    old = dict(document)
    document.clear()
    document.update({"version": 2, **old})


def _turn_the_keys_round(document: dict[str, Any]) -> None:
    document["messages"] = document.pop("messages")


CHANGES = (
    _insert_first,
    _edit_in_the_middle,
    _remove_from_the_middle,
    _remove_the_end,
    _change_a_line,
    _remove_a_file,
    _add_a_key,
    _put_a_key_first,
    _turn_the_keys_round,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
async def test_a_change_anywhere_is_a_small_save(
    meter: Meter, change: Callable[[dict[str, Any]], None]
) -> None:
    store = Store(meter)
    await store.save("s", MEGABYTE)
    document = copy.deepcopy(MEGABYTE)
    change(document)
    assert document != MEGABYTE or list(document) != list(MEGABYTE)
    meter.reset()
    await store.save("s", document)
    assert meter.trips == 1
    assert meter.bytes < 50_000
    loaded = await Store(meter).load("s", type=dict[str, Any])
    assert loaded == document
    assert list(loaded or ()) == list(document)


@pytest.mark.parametrize(
    "line", ["{n}: the same words on each line\n", "{n:06}" + "x" * 250 + "\n", "{n} "]
)
async def test_a_changed_line_does_not_send_its_file_again(meter: Meter, line: str) -> None:
    """Also where the lines are much alike, or there are none."""
    count = 1_000_000 // len(line.format(n=0))
    lines = [line.format(n=n) for n in range(count)]
    store = Store(meter)
    await store.save("s", {"log": "".join(lines)})
    lines[count // 2] = "something else entirely\n"
    meter.reset()
    await store.save("s", {"log": "".join(lines)})
    assert meter.bytes < 50_000


async def test_appending_to_a_short_document_costs_its_length(meter: Meter) -> None:
    store = Store(meter)
    document = chat(20_000)
    await store.save("s", document)
    meter.reset()
    await store.save("s", document)
    assert meter.trips == 1
    assert meter.bytes < 22_000


@pytest.mark.parametrize("size", [10, 30_000, 400_000])
async def test_a_document_that_nobody_knows_is_written_in_one_round_trip(
    meter: Meter, size: int
) -> None:
    document = text(random.Random(3), size)
    await Store(meter).save("s", document)
    assert meter.trips == 1
    await Store(meter).save("s", document)
    assert meter.trips == 2
    assert await Store(meter).load("s") == document


async def test_who_has_loaded_a_document_saves_it_in_one_round_trip(meter: Meter) -> None:
    await Store(meter).save("s", MEGABYTE)
    store = Store(meter)
    session = store.session("s")
    document = await session.load(type=dict[str, Any])
    assert document is not None
    document["messages"].append("one more")
    await session.append("and something in the log")
    meter.reset()
    await session.save(document)
    assert meter.trips == 1
    assert meter.bytes < 50_000


async def test_a_save_that_expects_a_version_is_as_small(meter: Meter) -> None:
    store = Store(meter)
    version = await store.save("s", MEGABYTE, expect=0)
    meter.reset()
    version = await store.save("s", {**MEGABYTE, "step": 1}, expect=version)
    assert meter.trips == 1
    other = Store(meter)
    await other.save("s", {**MEGABYTE, "step": 2})
    meter.reset()
    with pytest.raises(Conflict):
        await store.save("s", {**MEGABYTE, "step": 3}, expect=version)
    with pytest.raises(Conflict):
        await Store(meter).save("s", {**MEGABYTE, "step": 3}, expect=version)
    with pytest.raises(Conflict):
        await Store(meter).save("s", MEGABYTE, expect=0)
    assert meter.bytes < 50_000
    assert await other.load("s") == {**MEGABYTE, "step": 2}


async def test_pieces_that_repeat_are_stored_once(meter: Meter) -> None:
    file = text(random.Random(4), 200_000)
    await Store(meter).save("s", {"a": file, "b": file, "c": file})
    assert meter.bytes < 300_000
    assert await Store(meter).load("s") == {"a": file, "b": file, "c": file}


async def test_a_document_that_shrinks_leaves_nothing_of_what_went(
    meter: Meter, backend: Backend
) -> None:
    """Neither a little at a time nor at once: what is not needed is overwritten or deleted."""
    store = Store(meter)
    document = chat(1_000_000)
    await store.save("s", document)
    await store.session("s").append("log")
    while document["messages"]:
        del document["messages"][-30:]
        del document["files"][next(iter(document["files"]))]
        meter.reset()
        await store.save("s", document)
        assert meter.trips == 1
        assert await Store(backend).load("s") == document
        assert await _stored(backend) < 2 * len(str(document)) + 10_000
        if not document["files"]:
            break
    await store.save("s", "short")
    assert await _stored(backend) < 1000


async def test_a_document_that_varies_in_length_deletes_nothing(meter: Meter) -> None:
    """Deletions make others read their log again."""
    store = Store(meter)
    rng = random.Random(5)
    document = chat(1_000_000)
    await store.save("s", document)
    for _ in range(20):
        messages = document["messages"]
        for _ in range(rng.randrange(20)):
            del messages[rng.randrange(len(messages))]
        for _ in range(rng.randrange(20)):
            messages.insert(rng.randrange(len(messages)), message(rng))
        await store.save("s", document)
    assert meter.deletes == 0
    assert await Store(meter).load("s") == document


async def _stored(backend: Backend) -> int:
    snapshot = await backend.read(Store(backend).key("s"), Scan(DOCUMENT, DOCUMENT_STOP))
    return sum(len(item.value) for item in snapshot.rows[0].items)
