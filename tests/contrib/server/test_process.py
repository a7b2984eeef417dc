"""``perdure serve`` as a process: how it starts, refuses to, stops, and is killed."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from perdure import Store
from perdure.errors import OutcomeUnknown, Unavailable
from perdure.protocol.paths import Operation, path_of

from tests.contrib.cli.command import Result, run_process
from tests.contrib.server.served import KEYS, PerdureServe, url_of
from tests.contrib.server.speaking import Speaker, talk
from tests.services.certificates import write_certificate
from tests.services.server import wait_until

GOOD = json.dumps(KEYS)


def sqlite(folder: Path) -> str:
    """A file that outlives processes; what it survives beyond that is not tested here."""
    return f"sqlite:///{folder / 'sessions.db'}?synchronous=normal"


def refused(folder: Path, *options: str, keys: str = GOOD) -> Result:
    """``perdure serve`` that does not start."""
    return run_process("serve", *options, cwd=folder, PERDURE_KEYS=keys)


# Starting


def test_without_keys_it_does_not_start(tmp_path: Path) -> None:
    for keys in ("", " ", "[]"):
        said = refused(tmp_path, "--url", "memory://", keys=keys).error(2)
        assert said.startswith("no keys, so nobody could be served: give --keys FILE or set")


@pytest.mark.parametrize(
    "keys",
    [
        "s3cret-and-not-json-at-all-0123456789",
        '{"id": "app"}',
        '[{"id": "app", "secret": "s3cret-too-short"}]',
        '[{"id": "a.b", "secret": "s3cret-0123456789abcdef0123456789"}]',
        '[{"id": "app", "secret": "s3cret-0123456789abcdef0123456789", "mode": "s3cret"}]',
        '[{"id": "app", "secret": "s3cret-0123456789abcdef0123456789", "tenant": "t"}]',
        json.dumps([KEYS[0], KEYS[0]]),
    ],
)
def test_keys_that_are_none_are_refused_and_not_quoted(tmp_path: Path, keys: str) -> None:
    said = refused(tmp_path, "--url", "memory://", keys=keys).error()
    assert said.startswith("$PERDURE_KEYS: ")
    assert "s3cret" not in said
    (tmp_path / "keys.json").write_text(keys)
    said = refused(tmp_path, "--url", "memory://", "--keys", "keys.json", keys=GOOD).error()
    assert said.startswith("keys.json: ")
    assert "s3cret" not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_it_does_not_listen_to_others_in_the_clear(tmp_path: Path, host: str) -> None:
    said = refused(tmp_path, "--url", "memory://", "--host", host).error(2)
    assert said.startswith(f"{host} can be reached from elsewhere, and secrets are not sent")


def test_behind_a_proxy_it_does(tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--behind-proxy")
    with PerdureServe.start(tmp_path, "memory://", *options) as server:
        assert Speaker(server.port)(Operation.HELLO).status == 200


def test_what_else_it_cannot_do_is_one_line(tmp_path: Path) -> None:
    with PerdureServe.start(tmp_path / "first", "memory://") as server:
        said = refused(tmp_path, "--url", "memory://", "--port", str(server.port)).error()
        assert said == f"cannot listen on 127.0.0.1, port {server.port}: Address already in use"
    said = refused(tmp_path, "--url", "nosql://", "--port", "0").error()
    assert said.startswith("no backend for nosql://")
    (tmp_path / "notes.txt").write_text("no database, and longer than its header\n" * 9)
    said = refused(tmp_path, "--url", "sqlite:///notes.txt", "--port", "0").error()
    assert said.endswith("notes.txt is not an SQLite database; it was left as it is")
    (tmp_path / "key.pem").write_text("no key")
    pem = ("--certificate", "key.pem", "--key", "key.pem")
    said = refused(tmp_path, "--url", "memory://", "--port", "0", *pem).error()
    assert said.startswith("the certificate or its key cannot be used: ")
    said = refused(tmp_path, "--url", "memory://", *pem[:2]).error(2)
    assert said.startswith("--certificate and --key go together")


def test_the_store_is_that_of_the_command_or_of_the_environment(tmp_path: Path) -> None:
    said = run_process(
        *("--url", "nosql://a", "serve", "--port", "0"), cwd=tmp_path, PERDURE_KEYS=GOOD
    )
    assert said.error().startswith("no backend for nosql://")
    said = run_process("serve", cwd=tmp_path, PERDURE_KEYS=GOOD, PERDURE_URL="nosqlite://a")
    assert said.error().startswith("no backend for nosqlite://")


async def test_tls(tmp_path: Path) -> None:
    pem = tmp_path / "certificate.pem"
    write_certificate(pem, "127.0.0.1")
    options = ("--host", "0.0.0.0", "--certificate", str(pem), "--key", str(pem))
    with PerdureServe.start(tmp_path / "server", "memory://", *options) as server:
        assert "serving on https://0.0.0.0:" in server.log()
        url = url_of(server.port).replace("http://", "https://")
        async with Store(f"{url}?ssl_ca_certs={pem}") as store:
            await store.save("plum", {"ripe": True})
            assert await store.load("plum") == {"ripe": True}
        with pytest.raises(Unavailable, match="certificate"):
            async with Store(url, deadline=1):
                pass
        assert b"200" not in talk(server.port, b"GET /v1 HTTP/1.1\r\n\r\n")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    for options, said in (
        (("--keys", "none.json"), "none.json: No such file or directory"),
        (("--keys", "."), ".: Is a directory"),
        (("--keys", "bytes"), "bytes: it is not UTF-8"),
        (
            ("--certificate", "none.pem", "--key", "none.pem"),
            "the certificate or its key cannot be used: [Errno 2] No such file or directory",
        ),
    ):
        assert refused(tmp_path, "--url", "memory://", *options).error() == said


# Running


async def test_nothing_of_sessions_or_secrets_is_logged(tmp_path: Path) -> None:
    with PerdureServe.start(tmp_path, "memory://") as server:
        async with Store(server.url, tenant="tenant-x") as store:
            session = store.session("id-x")
            await session.append({"content": "payload-x"})
            await store.backend.wait(session.key, after=None, timeout=5)
        Speaker(server.port, None).send("POST", path_of(Operation.READ, "tenant-x", "k", "s"))
        Speaker(server.port).send(
            "POST", path_of(Operation.READ, "tenant-x", "k", "s"), b"\xc1"
        )
        talk(server.port, b"POST /v1/tenant-x HTTP/0.3\r\n\r\n")
        server.stop()
        lines = server.log().splitlines()
    assert lines[0] == f"serving on http://127.0.0.1:{server.port}"
    assert set(lines[1:]) <= {"Invalid HTTP request received."}


async def appended(store: Store, id: str, done: list[int]) -> None:
    """Append numbers until the server goes; what was acknowledged is in ``done``."""
    session = store.session(id)
    while True:
        try:
            await session.append(len(done))
        except (Unavailable, OutcomeUnknown):
            return
        done.append(len(done))


async def under_way(done: list[list[int]]) -> None:
    await asyncio.to_thread(wait_until, lambda: min(map(len, done)) >= 5)


async def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    with PerdureServe.start(tmp_path / "server", sqlite(tmp_path)) as server:
        for round in range(2):
            async with Store(server.url, deadline=2) as store:
                done: list[list[int]] = [[] for _ in range(8)]
                writers = [
                    asyncio.ensure_future(appended(store, f"{round}-{n}", done[n]))
                    for n in range(8)
                ]
                await under_way(done)
                server.kill()
                await asyncio.gather(*writers)
            server.restart()
            async with Store(server.url) as store:
                for n in range(8):
                    entries = list(await store.session(f"{round}-{n}").entries())
                    assert entries[: len(done[n])] == done[n]
                    assert len(entries) <= len(done[n]) + 1


async def test_a_client_goes_on_when_the_server_comes_back(tmp_path: Path) -> None:
    with PerdureServe.start(tmp_path / "server", sqlite(tmp_path)) as server:
        async with Store(server.url, deadline=30) as store:
            session = store.session("s")
            for n in range(40):
                if n % 15 == 14:
                    server.kill()
                    restarting = asyncio.to_thread(server.restart)
                    _, position = await asyncio.gather(restarting, session.append(n))
                    assert position
                else:
                    await session.append(n)
            assert list(await session.entries()) == list(range(40))


async def test_told_to_stop_it_finishes_what_is_under_way(tmp_path: Path) -> None:
    with PerdureServe.start(tmp_path / "server", sqlite(tmp_path)) as server:
        async with Store(server.url, deadline=2) as store:
            done: list[list[int]] = [[] for _ in range(16)]
            writers = [
                asyncio.ensure_future(appended(store, str(n), done[n])) for n in range(16)
            ]
            waiting = asyncio.ensure_future(
                store.backend.wait(store.session("none").key, after=None, timeout=60)
            )
            await under_way(done)
            process = server.pid
            os.kill(process, signal.SIGTERM)
            await asyncio.gather(*writers)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(waiting, 10)
        assert await asyncio.to_thread(server.wait) == 0
        server.restart()
        async with Store(server.url) as store:
            for n in range(16):
                assert list(await store.session(str(n)).entries()) == done[n]


async def test_two_servers_on_one_database(tmp_path: Path, postgres_url: str) -> None:
    for url in (sqlite(tmp_path), postgres_url):
        with (
            PerdureServe.start(tmp_path / "1", url) as one,
            PerdureServe.start(tmp_path / "2", url) as other,
        ):
            tenant = f"two-{other.port}"
            async with (
                Store(one.url, tenant=tenant) as first,
                Store(other.url, tenant=tenant) as second,
            ):
                watching = asyncio.ensure_future(
                    second.backend.wait(second.session("s").key, after=None, timeout=10)
                )
                stores = (first, second) * 4
                await asyncio.gather(*(numbered(store, m) for m, store in enumerate(stores)))
                assert await watching is not None
                found = list(await first.session("s").entries())
                assert sorted(found) == [[m, n] for m in range(8) for n in range(5)]
                for m in range(8):
                    assert [n for number, n in found if number == m] == [0, 1, 2, 3, 4]


async def numbered(store: Store, writer: int) -> None:
    session = store.session("s")
    for n in range(5):
        await session.append([writer, n])
