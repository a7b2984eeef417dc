"""Streams, and what is derived from them, on every backend."""

from perdure import START, Derived, Log, Store


async def test_streams_are_read_by_themselves_and_listed_in_order(any_store: Store) -> None:
    session = any_store.session("s")
    await session.append("main")
    for n, name in enumerate(("b", "a", "é", "a/b")):
        await session.stream(name).append(*range(n + 1))
    fresh = any_store.session("s")
    assert await fresh.streams() == ["a", "a/b", "b", "é"]
    assert await fresh.stream("a").entries() == [0, 1]
    assert await fresh.entries() == ["main"]
    log, tail = await fresh.read(Log(), Log(last=2, stream="a/b"))
    assert (log, tail) == (["main"], [2, 3])


async def test_long_streams_are_listed_without_reading_them(any_store: Store) -> None:
    session = any_store.session("s")
    for name in ("x", "y", "z"):
        for _ in range(3):
            await session.stream(name).append("." * 20_000)
    assert await any_store.session("s").streams() == ["x", "y", "z"]


async def test_a_deleted_stream_is_gone_with_what_was_derived_and_no_other(
    any_store: Store,
) -> None:
    session = any_store.session("s")
    at = await session.stream("a").append(1, 2)
    await session.stream("b").append(3)
    await session.derive("sum", 3, at=at, stream="a")
    await session.stream("a").delete()
    assert await session.streams() == ["b"]
    await session.stream("a").append(4)
    resumed = await any_store.session("s").resume("sum", stream="a")
    assert (resumed.value, resumed.entries) == (None, [4])
    assert await session.stream("b").entries() == [3]


async def test_a_derived_value_is_read_with_the_entries_after_it(any_store: Store) -> None:
    session = any_store.session("s")
    await session.append("a", "b")
    at = await session.append("c", "d")
    await session.append("e")
    await session.derive("summary", {"upto": "d"}, at=at)
    resumed = await any_store.session("s").resume("summary")
    assert (resumed.value, resumed.position) == ({"upto": "d"}, at)
    assert resumed.entries == ["e"]
    await session.append("f")
    assert (await session.resume("summary")).entries == ["e", "f"]


async def test_a_derived_value_counts_as_absent_once_its_entry_is_cut_off(
    any_store: Store,
) -> None:
    session = any_store.session("s")
    first = await session.append("a")
    last = await session.append("b", "c")
    await session.derive("summary", "abc", at=last)
    assert await session.pop() == "c"
    resumed = await any_store.session("s").resume("summary")
    assert (resumed.value, resumed.position, resumed.entries) == (None, None, ["a", "b"])
    await session.append("d")
    assert (await session.resume("summary")).entries == ["a", "b", "d"]
    await session.derive("summary", "a", at=first)
    await session.truncate(after=START)
    assert await session.resume("summary") == await any_store.session("s").resume("summary")
    assert (await session.resume("summary")).value is None


async def test_a_long_tail_behind_a_derived_value_is_read_to_it_and_no_further(
    any_store: Store,
) -> None:
    session = any_store.session("s")
    for n in range(4):
        await session.append([n, "." * 30_000])
    at = await session.append("here")
    for n in range(5):
        await session.append([n, "." * 30_000])
    await session.derive("v", 1, at=at)
    (resumed,) = await any_store.session("s").read(Derived("v"))
    assert [entry[0] for entry in resumed.entries] == list(range(5))
