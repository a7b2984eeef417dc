"""What child processes do: ``python -m tests.backends.sqlite.children NAME PATH``.

Each says ``ready`` when it has imported everything, and begins when it is sent a line.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from perdure.errors import Unavailable
from perdure.testing.shorthand import write
from perdure.types import Append, SessionKey

from perdure_sqlite.backend import SqliteBackend

ROOT = Path(__file__).parents[3]
LOG = b"log/"
VALUE_BYTES = 3000


async def spawn(name: str, path: Path) -> Process:
    """Start a child and wait until it is ready."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.backends.sqlite.children",
        name,
        str(path),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert await line(child) == "ready"
    return child


async def line(child: Process) -> str:
    """The next line that the child prints."""
    assert child.stdout is not None
    return (await child.stdout.readline()).decode().strip()


async def begin(child: Process) -> None:
    """Let it start."""
    assert child.stdin is not None
    child.stdin.write(b"\n")
    await child.stdin.drain()


async def first(path: Path) -> None:
    """Be the first to use the file, if nobody else is."""
    backend = SqliteBackend(path)
    made = await write(
        backend, SessionKey("t", "session", "shared"), appends=(Append(LOG, (b"x",)),)
    )
    await backend.aclose()
    print(made.version)


async def stream(path: Path) -> None:
    """Append for ever, and say what was acknowledged."""
    backend = SqliteBackend(path)
    key = SessionKey("t", "session", "stream")
    while True:
        value = os.urandom(16) + b"." * VALUE_BYTES
        made = await write(backend, key, appends=(Append(LOG, (value,)),))
        print(made.version, value[:16].hex(), flush=True)


async def append_once(path: Path) -> None:
    """Append one value to a session, by a process that does nothing else."""
    backend = SqliteBackend(path)
    made = await write(
        backend, SessionKey("tenant", "session", "chat"), appends=(Append(LOG, (b"x",)),)
    )
    await backend.aclose()
    print(made.version)


async def leave_open(path: Path) -> None:
    """End without closing, with a watcher, a reader and a writer under way."""
    backend = SqliteBackend(path)
    made = await write(backend, SessionKey("t", "session", "s"))
    waiting = asyncio.create_task(
        backend.wait(SessionKey("t", "session", "s"), after=made.head, timeout=60)
    )
    await asyncio.sleep(0.05)
    waiting.cancel()
    print("left", flush=True)


async def fill(path: Path) -> None:
    """Write until the file may not grow any more, then on when it may."""
    import resource  # not on Windows

    backend = SqliteBackend(path)
    key = SessionKey("t", "session", "s")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    await write(backend, key)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    done = 1
    try:
        while done < 1000:
            await write(backend, key, appends=(Append(LOG, (b"." * VALUE_BYTES,)),))
            done += 1
    except Unavailable as error:
        print(error.outcome.name, flush=True)
    head = (await backend.read(key)).head
    assert head is not None
    assert head.version == done
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    made = await write(backend, key, incarnation=head.incarnation)
    await backend.aclose()
    print(made.version - done)


CHILDREN = {
    "first": first,
    "stream": stream,
    "append_once": append_once,
    "leave_open": leave_open,
    "fill": fill,
}

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(CHILDREN[sys.argv[1]](Path(sys.argv[2])))
