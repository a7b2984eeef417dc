"""Content to attach, and the ways in which it may come."""

import io
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator

LOT = 2 * 255 * 1024
"""What goes in one round trip."""


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def pieces(data: bytes, size: int) -> Generator[bytes, None, None]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def async_pieces(
    data: bytes, size: int, *, then: Callable[[int], Awaitable[object]] | None = None
) -> AsyncGenerator[bytes, None]:
    """``then`` is awaited with the number of bytes given out so far, before each piece."""
    for start in range(0, len(data), size):
        if then is not None:
            await then(start)
        yield data[start : start + size]


class SlowFile:
    """Gives less than it is asked for, as pipes and sockets do, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 100_000))


class AwaitedFile:
    """As uploads are in some web frameworks."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int) -> bytes:
        return self._file.read(size)


class Repeatable:
    """An iterable that is no iterator."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return pieces(self._data, 70_000)


def _spread(data: bytes) -> bytes:
    spread = bytearray(2 * len(data))
    spread[::2] = data
    return bytes(spread)


SOURCES: dict[str, Callable[[bytes], object]] = {
    "bytes": lambda data: data,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "every other byte": lambda data: memoryview(_spread(data))[::2],
    "words": lambda data: memoryview(data).cast("H"),
    "file": io.BytesIO,
    "slow file": SlowFile,
    "awaited file": AwaitedFile,
    "list": lambda data: list(pieces(data, 33_333)),
    "one long piece": lambda data: [data],
    "generator": lambda data: pieces(data, 1000),
    "with empty pieces": lambda data: [b"", *pieces(data, 500_000), b""],
    "iterable": Repeatable,
    "async generator": lambda data: async_pieces(data, 12_345),
}
