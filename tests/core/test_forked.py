"""Stores in processes that fork: made before, used before, forked at any moment.

Each test is a program of its own, in which every warning is an error and whatever is written to
stderr fails: connections that a child closes or drops would be heard of.
"""

import os
import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

BEGIN = """
import asyncio, gc, logging, os, signal, sys, threading, time, traceback
import perdure
from perdure import Store, StoreClosed
from perdure.sync import Store as SyncStore

URL, NAME = sys.argv[1:]
signal.alarm(60)
logging.getLogger("asyncio").setLevel(logging.ERROR)  # a busy machine is slow


def fork(child, leave=sys.exit):
    # With the usual end of a process and all finalizers; in an event loop or a thread,
    # which the child does not have, leave by os._exit.
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(40)
    try:
        child()
        gc.collect()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    leave(7)


def ended(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def append(store, *entries):
    async def main():
        for entry in entries:
            await store.session(NAME).append(entry)
    asyncio.run(main())


def entries(store):
    async def main():
        return list(await store.session(NAME).entries())
    return asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "valkey_url", "postgres_url"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/forked.db"
    return request.getfixturevalue(request.param)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/forked.db"


def run(program: str, url: str) -> None:
    options = ("-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning")
    done = subprocess.run(
        [sys.executable, *options, "-c", BEGIN + program, url, token_hex(8)],
        capture_output=True,
        check=False,
        timeout=90,
        text=True,
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_store_made_before_the_fork_works_in_every_process(url: str) -> None:
    run(
        """
store = Store(URL)
for n in range(3):
    ended(fork(lambda: append(store, n)))
append(store, 3)
assert entries(store) == [0, 1, 2, 3]
asyncio.run(store.aclose())
""",
        url,
    )


def test_a_store_used_before_the_fork_connects_anew_in_the_child(url: str) -> None:
    """The parent closes its store while the child works, and nothing is lost."""
    run(
        """
store = Store(URL)
append(store, "parent")
append(store, "in another loop")
used, closed = os.pipe(), os.pipe()

def child():
    append(store, "child")
    os.write(used[1], b"x")
    os.read(closed[0], 1)
    append(store, *range(50))
    assert len(entries(store)) == 53
    asyncio.run(store.aclose())

pid = fork(child)
os.read(used[0], 1)
assert entries(store) == ["parent", "in another loop", "child"]
asyncio.run(store.aclose())
os.write(closed[1], b"x")
ended(pid)
async def main():
    async with Store(URL) as again:
        found = await again.session(NAME).entries()
        assert found == ["parent", "in another loop", "child", *range(50)]
asyncio.run(main())
""",
        url,
    )


def test_a_child_that_does_not_use_the_store_leaves_its_connections_alone(url: str) -> None:
    run(
        """
async def main():
    store = Store(URL)
    session = store.session(NAME)
    await session.append(0)
    for n in range(1, 4):
        pid = fork(lambda: None, os._exit)
        await session.append(n)
        await asyncio.to_thread(ended, pid)
        assert list(await session.entries()) == list(range(n + 1))
    async def first():
        async for entry in session.watch():
            return entry.value
    watching = asyncio.create_task(first())
    await asyncio.sleep(0.05)
    pid = fork(lambda: None, os._exit)
    await asyncio.to_thread(ended, pid)
    await session.append("seen")
    assert await asyncio.wait_for(watching, 10) == "seen"
    await store.aclose()
asyncio.run(main())
""",
        url,
    )


def test_a_child_forked_inside_an_event_loop_may_begin_its_own(file: str) -> None:
    run(
        """
store = Store(URL)

def child():
    thread = threading.Thread(target=append, args=(store, "child"))
    thread.start()
    thread.join()

async def main():
    await store.session(NAME).append("parent")
    ended(await asyncio.to_thread(fork, child, os._exit))
    assert list(await store.session(NAME).entries()) == ["parent", "child"]
asyncio.run(main())
asyncio.run(store.aclose())
""",
        file,
    )


def test_a_sync_store_is_forked_while_other_threads_write(url: str) -> None:
    """At any moment: each acknowledged entry is there once, in parent and children."""
    run(
        """
store = SyncStore(URL)
session = store.session(NAME)
session.append("first")
going = True
written = []

def write(name):
    n = 0
    while going:
        session.append([name, n])
        written.append([name, n])
        n += 1

def child():
    before = session.entries()
    own = [["child", os.getpid(), n] for n in range(5)]
    for entry in own:
        session.append(entry)
    found = session.entries()
    assert found[:len(before)] == before
    assert [entry for entry in found if entry in own] == own
    store.close()

threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
for thread in threads:
    thread.start()
for _ in range(8):
    time.sleep(0.01)
    ended(fork(child))
going = False
for thread in threads:
    thread.join()
found = session.entries()
for name in "ab":
    mine = [entry for entry in found if entry[0] == name]
    assert mine == [entry for entry in written if entry[0] == name]
assert len(found) == 1 + len(written) + 8 * 5
store.close()
""",
        url,
    )


def test_a_fork_waits_for_a_backend_that_is_just_being_made(file: str) -> None:
    run(
        """
import perdure.plugins
make = perdure.plugins.open_backend
making = threading.Event()

def slowly(url):
    making.set()
    time.sleep(0.3)
    return make(url)

