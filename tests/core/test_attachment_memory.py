"""Attachments of any length take little memory, on the way in and on the way out."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys
from hashlib import sha256
from pathlib import Path
from random import Random
from perdure import Store

STATUS = Path("/proc/self/status")

def resident(name):
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024

def pieces(size):
    for start in range(0, size, 64 * 1024):
        yield Random(start).randbytes(64 * 1024)

async def main():
    async with Store(sys.argv[1]) as store:
        session = store.session("s")
        small = await session.attachments.put(pieces(1 << 20))
        async for piece in session.attachments.open(small.digest):
            pass
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the highest is forgotten
        put = await session.attachments.put(pieces(48 << 20))
        whole = sha256()
        async for piece in session.attachments.open(put.digest):
            whole.update(piece)
        assert whole.hexdigest() == put.digest
        print(resident("VmHWM") - before)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_48_mib_take_less_than_8_mib(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/sessions.db"]
    more = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert more < 8 << 20
