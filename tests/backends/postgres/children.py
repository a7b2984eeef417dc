"""What child processes do: ``python -m tests.backends.postgres.children URL``.

Each says ``ready`` when it has imported everything, begins when it is sent a line, and prints
the version that its commit made.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from perdure.testing.shorthand import write
from perdure.types import SessionKey

from tests.backends.postgres.harness import open_by_server_clock

ROOT = Path(__file__).parents[3]
SHARED = SessionKey("tenant", "session", "shared")


async def spawn(url: str) -> Process:
    """Start a child and wait until it is ready."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.backends.postgres.children",
        url,
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    return child


async def first(url: str) -> None:
    """Be the first to use the schema, if nobody else is."""
    backend = open_by_server_clock(url)
    made = await write(backend, SHARED)
    await backend.aclose()
    print(made.version)


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(first(sys.argv[1]))
