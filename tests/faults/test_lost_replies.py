"""A connection that breaks at any byte of a write: the retry applies it exactly once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count

import msgspec
import pytest

from perdure import Session, Store, retry
from perdure.codec import Codec
from perdure.plugins import open_backend
from perdure.testing.shorthand import read_head, read_items

from perdure_dynamodb import requests
from tests.faults.databases import Database
from tests.faults.proxy import Fault, Part, Proxy, Then

SHORT = 0.25
"""Seconds that a backend waits for an answer, where none comes."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses before a retry are there to spare a server in trouble. Here none is."""
    for policy in (retry, requests):
        monkeypatch.setattr(policy, "FIRST_PAUSE", 0.002)


@pytest.fixture
async def proxy(networked: Database) -> AsyncIterator[Proxy]:
    async with await Proxy.start(networked.url) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[Store]:
    """Behind the proxy, and connected."""
    async with Store(proxy.url) as store:
        yield store


@pytest.fixture
async def hasty(networked: Database, proxy: Proxy) -> AsyncIterator[Store]:
    """Behind the proxy too, but it does not wait for long."""
    async with Store(f"{proxy.url}&{networked.patience}={SHORT}") as store:
        yield store


async def cut_at_bytes(
    proxy: Proxy,
    part: Part,
    write: Callable[[int], Awaitable[None]],
    containing: bytes,
    apart: int = 1,
    nth: int = 1,
) -> int:
    """Write again and again, and cut the connection later each time, from byte 0 of the request
    or reply on, until that is shorter. How many times it was cut, and ``write`` was called with
    0, 1, 2, …; once more, and it was not cut."""
    for number in count():
        fired = proxy.fired
        then = (Then.CLOSE, Then.RESET)[number % 2]
        proxy.arm(Fault(part, number * apart, then, containing, nth))
        await write(number)
        if proxy.fired == fired:
            proxy.disarm()
            return number
    raise AssertionError


@pytest.fixture
async def other(networked: Database) -> AsyncIterator[Store]:
    """Another client, that nothing happens to."""
    async with Store(networked.url) as other:
        yield other


async def assert_log(other: Store, id: str, entries: Sequence[object]) -> None:
    """What the other client finds: one commit for each entry, in order."""
    assert await other.session(id).entries() == entries
    head = await read_head(other.backend, other.key(id))
    assert head.version == len(entries)
    rows = await read_items(other.backend, other.key(id))
    assert [row.version for row in rows] == list(range(1, len(entries) + 1))
    ids = [Codec().row_commit_id(row.value) for row in rows]
    assert len(set(ids)) == len(ids)
    assert ids[-1] == head.tip


@pytest.mark.parametrize("part", Part, ids=lambda part: part.value)
async def test_an_append(
    networked: Database, proxy: Proxy, store: Store, other: Store, part: Part
) -> None:
    session = store.session("plum")
    written: list[object] = []

    async def append(number: int) -> None:
        # A new connection has statements to prepare; the one that is cut sends the usual.
        for entry in (number, {"marker": number}):
            written.append(entry)
            await session.append(entry)

    times = await cut_at_bytes(proxy, part, append, b"marker", networked.closely)
    assert times > 50 // networked.closely
    assert proxy.fired == times
    await assert_log(other, "plum", written)


async def test_a_creation(
    networked: Database, proxy: Proxy, store: Store, other: Store
) -> None:
    async def create(number: int) -> None:
        await store.session(f"plum-{number}").append("first")

    times = await cut_at_bytes(proxy, Part.REPLY, create, b"plum-", networked.apart)
    assert times > 20
    for number in range(times + 1):
        await assert_log(other, f"plum-{number}", ["first"])


async def test_a_turn(networked: Database, proxy: Proxy, store: Store, other: Store) -> None:
    """It expects a version and does not take its own commit for somebody else's."""
    session = store.session("plum")
    await session.append("first")
    written: list[object] = ["first"]

    async def take_turn(number: int) -> None:
        async with session.turn() as turn:
            turn.append({"marker": number})
            turn.cells["step"] = number
        written.append({"marker": number})

    times = await cut_at_bytes(proxy, Part.REPLY, take_turn, b"marker", networked.apart)
    assert times > 20
    assert await other.session("plum").entries() == written
    assert await other.session("plum").cells.get("step") == times
    assert (await read_head(other.backend, session.key)).version == times + 2


async def test_a_document(
    networked: Database, proxy: Proxy, store: Store, other: Store
) -> None:
    await store.save("plum", {"marker": -1})

    async def save(number: int) -> None:
        made = await store.save("plum", {"marker": number})
        assert made == number + 2

    times = await cut_at_bytes(proxy, Part.REPLY, save, b"marker", networked.apart)
    assert times > 20
    assert await other.load("plum") == {"marker": times}
    head = await read_head(other.backend, store.key("plum"))
    assert head.version == times + 2


async def test_a_deletion(
    networked: Database, proxy: Proxy, store: Store, other: Store
) -> None:
    """It deletes the session that it meant, and not the one made after it."""
    session = store.session("plum")
    await session.append("first")

    async def delete(number: int) -> None:
        assert await store.session("plum").delete()
        assert await store.session("plum").head() is None
        assert not await store.session("plum").delete()
        await session.entries()  # a handle goes on only from what is there now
        await session.append({"number": number})

    times = await cut_at_bytes(proxy, Part.REPLY, delete, networked.deletion, networked.apart)
    assert times > 20
    await assert_log(other, "plum", [{"number": times}])


