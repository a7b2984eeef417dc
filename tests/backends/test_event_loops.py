"""A store on a server, made at import, serves the event loops of a whole program."""

import asyncio
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perdure import Store


@pytest.fixture(params=["valkey_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["sqlite", "valkey_url", "postgres_url"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/loops.db"
    return request.getfixturevalue(request.param)


async def append(store: Store, id: str, *entries: object) -> None:
    for entry in entries:
        await store.session(id).append(entry)


async def entries(store: Store, id: str) -> list[object]:
    return list(await store.session(id).entries())


def test_one_loop_after_the_other(url: str) -> None:
    store, id = Store(url), secrets.token_hex(8)
    for n in range(4):
        asyncio.run(append(store, id, n))
    assert asyncio.run(entries(store, id)) == [0, 1, 2, 3]
    asyncio.run(store.aclose())


def test_loops_of_several_threads_at_once(url: str) -> None:
    store, id = Store(url), secrets.token_hex(8)
    threads = [
        threading.Thread(target=asyncio.run, args=(append(store, id, *range(25)),))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asyncio.run(entries(store, id)), key=str) == sorted([*range(25)] * 4, key=str)
    asyncio.run(store.aclose())


PER_CALL = """
import asyncio, gc, logging, os, sys, threading
from perdure import Store
logging.getLogger("asyncio").setLevel(logging.ERROR)  # a busy machine is slow
store = Store(sys.argv[1])

async def append(n):
    await store.session(sys.argv[2]).append(n)
    return list(await store.session(sys.argv[2]).entries(last=1))

def open_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

before = open_files()
for n in range(5):
    assert asyncio.run(append(n)) == [n]
used, threads = open_files(), threading.active_count()
for n in range(5, 40):
    assert asyncio.run(append(n)) == [n]
assert open_files() <= used
assert threading.active_count() <= threads
if sys.argv[3] == "close":
    asyncio.run(store.aclose())
    assert open_files() == before
    assert threading.active_count() == 1
"""


@pytest.mark.parametrize("then", ["close", "leave open"])
def test_a_loop_for_each_call_leaves_nothing_behind(any_url: str, then: str) -> None:
    """As on AWS Lambda. Unclosed connections would be warnings, and those errors."""
    done = subprocess.run(
        [
            *(sys.executable, "-X", "dev", "-W", "error", "-c", PER_CALL),
            *(any_url, secrets.token_hex(8), then),
        ],
        capture_output=True,
        check=False,
        timeout=30,
        text=True,
    )
    assert (done.stderr, done.returncode) == ("", 0)
