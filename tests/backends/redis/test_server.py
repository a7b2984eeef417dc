"""What the server is like: its memory, its policy, its users, whatever else it holds."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.backend import Durability
from perdure.errors import Corrupt, FormatTooNew, InvalidURL, Unavailable, Unsupported
from perdure.plugins import open_backend
from perdure.retry import retrying
from perdure.testing.shorthand import list_ids, new_id, read_head, read_items, write
from perdure.types import Append, SessionKey

from perdure_redis.scripts import SETUP
from tests.backends.redis.opened import opened
from tests.faults.proxy import Fault, Part, Proxy, Then
from tests.services.cluster import Cluster
from tests.services.valkey import Valkey

KEY = SessionKey.of("acme", "session", "chat-7")
README = Path(__file__).parents[3] / "backends" / "redis" / "README.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey.start(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture
def limited(server: Valkey) -> Iterator[Valkey]:
    """The server, to be given a limit of memory that is taken away again."""
    yield server
    server.call("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")


async def test_a_server_that_may_drop_keys_is_refused(limited: Valkey) -> None:
    limited.call("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "volatile-lru")
    backend = open_backend(limited.url)
    for _ in range(2):
        with pytest.raises(Unsupported, match=r"volatile-lru.*eviction=allow"):
            await backend.open()
        with pytest.raises(Unsupported):
            await write(backend, KEY)
    await backend.aclose()
    async with opened(limited.url, "&eviction=allow") as (backend, _):
        await write(backend, KEY)
        assert "may drop sessions" in (await backend.describe()).details["warning"]
    limited.call("CONFIG", "SET", "maxmemory", "0")
    async with opened(limited.url) as (backend, _):
        await write(backend, KEY)


async def test_a_full_server_takes_nothing_and_can_be_emptied(limited: Valkey) -> None:
    async with opened(limited.url) as (backend, raw):
        made = await write(backend, KEY, puts=((b"a", b"x" * 100_000),))
        other = SessionKey("acme", "session", "other")
        before = raw.members(raw.name(KEY)), sorted(raw.indexes())
        limited.call("CONFIG", "SET", "maxmemory", "1mb")
        for key in (KEY, other):
            with pytest.raises(Unavailable, match="maxmemory") as caught:
                await write(backend, key, puts=((b"b", b"y"),), labels=("l",))
            assert caught.value.lasting
            with pytest.raises(Unavailable, match="maxmemory"):
                await backend.stage(key, made.incarnation, new_id(), ((b"p", b"z"),))
        assert (raw.members(raw.name(KEY)), sorted(raw.indexes())) == before
        assert raw.members(raw.name(other)) == []
        assert await read_head(backend, KEY) == made.head
        assert await list_ids(backend, KEY) == [KEY.id]
        assert await backend.delete(KEY, id=new_id())
        limited.call("CONFIG", "SET", "maxmemory", "0")
        await write(backend, KEY, puts=((b"b", b"y"),))


async def test_a_lost_script_cache_costs_no_commit(server: Valkey) -> None:
    async with opened(server.url) as (backend, _):
        done = asyncio.Event()

        async def flush() -> None:
            while not done.is_set():
                await asyncio.to_thread(server.call, "SCRIPT", "FLUSH")

        async def append(writer: int) -> None:
            for n in range(100):
                await write(backend, KEY, appends=(Append(b"log", (b"%d/%d" % (writer, n),)),))

        flushing = asyncio.create_task(flush())
        await asyncio.gather(*(append(writer) for writer in range(4)))
        done.set()
        await flushing
        found = [item.value for item in await read_items(backend, KEY)]
        assert sorted(found) == sorted(b"%d/%d" % (w, n) for w in range(4) for n in range(100))
        assert (await read_head(backend, KEY)).version == 400


async def test_keys_that_are_not_ours_are_left_alone(server: Valkey) -> None:
    async with opened(server.url) as (backend, raw):
        index = raw.index(KEY)
        raw.client.delete(index)
        raw.client.rpush(index, "theirs")
        with pytest.raises(Corrupt, match="prefix"):
            await write(backend, KEY)
        assert raw.client.lrange(index, 0, -1) == [b"theirs"]
        raw.client.delete(index)
        raw.client.zadd(index, {"theirs": 0})
        with pytest.raises(Corrupt, match="prefix"):
            await write(backend, KEY)
        assert raw.members(index) == [b"theirs"]
        raw.client.delete(index)
        raw.client.set(raw.name(KEY), "theirs")
        with pytest.raises(Corrupt, match="prefix"):
            await write(backend, KEY)
        with pytest.raises(Corrupt, match="prefix"):
            await backend.read(KEY)
        assert raw.client.get(raw.name(KEY)) == b"theirs"


async def test_a_newer_format_is_refused_before_anything_is_touched(server: Valkey) -> None:
    async with opened(server.url) as (backend, raw):
        await write(backend, KEY)
        name = f"{raw.prefix}:{{0}}"
        raw.client.delete(name)
        raw.client.zadd(name, {"f2": 0})
        newer = open_backend(f"{server.url}?prefix={raw.prefix}")
        for _ in range(2):
            with pytest.raises(FormatTooNew):
                await newer.open()
        await newer.aclose()
        assert raw.members(name.encode()) == [b"f2"]


async def test_a_bucket_in_a_newer_format_is_not_written_to(server: Valkey) -> None:
    async with opened(server.url) as (backend, raw):
        raw.client.delete(raw.index(KEY))
        raw.client.zadd(raw.index(KEY), {"f2": 0})
        with pytest.raises(FormatTooNew):
            await write(backend, KEY)
        assert raw.members(raw.name(KEY)) == []


async def test_many_open_an_empty_server_at_once(server: Valkey) -> None:
    async with opened(server.url) as (first, raw):
        url = f"{server.url}?prefix={raw.prefix}x"
        backends = [open_backend(url) for _ in range(10)]
        await asyncio.gather(*(backend.open() for backend in backends))
        await asyncio.gather(*(write(backend, KEY) for backend in backends))
        assert (await read_head(backends[0], KEY)).version == 10
        assert (await first.read(KEY)).head is None, "another prefix"
        await asyncio.gather(*(backend.aclose() for backend in backends))


async def test_setup_can_be_switched_off(server: Valkey) -> None:
    async with opened(server.url) as (_, raw):
        prefix = f"{raw.prefix}-none"
        backend = open_backend(f"{server.url}?prefix={prefix}&setup=false")
        with pytest.raises(Unavailable, match="setup is switched off") as caught:
            await backend.open()
        assert caught.value.lasting
        await backend.aclose()
        assert raw.client.keys(f"{prefix}*") == []
    async with opened(server.url) as (_, raw):
        backend = open_backend(f"{server.url}?prefix={raw.prefix}&setup=false")
        for n in range(100):  # in any bucket
            await write(backend, SessionKey("acme", "session", f"s{n}"))
        await backend.aclose()


async def test_a_user_without_a_command_is_refused_before_it_is_missed(server: Valkey) -> None:
    server.call(
        *("ACL", "SETUSER", "half", "on", ">secret", "~*", "&*", "+@all"),
        *("-zremrangebylex", "-persist"),
    )
    backend = open_backend(f"redis://half:secret@127.0.0.1:{server.port}?prefix=half")
    with pytest.raises(Unavailable, match="ZREMRANGEBYLEX, PERSIST") as caught:
        await backend.open()
    assert caught.value.lasting
    assert "secret" not in str(caught.value)
    await backend.aclose()
    assert server.call("KEYS", "half*") == []


async def test_the_permissions_that_the_readme_names_are_enough(server: Valkey) -> None:
    (rules,) = re.findall(r"`(\+@read [^`]*)`", README.read_text())
    server.call(
        *("ACL", "SETUSER", "plain", "on", ">secret", "~perdure:*", "&perdure:*"),
        *rules.split(),
    )
    backend = open_backend(f"redis://plain:secret@127.0.0.1:{server.port}")
    made = await write(backend, KEY, labels=("l",), puts=((b"a", b"x" * 200_000),))
    waiting = asyncio.create_task(backend.wait(KEY, after=made.head, timeout=10))
    await asyncio.sleep(0.05)
    later = await write(backend, KEY, expires_in=60_000, deletes=(b"b",))
    async with asyncio.timeout(5):
        assert await waiting == later.head
    assert len(await read_items(backend, KEY)) == 1  # a long read, in a transaction
    await backend.stage(KEY, made.incarnation, new_id(), ((b"part", b"1"),))
    assert await list_ids(backend, KEY, label="l") == [KEY.id]
    assert (await backend.tenants()).items == ("acme",)
    assert await backend.delete(KEY, id=new_id())
    await backend.sweep()
    assert (await backend.describe()).details["server"].startswith("valkey")
    await backend.aclose()


async def test_only_a_session_that_is_waited_for_publishes(server: Valkey) -> None:
    async with opened(server.url) as (backend, _):
        other = SessionKey("acme", "session", "other")
        made = await write(backend, KEY)
        waiting = asyncio.create_task(backend.wait(KEY, after=made.head, timeout=10))
        await asyncio.sleep(0.05)
        server.call("CONFIG", "RESETSTAT")
        for _ in range(10):
            await write(backend, other)
        assert "cmdstat_spublish" not in server.fields("INFO", "commandstats")
        later = await write(backend, KEY)
        async with asyncio.timeout(5):
            assert await waiting == later.head
        published = server.fields("INFO", "commandstats")["cmdstat_spublish"]
        assert published.startswith("calls=1,")


async def test_a_user_who_may_not_publish_only_makes_others_poll(server: Valkey) -> None:
    server.call(
        *("ACL", "SETUSER", "quiet", "on", ">secret", "~quiet:*", "resetchannels"),
        *("+@all", "-@admin", "+info", "+config|get"),
    )
    backend = open_backend(f"redis://quiet:secret@127.0.0.1:{server.port}?prefix=quiet")
    made = await write(backend, KEY)
    waiting = asyncio.create_task(backend.wait(KEY, after=made.head, timeout=5))
    await asyncio.sleep(0.02)
    later = await write(backend, KEY)
    async with asyncio.timeout(3):
        assert await waiting == later.head
    await backend.aclose()


@pytest.mark.parametrize(
    ("options", "durability", "said"),
    [
        (("--appendonly", "no"), Durability.NONE, "memory"),
        (("--appendonly", "yes"), Durability.PROCESS, "synced later"),
        (("--appendonly", "yes", "--appendfsync", "always"), Durability.HOST, "power loss"),
    ],
)
async def test_what_is_promised_is_what_the_settings_keep(
    tmp_path_factory: pytest.TempPathFactory,
    options: tuple[str, ...],
    durability: Durability,
    said: str,
) -> None:
    with Valkey.start(tmp_path_factory.mktemp("aof"), *options) as server:
        async with opened(server.url) as (backend, _):
            assert backend.capabilities.durability is durability
            assert said in backend.capabilities.durability_note
            description = await backend.describe()
            assert description.durability == backend.capabilities.durability_note
            assert description.details["server"].startswith("valkey ")
            assert str(server.port) in description.location


async def test_a_cluster_describes_all_its_nodes(valkey_cluster: Cluster) -> None:
    async with opened(valkey_cluster.url, cluster=True) as (backend, _):
        description = await backend.describe()
        assert description.details["mode"] == "cluster, 3 nodes with sessions"
        assert all(str(node.port) in description.location for node in valkey_cluster.nodes)


async def test_a_server_is_described_after_the_connection_to_it_was_lost(
    server: Valkey,
) -> None:
    async with opened(server.url) as (backend, _):
        before = await backend.describe()
        server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        after = await retrying(backend.describe, 10)
        assert after.location == before.location


async def test_a_lost_reply_while_opening_leaves_no_doubt(server: Valkey) -> None:
    """Nothing of the caller's was sent: that the prefix is in use is all that may be new."""
    async with await Proxy.start(server.url) as proxy:
        backend = open_backend(f"{proxy.url}?prefix=opening")
        proxy.arm(Fault(Part.REPLY, 0, Then.CLOSE, containing=SETUP.sha))
        with pytest.raises(Unavailable) as caught:
            await write(backend, KEY)
        assert proxy.fired == 1
        assert not caught.value.lasting
        assert (await write(backend, KEY)).version == 1
        await backend.aclose()


async def test_before_it_is_opened_nothing_is_promised(server: Valkey) -> None:
    backend = open_backend(server.url)
    assert backend.capabilities.durability is Durability.NONE
    await backend.aclose()


@pytest.mark.parametrize(
    "options",
    [
        "prefix=",
        "prefix=a{b}",
        "prefix=a%20b",
        "setup=maybe",
        "eviction=sometimes",
        "prefixx=a",
    ],
)
def test_options_that_make_no_sense(options: str) -> None:
    with pytest.raises(InvalidURL):
        open_backend(f"redis://localhost?{options}")
