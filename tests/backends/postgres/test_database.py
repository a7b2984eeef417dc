"""Statements run as they should: parameters, transactions, cancellation, closing."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from perdure.errors import StoreClosed, Unavailable

from perdure_postgres import database as database_module
from perdure_postgres.connection import Link, Statement, connect
from perdure_postgres.parameters import Parameter
from tests.backends.postgres.databases import (
    administer,
    commit,
    connected,
    execute,
    query,
    until,
)
from tests.backends.postgres.pooler import error, hang_up, message, receive


async def test_parameters_and_rows_keep_every_byte(postgres_url: str) -> None:
    every_byte = bytes(range(256))
    sent: tuple[Parameter, ...] = (
        every_byte,
        "naïve ✓ \U0001f9e0",
        -(2**63),
        True,
        None,
        [every_byte, b"", None],
        ["a'b{,}\"", "", None],
        (1, -2, None),
        [],
        [None],
    )
    async with connected(postgres_url) as database:
        (row,) = await query(
            database,
            "SELECT $1::bytea, $2::text, $3::bigint, $4::boolean, $5::text, $6::bytea[],"
            " $7::text[], $8::integer[], $9::bytea[], $10::bytea[]",
            *sent,
        )
    assert row == (*sent[:7], [1, -2, None], [], [None])


async def test_what_is_no_parameter_is_refused_before_anything_is_sent(
    postgres_url: str,
) -> None:
    async with connected(postgres_url) as database:
        for wrong in (1.5, [b"", "mixed"], [["nested"]]):
            with pytest.raises(TypeError):
                await query(database, "SELECT $1", wrong)
        assert await query(database, "SELECT 1") == [(1,)]


async def test_text_with_nul_is_refused_whole(postgres_url: str) -> None:
    async with connected(postgres_url) as database:
        with pytest.raises(Unavailable, match="22021"):
            await query(database, "SELECT $1::text", "a\0b")


@pytest.mark.parametrize("prepare", [True, False])
async def test_statements_of_a_call_are_one_transaction(
    postgres_url: str, prepare: bool
) -> None:
    take = Statement(b"SELECT pg_current_xact_id()::text")
    async with connected(postgres_url, prepare=prepare) as database:
        # The second time the statements are prepared.
        first, second = [await database.run(take, take, take, writes=True) for _ in "ab"]
    assert first == [first[0]] * 3
    assert second == [second[0]] * 3
    assert first != second


@pytest.mark.parametrize("prepare", [True, False])
async def test_a_failed_statement_undoes_those_before_it(
    postgres_url: str, prepare: bool
) -> None:
    async with connected(postgres_url, prepare=prepare, pool=1) as database:
        await execute(database, "CREATE TEMP TABLE t (a integer)")
        insert = Statement(b"INSERT INTO t VALUES ($1)", (1,))
        for _ in range(2):
            with pytest.raises(Unavailable, match="division by zero"):
                await database.run(insert, Statement(b"SELECT 1/0"), insert, writes=True)
            assert await query(database, "SELECT count(*) FROM t") == [(0,)]
        await database.run(insert, insert, writes=True)
        assert await query(database, "SELECT count(*) FROM t") == [(2,)]


async def test_a_statement_is_prepared_once_and_named_by_its_text(postgres_url: str) -> None:
    async with connected(postgres_url, pool=1) as database:
        for number in range(5):
            assert await query(database, "SELECT $1::bigint + 1", number) == [(number + 1,)]
        # A pipeline that fails leaves some of its statements prepared and some not.
        with pytest.raises(Unavailable):
            await database.run(
                Statement(b"SELECT 7"), Statement(b"SELECT 1/0"), Statement(b"SELECT 8"),
                writes=False,
            )  # fmt: skip
        assert await query(database, "SELECT 7") == [(7,)]
        assert await query(database, "SELECT 8") == [(8,)]
        prepared = await query(
            database,
            "SELECT count(*), count(DISTINCT name) FROM pg_prepared_statements"
            " WHERE statement = 'SELECT $1::bigint + 1' AND name LIKE 'perdure\\_%'",
        )
        assert prepared == [(1, 1)]


@pytest.mark.parametrize("prepare", [True, False])
async def test_the_server_gives_up_before_the_client_does(
    postgres_url: str, prepare: bool
) -> None:
    ask = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
    async with connected(postgres_url, prepare=prepare, timeout=4) as database:
        assert await query(database, ask) == [("3600ms", "1s")]


async def test_what_the_user_sets_stands(postgres_url: str) -> None:
    url = make_conninfo(
        postgres_url, application_name="mine", options="-c lock_timeout=7s -c work_mem=5MB"
    )
    ask = "SELECT name, setting FROM pg_settings WHERE name = ANY($1) ORDER BY name"
    names = ["application_name", "lock_timeout", "statement_timeout", "work_mem"]
    async with connected(url, timeout=10) as database:
        assert await query(database, ask, names) == [
            ("application_name", "mine"),
            ("lock_timeout", "7000"),
            ("statement_timeout", "9000"),
            ("work_mem", "5120"),
        ]


async def test_megabytes_go_both_ways(postgres_url: str) -> None:
    value = os.urandom(1 << 20) * 24
    async with connected(postgres_url, pool=2) as database:
        calls = [query(database, "SELECT $1::bytea, $2::bytea[]", value, [value]) for _ in "ab"]
        assert await asyncio.gather(*calls) == [[(value, [value])]] * 2


async def test_more_calls_than_connections_are_all_answered(postgres_url: str) -> None:
    async with connected(postgres_url, pool=3) as database:
        rows = await asyncio.gather(
            *(query(database, "SELECT $1::bigint, pg_backend_pid()", n) for n in range(500))
        )
    assert [row[0][0] for row in rows] == list(range(500))
    assert len({row[0][1] for row in rows}) == 3


@pytest.mark.parametrize("prepare", [True, False])
async def test_cancelling_a_call_leaves_its_connection_clean(
    postgres_url: str, prepare: bool
) -> None:
    async with connected(postgres_url, pool=1, prepare=prepare) as database:
        (before,) = await query(database, "SELECT pg_backend_pid()")
        for pause in (0, 0.01, 0.05):
            running = asyncio.create_task(query(database, "SELECT pg_sleep(0.1), 'old'"))
            queued = asyncio.create_task(query(database, "SELECT 'never'"))
            await asyncio.sleep(pause)
            running.cancel()
            queued.cancel()
            for task in (running, queued):
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await query(database, "SELECT 'new'") == [("new",)]
        assert await query(database, "SELECT pg_backend_pid()") == [before]


async def test_a_cancelled_call_is_done_whole_or_not_at_all(postgres_url: str) -> None:
    async with connected(postgres_url, pool=1) as database:
        await execute(database, "CREATE TEMP TABLE t (a integer)")
        insert = Statement(b"INSERT INTO t VALUES (1)")
        for _ in range(20):
            task = asyncio.create_task(database.commit(b"", insert, insert))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        ((count,),) = await query(database, "SELECT count(*) FROM t")
        assert count % 2 == 0


async def test_closing_finishes_what_is_under_way(postgres_url: str) -> None:
    async with connected(postgres_url, pool=1) as database:
        calls = [
            asyncio.create_task(commit(database, "", "SELECT pg_sleep(0.05)::text, 1")),
            asyncio.create_task(query(database, "SELECT 2")),
        ]
        await asyncio.sleep(0.01)
        await database.aclose()
        assert [task.done() for task in calls] == [True, True]
        assert await asyncio.gather(*calls) == [[("", 1)], [(2,)]]
        for late in (query, commit):
            with pytest.raises(StoreClosed):
                await late(database, "SELECT 1", "SELECT 1")
        await database.aclose()


async def test_closing_waits_for_nobody_who_was_cancelled(postgres_url: str) -> None:
    async with connected(postgres_url, pool=1) as database:
        calls = [
            asyncio.create_task(query(database, "SELECT pg_sleep(8)")),
            asyncio.create_task(commit(database, "", "SELECT 1")),
            asyncio.create_task(query(database, "SELECT 1")),
        ]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        async with asyncio.timeout(4):
            await database.aclose()


async def test_closing_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://perdure@127.0.0.1:{silent.getsockname()[1]}/perdure"
        async with connected(url) as database:
            call = asyncio.create_task(query(database, "SELECT 1"))
            await asyncio.sleep(0.01)
            call.cancel()
            async with asyncio.timeout(4):
                await database.aclose()


async def test_closing_just_when_a_connection_is_made(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = asyncio.Event()

    async def connect_and_tell(*how: Any) -> Link:
        link = await connect(*how)
        made.set()
        return link

    monkeypatch.setattr(database_module, "connect", connect_and_tell)
    url = make_conninfo(postgres_url, application_name="just-made")
    async with connected(url) as database:
        call = asyncio.create_task(query(database, "SELECT 1"))
        await asyncio.sleep(0)
        call.cancel()
        await made.wait()  # and nobody has been told yet
        await database.aclose()

        async def none_is_open() -> bool:
            text = "SELECT pid FROM pg_stat_activity WHERE application_name = 'just-made'"
            return not await administer(postgres_url, text)

        await until(none_is_open)


@asynccontextmanager
async def letting_in(
    then: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncGenerator[str]:
    """The URL of a server that asks for no password, and what it does from then on."""

    async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(length - 4)
        writer.write(message(b"R", bytes(4)))
        for report in (
            b"server_version\x0018.0\0",
            b"in_hot_standby\0off\0",
            b"default_transaction_read_only\0off\0",
        ):
            writer.write(message(b"S", report))
        writer.write(message(b"Z", b"I"))
        await then(reader, writer)
        await hang_up(writer)

    server = await asyncio.start_server(let_in, "127.0.0.1", 0, limit=1024)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://perdure@127.0.0.1:{port}/d?sslmode=disable&gssencmode=disable"


async def test_closing_while_a_new_connection_says_no_more() -> None:
    asked = asyncio.Event()

    async def say_no_more(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        asked.set()
        await reader.read()

    async with letting_in(say_no_more) as url, connected(url) as database:
        call = asyncio.create_task(query(database, "SELECT 1"))
        await asked.wait()
        call.cancel()
        async with asyncio.timeout(2):
            await database.aclose()


async def test_a_connection_that_breaks_in_the_middle_of_a_large_statement() -> None:
    """More than the network takes at once is still to be written."""

    async def read_some_and_break(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await receive(reader)  # what line of history it is
        writer.write(error("0A000", "not supported") + message(b"Z", b"I"))
        await reader.readexactly(1000)
        writer.transport.abort()

    large = bytes(32 << 20)
    async with letting_in(read_some_and_break) as url, connected(url) as database:
        for _ in range(3):
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable):
                    await query(database, "SELECT $1", large)


async def test_closing_one_that_was_never_used(postgres_url: str) -> None:
    async with connected(postgres_url):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_a_forked_process_leaves_the_connections_of_its_parent_alone(
    postgres_url: str,
) -> None:
    async with connected(postgres_url, pool=1) as database:
        (before,) = await query(database, "SELECT pg_backend_pid()")
        child = os.fork()
        if not child:
            status = 1
            try:
                query(database, "SELECT 1").send(None)
            except StoreClosed:
                del database
                status = 0
            finally:
                os._exit(status)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        assert await query(database, "SELECT pg_backend_pid()") == [before]
