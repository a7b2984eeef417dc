"""A Valkey whose clock can be moved, so that tests need not wait for a day to pass."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

from tests.services.server import ServerFailed, wait_until
from tests.services.valkey import Valkey

SOURCE = Path(__file__).with_suffix(".c")


class MovedValkey(Valkey):
    """One Valkey process with a wall clock of its own."""

    def advance(self, ms: int) -> None:
        """Let its clock jump forward, and wait until it has noticed."""
        moved = int.from_bytes(self._offset.read_bytes(), "little") + ms * 1000
        before = self.now()
        with self._offset.open("r+b") as file:
            file.write(moved.to_bytes(8, "little"))
        wait_until(lambda: self.now() >= before + ms)

    def now(self) -> int:
        """Its clock, in ms."""
        reply = self.call("TIME")
        assert isinstance(reply, list)
        seconds, micros = cast("list[bytes]", reply)
        return int(seconds) * 1000 + int(micros) // 1000

    @property
    def _offset(self) -> Path:
        return self.directory / "offset"

    def _launch(self) -> None:
        if not self._offset.exists():
            self._offset.write_bytes(bytes(8))
        super()._launch()

    def _command(self) -> list[str]:
        library = self.directory.parent / "moved_clock.so"
        settings = (f"LD_PRELOAD={library}", f"MOVED_CLOCK={self._offset}")
        return ["/usr/bin/env", *settings, *super()._command()]


def start_moved(directory: Path, *options: str) -> MovedValkey | None:
    """A server with a clock that can be moved; ``None`` where there is no C compiler."""
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if sys.platform != "linux" or compiler is None:
        return None
    library = directory / "moved_clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return None
    # A server looks at the clock this often; in between it counts by itself.
    server = MovedValkey.start(directory / "server", *options, "--hz", "500")
    try:
        server.advance(1000)
    except ServerFailed:  # its C library is linked statically
        server.stop()
        return None
    return server
