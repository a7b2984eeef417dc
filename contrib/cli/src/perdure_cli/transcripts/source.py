"""Files to import: read line by line, as often as needed, and refused if they are not text."""

import json
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, cast

from perdure_cli.errors import CommandError

STDIN = "-"

_HEAD_BYTES = 65_536
_UTF8_BOM = b"\xef\xbb\xbf"
_SIGNATURES = {
    b"\x1f\x8b": "is compressed with gzip: unpack it first (gunzip -c FILE | perdure import -)",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: unpack it first",
    b"PK\x03\x04": "is a zip archive: unpack it first",
    b"\xff\xfe": "is UTF-16 text: convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16 text: convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)",
    b"SQLite format 3\0": "is an SQLite database; if it is a store, name it with --url",
}


class Malformed(CommandError):
    """A place in a file that is not as its format requires."""


class Source:
    """One file, or standard input, that can be read more than once.

    What cannot be read twice (a pipe) is copied to a temporary file first. A file that grows
    meanwhile is read up to the size it had at first. Raises ``CommandError`` if there is
    nothing to read or it is not text.
    """

    def __init__(self, name: str) -> None:
        self.name = "<stdin>" if name == STDIN else name
        self.stem = None if name == STDIN else Path(name).stem or None
        self._spooled: IO[bytes] | None = None
        self._path = Path(name)
        self._bom = 0
        try:
            self.size = self._prepare(name)
            with self.reading() as file:
                head = file.read(_HEAD_BYTES)
            if head.startswith(_UTF8_BOM):
                self._bom = len(_UTF8_BOM)
            self._refuse_binary(head)
        except OSError as error:
            self.close()
            raise CommandError(f"{self.name}: {error.strerror or error}") from None
        except CommandError:
            self.close()
            raise

    def _prepare(self, name: str) -> int:
        if name != STDIN:
            status = self._path.stat()
            if S_ISDIR(status.st_mode):
                raise CommandError(f"{name} is a directory: name the files in it")
            if S_ISREG(status.st_mode):
                return status.st_size
        self._spooled = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115
        if name == STDIN:
            shutil.copyfileobj(sys.stdin.buffer, self._spooled)
        else:
            with self._path.open("rb") as pipe:
                shutil.copyfileobj(pipe, self._spooled)
        return self._spooled.tell()

    def _refuse_binary(self, head: bytes) -> None:
        if not head[self._bom :].strip():
            raise CommandError(f"{self.name} is empty")
        for signature, advice in _SIGNATURES.items():
            if head.startswith(signature):
                raise CommandError(f"{self.name} {advice}")
        if b"\0" in head:
            raise CommandError(f"{self.name} is binary, no transcript")

    @contextmanager
    def reading(self) -> Generator[IO[bytes]]:
        """The file from its start."""
        if self._spooled is not None:
            self._spooled.seek(0)
            yield self._spooled
        else:
            with self._path.open("rb") as file:
                yield file

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Every line that is not blank, with its number from 1."""
        with self.reading() as file:
            left = self.size - self._bom
            file.seek(self._bom)
            for number, line in enumerate(file, 1):
                taken = line[:left]
                left -= len(taken)
                if taken.strip():
                    yield number, taken
                if left <= 0:
                    return

    def whole(self) -> bytes:
        """Everything at once: for a single JSON document, which cannot be read in parts."""
        with self.reading() as file:
            file.seek(self._bom)
            return file.read(self.size - self._bom)

    def close(self) -> None:
        """Give the temporary copy back, if one was made."""
        if self._spooled is not None:
            self._spooled.close()

    def malformed(self, line: int, reason: str) -> Malformed:
        """The error for a line."""
        return Malformed(f"{self.name}:{line}: {reason}")

    def parse(self, text: bytes, line: int) -> object:
        """One JSON value that starts on ``line``. Raises :class:`Malformed`."""
        text = text.rstrip()  # so that what is cut off is missing on its last line
        try:
            value: object = json.loads(text.decode())
        except UnicodeDecodeError:
            raise self.malformed(line, "is not UTF-8 text") from None
        except json.JSONDecodeError as error:
            at = line + error.lineno - 1
            if error.pos >= len(error.doc) or error.msg.startswith("Unterminated"):
                raise self.malformed(at, "the JSON breaks off here") from None
            raise self.malformed(at, f"not JSON: {error.msg} (column {error.colno})") from None
        except RecursionError:
            raise self.malformed(line, "is nested too deeply") from None
        except ValueError as error:  # an integer beyond Python's limit of digits
            raise self.malformed(line, f"not JSON that can be read: {error}") from None
        return value