async def test_a_commit_in_parts(networked: Database, proxy: Proxy, other: Store) -> None:
    """Whichever of its requests breaks, its parts become visible once and together."""
    backend = open_backend(proxy.url)
    await backend.open()
    backend.capabilities = msgspec.structs.replace(backend.capabilities, max_commit_bytes=2000)
    written: list[object] = []
    async with Store(backend) as store:
        session = store.session("plum")
        for part in Part:
            nth = 0
            while True:
                nth += 1
                fired = proxy.fired
                proxy.arm(Fault(part, 1, Then.CLOSE, nth=nth))
                entry = {"part": part.value, "nth": nth}
                async with session.turn() as turn:
                    turn.append(entry)
                    for cell in "abcd":
                        turn.cells[cell] = f"{cell}{nth}" * 300
                written.append(entry)
                if proxy.fired == fired:
                    proxy.disarm()
                    break
            assert nth > 3, "it went in one part"
            for cell in "abcd":
                assert await other.session("plum").cells.get(cell) == f"{cell}{nth}" * 300
    assert await other.session("plum").entries() == written
    assert (await read_head(other.backend, other.key("plum"))).version == len(written)


LATE = 2 * SHORT
BEFORE = ("first", {"number": 0}, {"number": 1})
"""What :func:`break_in_the_middle` has appended."""


async def break_in_the_middle(
    proxy: Proxy, session: Session, part: Part, share: float, then: Then
) -> None:
    """Let the next request that contains ``marker`` break after this share of its bytes."""
    for entry in BEFORE:
        await session.append(entry)
    usual = proxy.exchanges[-1]
    size = usual.request if part is Part.REQUEST else usual.reply
    proxy.arm(Fault(part, min(int(size * share), size - 1), then, b"marker", pause=LATE))


@pytest.mark.parametrize("part", Part, ids=lambda part: part.value)
@pytest.mark.parametrize("share", [0, 0.5, 1])
async def test_an_answer_that_comes_late(
    proxy: Proxy, hasty: Store, other: Store, part: Part, share: float
) -> None:
    """The backend waits no longer and the store sends again. What was on its way arrives
    when the session has gone on; it is recognised, and writes nothing."""
    session = hasty.session("plum")
    await break_in_the_middle(proxy, session, part, share, Then.PAUSE)
    loop = asyncio.get_running_loop()
    start = loop.time()
    await session.append({"marker": 1})
    assert proxy.fired == 1
    assert loop.time() - start > SHORT / 2, "it was sent again"
    await session.append("after")
    await asyncio.sleep(LATE)
    await session.append("much later")
    expected = [*BEFORE, {"marker": 1}, "after", "much later"]
    await assert_log(other, "plum", expected)


async def test_a_slow_answer_is_waited_for(proxy: Proxy, store: Store, other: Store) -> None:
    session = store.session("plum")
    await session.append("first")
    for part in Part:
        proxy.arm(Fault(part, 3, Then.PAUSE, b"marker", pause=0.2))
        sent = len(proxy.exchanges)
        await session.append({"marker": part.value})
        assert len(proxy.exchanges) == sent + 1, "sent once"
    assert proxy.fired == 2
    expected = ["first", {"marker": "request"}, {"marker": "reply"}]
    await assert_log(other, "plum", expected)


@pytest.mark.parametrize("part", Part, ids=lambda part: part.value)
@pytest.mark.parametrize("share", [0, 0.5, 1])
async def test_an_answer_that_never_comes(
    proxy: Proxy, hasty: Store, other: Store, part: Part, share: float
) -> None:
    session = hasty.session("plum")
    await break_in_the_middle(proxy, session, part, share, Then.STALL)
    async with asyncio.timeout(10 * SHORT):
        await session.append({"marker": 1})
        await session.append("after")
    assert proxy.fired == 1
    expected = [*BEFORE, {"marker": 1}, "after"]
    await assert_log(other, "plum", expected)
    async with asyncio.timeout(10 * SHORT):
        assert await hasty.session("plum").entries() == expected


async def test_commits_of_several_sessions_at_once(
    networked: Database, proxy: Proxy, store: Store, other: Store
) -> None:
    """They share a connection or a transaction, and it breaks when some have been answered."""
    sessions = [store.session(f"plum-{n}") for n in range(6)]
    written: list[object] = []

    async def append(number: int) -> None:
        for entry in (number, {"marker": number}):
            written.append(entry)
            await asyncio.gather(*(session.append(entry) for session in sessions))

    apart = 3 * networked.apart
    assert await cut_at_bytes(proxy, Part.REPLY, append, b"marker", apart) > 5
    # Those that found a connection busy went together afterwards, if there were any.
    await cut_at_bytes(proxy, Part.REPLY, append, b"marker", apart, nth=2)
    for session in sessions:
        await assert_log(other, session.key.id, written)


async def test_reads_that_break(networked: Database, proxy: Proxy, store: Store) -> None:
    """They are repeated, and never half an answer."""
    session = store.session("plum")
    await session.append({"marker": 0}, {"marker": 1})

    async def read(number: int) -> None:
        del number
        assert await store.session("plum").entries() == [{"marker": 0}, {"marker": 1}]

    assert await cut_at_bytes(proxy, Part.REPLY, read, b"plum", networked.apart) > 20


async def test_nothing_is_left_of_broken_connections(networked: Database, proxy: Proxy) -> None:
    others = networked.connections()
    async with Store(proxy.url) as store:
        session = store.session("plum")
        for number in range(20):
            proxy.arm(Fault(Part.REPLY, number, Then.RESET, b"marker"))
            await session.append({"marker": number})
            proxy.cut()
            await session.append(number)
        assert await networked.until(
            lambda: networked.connections() - others <= networked.limit
        )
        assert await networked.until(lambda: networked.unfinished() == 0)
    assert await networked.until(lambda: networked.connections() <= others)
