"""Where an attachment's bytes come from: read in blocks, whatever they come in."""

import asyncio
import inspect
import io
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from pathlib import PurePath
from typing import Protocol, TypeVar, cast

from perdure.errors import InvalidValue

T = TypeVar("T")

THREAD_BYTES = 64 * 1024
"""Work on fewer bytes is done at once: a thread costs more."""


class Readable(Protocol):
    """A binary file, or what reads like one."""

    def read(self, size: int, /) -> bytes: ...


class AsyncReadable(Protocol):
    """A binary file whose ``read`` is awaited, such as an upload in a web framework."""

    async def read(self, size: int, /) -> bytes: ...


Source = (
    bytes
    | bytearray
    | memoryview
    | Readable
    | AsyncReadable
    | Iterable[bytes]
    | AsyncIterable[bytes]
)
"""What ``put`` takes: bytes, a binary file (from where it stands to its end), or pieces of any
length."""


async def off_loop(work: Callable[[], T], size: int) -> T:
    """Do what takes a while for so many bytes without holding up the event loop."""
    return work() if size < THREAD_BYTES else await asyncio.to_thread(work)


class Blocks:
    """The bytes of a source, in blocks of one length.

    Files and iterables are read in threads, one call at a time. Raises ``InvalidValue`` for
    what is not a source of bytes, also later on; what the source raises goes through.
    """

    def __init__(self, source: object) -> None:
        self._view: memoryview | None = None
        self._read: Callable[[int], object] | None = None
        self._awaited: Iterator[object] | AsyncIterator[object] | None = None
        self._file: object = None
        self._start: object = None
        self._at = 0
        self._held = bytearray()
        """Read already, and not yet given out."""
        self._ended = False
        if isinstance(source, bytes | bytearray | memoryview):
            view = memoryview(cast("bytes | bytearray | memoryview[int]", source))
            self._view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        elif isinstance(source, str | io.TextIOBase | PurePath):
            raise InvalidValue(
                f"an attachment is bytes, not {_HINTS[_kind(source)]}", path="source"
            )
        elif callable(read := getattr(source, "read", None)):
            self._file, self._read = source, read
            self._start = _position(source)
        elif isinstance(source, AsyncIterable):
            self._awaited = aiter(cast("AsyncIterable[object]", source))
        elif isinstance(source, Iterable):
            self._awaited = iter(cast("Iterable[object]", source))
        else:
            raise InvalidValue(
                "an attachment comes from bytes, a binary file or an iterable of bytes, not "
                f"from {type(source).__name__}",
                path="source",
            )

    @property
    def view(self) -> memoryview | None:
        """All of it, if it is in memory as a whole."""
        return self._view

    async def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end, and then none."""
        if self._view is not None:
            block = bytes(self._view[self._at : self._at + size])
            self._at += len(block)
            return block
        while len(self._held) < size and not self._ended:
            await self._fill(size)
        block = bytes(memoryview(self._held)[:size])
        del self._held[:size]
        return block

    async def rewind(self) -> bool:
        """Go back to where it began; whether that is possible."""
        if self._view is not None:
            self._at = 0
            return True
        seek = getattr(self._file, "seek", None)
        if self._start is None or not callable(seek):
            return False
        await asyncio.to_thread(seek, self._start)
        self._held.clear()
        self._ended = False
        return True

    async def _fill(self, size: int) -> None:
        """Read on until ``size`` bytes are held, or some of them, or the source has ended."""
        if isinstance(self._awaited, AsyncIterator):
            async for piece in self._awaited:
                self._hold(piece)
                if len(self._held) >= size:
                    return
            self._ended = True
        elif self._awaited is not None:
            await asyncio.to_thread(self._take, self._awaited, size)
        else:
            assert self._read is not None
            wanted = size - len(self._held)
            if inspect.iscoroutinefunction(self._read):
                piece = self._read(wanted)
            else:
                piece = await asyncio.to_thread(self._read, wanted)
            if inspect.isawaitable(piece):
                piece = await cast("Awaitable[object]", piece)
            self._hold(piece)
            self._ended = not piece

    def _take(self, pieces: Iterator[object], size: int) -> None:
        for piece in pieces:
            self._hold(piece)
            if len(self._held) >= size:
                return
        self._ended = True

    def _hold(self, piece: object) -> None:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise InvalidValue(
                f"an attachment's source gave {type(piece).__name__} instead of bytes",
                path="source",
            )
        self._held += piece


_HINTS = {
    str: "str: encode it first",
    io.TextIOBase: 'a text file: open it with mode "rb"',
    PurePath: 'a path: open it with mode "rb"',
}


def _kind(source: object) -> type:
    return next(kind for kind in _HINTS if isinstance(source, kind))


def _position(file: object) -> object:
    """Where a file stands, if it can be read again from there."""
    seekable = getattr(file, "seekable", None)
    tell = getattr(file, "tell", None)
    if not callable(seekable) or not callable(tell) or not seekable():
        return None
    return tell()
