"""Small rows that claim to be large, and values that are too deep: refused, and cheaply."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

MIB = 1 << 20

CHILD = r"""
import asyncio, os, re, sys
from pathlib import Path

import zstandard
from perdure import Corrupt, InvalidValue, KeyRing, Store, TooLarge
from perdure.encryption.backend import EncryptedBackend
from perdure.types import Commit, append_key
from perdure_memory.backend import MemoryBackend

what, sealed = sys.argv[1], sys.argv[2] == "sealed"


def peak():  # of this process; ru_maxrss begins with its parent's
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def bomb():
    compressor = zstandard.ZstdCompressor().compressobj(size=1 << 30)
    # One MessagePack array of one very long string.
    head = b"\x91\xdb" + ((1 << 30) - 6).to_bytes(4, "big")
    parts = [compressor.compress(head + bytes((1 << 20) - 6))]
    parts += [compressor.compress(bytes(1 << 20)) for _ in range(1023)]
    return b"".join(parts) + compressor.flush()


def deep():
    return b"\x91" * 100_000 + b"\xc0"


def nested(levels=100_000):
    value = None
    for _ in range(levels):
        value = [value]
    return value


async def forge(backend, key, name, row):
    commit = Commit(id=os.urandom(16), digest=bytes(8), new_incarnation=os.urandom(16),
                    puts=((name, row),))
    await backend.commit(key, commit)


async def main():
    ring = KeyRing({"k": bytes(range(32))}, primary="k")
    raw = MemoryBackend()
    store = Store(raw, keys=ring if sealed else None)
    session = store.session("s")
    # Everything that a process has loaded after a while.
    await session.append("x" * 100_000)
    await session.cells.put("c", "x" * 100_000)
    await store.save("s", ["x" * 1000] * 100)
    await session.entries(), await session.cells.get("c"), await store.load("s")
    zipped, body = (1, bomb()) if what == "bomb" else (0, deep())
    log = bytes((1, zipped)) + bytes(20) + b"\0\0\0\1"
    rows = {append_key(b"l\0", 2, 0): log + (body if zipped else b"\x91" + body)}
    for name in (b"cc", b"d"):
        rows[name] = bytes((1, 0x40 | zipped)) + body
    before = peak()
    # As who has the keys, too: nothing that was sealed is trusted more for it.
    writer = EncryptedBackend(raw, ring) if sealed else raw
    for name, row in rows.items():
        await forge(writer, session.key, name, row)
    fresh = lambda: store.session("s")
    refused = 0
    for read in (lambda: fresh().entries(), lambda: fresh().entries(last=1),
                 lambda: fresh().cells.get("c"), lambda: fresh().cells.scan(),
                 lambda: store.load("s")):
        try:
            await read()
        except Corrupt:
            refused += 1
    for write in (lambda: fresh().append(nested()), lambda: store.save("s", nested()),
                  lambda: fresh().cells.put("c", {"a": nested()})):
        try:
            await write()
        except (InvalidValue, TooLarge):
            refused += 1
    print(refused, peak() - before)


asyncio.run(main())
"""


@pytest.mark.parametrize("sealed", ["sealed", "plain"])
@pytest.mark.parametrize("what", ["bomb", "deep"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmHWM of Linux")
def test_a_bomb_is_refused_wherever_it_is_read_or_written(what: str, sealed: str) -> None:
    """A gigabyte in a tenth of a megabyte; 100 000 lists around one another."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), what, sealed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused, grown = map(int, done.stdout.split())
    assert refused == 8
    assert grown * 1024 < 64 * MIB