perdure.plugins.open_backend = slowly
store = Store(URL)
thread = threading.Thread(target=append, args=(store, "parent"))
thread.start()
making.wait()
ended(fork(lambda: append(store, "child")))
thread.join()
assert sorted(entries(store)) == ["child", "parent"]
asyncio.run(store.aclose())
""",
        file,
    )


def test_what_is_in_the_memory_of_the_parent_is_not_in_the_child(tmp_path: Path) -> None:
    run(
        """
unused = Store("memory://")
used = Store("memory://")
append(used, 1)

def child():
    append(unused, 1)
    assert entries(unused) == [1]
    try:
        entries(used)
    except StoreClosed as error:
        assert "forked" in str(error)
        assert error.outcome is perdure.Outcome.NOT_APPLIED
        asyncio.run(used.aclose())
        return
    raise AssertionError

ended(fork(child))
assert entries(used) == [1]
assert entries(unused) == []
""",
        "",
    )


def test_a_backend_given_as_such_cannot_be_made_again(tmp_path: Path) -> None:
    run(
        """
from perdure_sqlite.backend import SqliteBackend
backend = SqliteBackend(URL)
store = Store(backend)

def child():
    try:
        append(store, 1)
    except StoreClosed as error:
        assert "forked" in str(error)
        return
    raise AssertionError

append(store, 0)
ended(fork(child))
append(store, 1)
assert entries(store) == [0, 1]
asyncio.run(store.aclose())
""",
        f"{tmp_path}/given.db",
    )


def test_several_threads_fork_at_once_while_others_write(file: str) -> None:
    run(
        """
store = SyncStore(URL)
session = store.session(NAME)
session.append("first")
going = True
written = []

def write(name):
    n = 0
    while going:
        session.append([name, n])
        written.append([name, n])
        n += 1

def forking(name):
    for n in range(4):
        ended(fork(lambda: session.append([name, n]), os._exit))
        written.append([name, n])

writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
forks = [threading.Thread(target=forking, args=(name,)) for name in "cdef"]
for thread in writers + forks:
    thread.start()
for thread in forks:
    thread.join()
going = False
for thread in writers:
    thread.join()
assert sorted(session.entries()[1:]) == sorted(written)
store.close()
""",
        file,
    )


def test_stores_are_made_in_other_threads_during_a_fork(file: str) -> None:
    run(
        """
stores = [SyncStore(URL) for _ in range(3)]
for store in stores:
    store.session(NAME).append(0)
going = True

def make():
    while going:
        SyncStore(URL)
        time.sleep(0.0002)

threads = [threading.Thread(target=make) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(8):
    ended(fork(lambda: None, os._exit))
    for store in stores:
        store.session(NAME).append(1)
going = False
for thread in threads:
    thread.join()
for store in stores:
    store.close()
""",
        file,
    )


def test_an_iteration_belongs_to_the_process_that_began_it(url: str) -> None:
    """The child neither goes on with it nor ends it: it waits on connections of the parent."""
    run(
        """
store = SyncStore(URL)
session = store.session(NAME)
session.append(1, 2)
found = session.watch(after=perdure.START)
assert next(found).value == 1

def child():
    global found
    try:
        next(found)
    except StoreClosed as error:
        assert "forked" in str(error)
    else:
        raise AssertionError
    del found
    gc.collect()
    assert threading.active_count() == 1

ended(fork(child))
assert next(found).value == 2
session.append(3)
assert next(found).value == 3
found.close()
store.close()
""",
        url,
    )


def test_a_child_forks_on(url: str) -> None:
    run(
        """
store = SyncStore(URL)
session = store.session(NAME)
session.append("parent")

def child():
    session.append("child")
    ended(fork(lambda: session.append("grandchild"), os._exit))
    session.append("child again")

ended(fork(child))
assert session.entries() == ["parent", "child", "grandchild", "child again"]
store.close()
""",
        url,
    )


def test_an_exclusive_turn_stays_with_the_process_that_began_it(url: str) -> None:
    run(
        """
store = SyncStore(URL)
session = store.session(NAME)
with session.turn(exclusive=True) as turn:
    turn.append("parent")
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        raise SystemExit(7)  # out of the block
    ended(pid)

assert session.entries() == ["parent"]
with session.turn(exclusive=True) as turn:
    turn.append("again")
    pid = os.fork()
    if pid:
        ended(pid)
    else:
        signal.alarm(20)
        try:
            turn.__exit__(None, None, None)
        except StoreClosed as error:
            assert "forked" in str(error)
            os._exit(7)
        os._exit(1)
assert session.entries() == ["parent", "again"]
store.close()
""",
        url,
    )


def test_a_daemon_thread_that_writes_can_be_joined_at_the_exit(url: str) -> None:
    """Without a word, and also by whoever registered that before the store was imported."""
    program = """
import atexit, sys, threading, time

def join():
    thread.join(20)
    assert not thread.is_alive()

atexit.register(join)
from perdure.sync import Store
session = Store(sys.argv[1]).session(sys.argv[2])
session.append(0)

def write():
    while True:
        session.append(1)

thread = threading.Thread(target=write, daemon=True)
thread.start()
time.sleep(0.2)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, url, token_hex(8)],
        capture_output=True,
        check=False,
        timeout=60,
        text=True,
    )
    assert (done.stderr, done.returncode) == ("", 0)
