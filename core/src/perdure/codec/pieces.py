"""Cuts an encoded value at places that its content chooses.

What is chosen by content stays where it is when something is put in, taken out or changed
elsewhere, so that two versions of a long value have nearly all pieces in common. Where the cuts
are matters to nobody who reads: the pieces are only ever joined. The method is content-defined
chunking (Muthitacharoen, Chen, Mazières, "A Low-bandwidth Network File System", 2001), on
whole elements and lines, which C functions find, instead of a window that moves by a byte.
"""

from itertools import accumulate
from typing import NamedTuple
from zlib import crc32

from perdure.codec.values import array_header, split

MIN_BYTES = 4 * 1024
MAX_BYTES = 24 * 1024
"""Shortest and longest piece between two cuts that content chose; about 11 KiB on average."""

LITERAL_BYTES = 64
"""What is left between two fences and is shorter is not worth a piece."""

LARGE_BYTES = 64 * 1024
"""A container from this size on is fenced off: the count at its beginning, which changes with
every element more, goes apart from its content."""

_FENCED_DEPTH = 4
"""Containers deeper inside others are not fenced off."""

_MAX_DEPTH = 8
"""Deeper still nobody looks for elements: each level is one more pass over its bytes."""

_SPACING = 8 * 1024
"""After ``MIN_BYTES`` there is a cut in so many bytes on average."""

_SPARSE = 128
"""A container whose elements are shorter on average is cut as bytes: an object for each would
cost more than they are worth."""

_LINE = 16
"""Text whose lines are shorter on average is cut as bytes, likewise."""

_RATE = 2**32 // _SPACING
_SEED = 0x9E3779B9
"""Starts the checksums, so that that of an empty line, the most frequent, is no cut."""

_CLASSES = bytes(crc32(bytes((byte,))) >> 7 & 1 for byte in range(256))
_PATTERN = b"\0\0\0\1\0\1\1\1"
"""Bytes without lines are divided where the classes of eight in a row, one bit each, are these:
once in 200 to 1 000 bytes, whatever they are. It does not overlap itself."""


class Run(NamedTuple):
    """A part of a cut value: first the literal, then the pieces."""

    literal: bytes
    pieces: list[memoryview]


def cut(body: bytes) -> list[Run]:
    """``body``, one MessagePack value, as runs which are it when joined."""
    cutter = _Cutter(body)
    cutter.value(0, len(body), 0)
    return cutter.runs()


class _Cutter:
    """Finds where one value may be cut (marks) and where it must be (fences)."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._marks: list[int] = []
        self._fences: set[int] = {len(body)}

    def value(self, start: int, stop: int, depth: int) -> None:
        """Look into the value that is ``body[start:stop]``."""
        count, header = _shape(self._body, start)
        first = start + header
        if not count:
            self._bytes(start, stop)
            return
        if stop - start >= LARGE_BYTES and depth < _FENCED_DEPTH:
            self._fences |= {start, first, stop}
        if count * _SPARSE > stop - start:
            self._bytes(first, stop)
            return
        elements = split(array_header(count) + self._body[first:stop])
        lengths = [len(element) for element in elements]
        for end, length in self._chosen(first, elements, lengths):
            if length < _SPACING:
                continue
            if depth < _MAX_DEPTH:
                self.value(end - length, end, depth + 1)
            else:
                self._bytes(end - length, end)

    def _bytes(self, start: int, stop: int) -> None:
        """Look into text or bytes, by their lines if they have any."""
        data = self._body[start:stop]
        if data.count(b"\n") * _LINE > len(data):
            self._noise(start, data)
            return
        lines = data.split(b"\n")
        lengths = [len(line) + 1 for line in lines]
        lengths[-1] -= 1
        for end, length in self._chosen(start, lines, lengths):
            if length >= _SPACING:
                self._noise(end - length, self._body[end - length : end])

    def _noise(self, start: int, data: bytes) -> None:
        parts = data.translate(_CLASSES).split(_PATTERN)
        lengths = [len(part) + len(_PATTERN) for part in parts]
        lengths[-1] -= len(_PATTERN)
        self._chosen(start, parts, lengths)

    def _chosen(
        self, start: int, parts: list[bytes] | list[memoryview], lengths: list[int]
    ) -> list[tuple[int, int]]:
        """Mark the ends of some of the parts that follow one another from ``start``: (end,
        length) of each. A part is chosen by its own content, the likelier the longer it is,
        so that the marks are equally dense whatever the parts are; one of ``_SPACING`` or
        more always is."""
        ends = accumulate(lengths, initial=start)
        next(ends)
        chosen = [
            (end, length)
            for part, end, length in zip(parts, ends, lengths, strict=True)
            if crc32(part, _SEED) < length * _RATE
        ]
        self._marks += [end for end, _ in chosen]
        return chosen

    def runs(self) -> list[Run]:
        """The value, cut."""
        runs = [Run(b"", [])]
        marks = iter(sorted(self._marks))
        mark = next(marks, None)
        start = 0
        for fence in sorted(self._fences):
            inside: list[int] = []
            while mark is not None and mark < fence:
                inside.append(mark)
                mark = next(marks, None)
            if fence - start >= LITERAL_BYTES:
                runs[-1].pieces.extend(self._pieces(start, fence, inside))
            elif runs[-1].pieces:
                runs.append(Run(self._body[start:fence], []))
            else:
                runs[-1] = Run(runs[-1].literal + self._body[start:fence], [])
            start = fence
        return runs

    def _pieces(self, start: int, stop: int, marks: list[int]) -> list[memoryview]:
        """``body[start:stop]`` in pieces of bounded length, cut at marks where possible."""
        cuts = [start]
        for mark in (*marks, stop):
            while mark - cuts[-1] > MAX_BYTES:
                cuts.append(cuts[-1] + MAX_BYTES)
            if mark - cuts[-1] >= MIN_BYTES:
                cuts.append(mark)
        if cuts[-1] < stop:
            cuts.append(stop)
        view = memoryview(self._body)
        return [view[cuts[n] : cuts[n + 1]] for n in range(len(cuts) - 1)]


def _shape(body: bytes, start: int) -> tuple[int, int]:
    """How many values stand inside the one that begins at ``start`` (those of a map count
    twice, for their keys), and the length of its header; (0, 0) for one that is no container.
    """
    lead = body[start]
    if lead & 0xF0 == 0x80:
        return 2 * (lead & 0x0F), 1
    if lead & 0xF0 == 0x90:
        return lead & 0x0F, 1
    if 0xDC <= lead <= 0xDF:
        size = 4 if lead & 1 else 2
        count = int.from_bytes(body[start + 1 : start + 1 + size], "big")
        return count * (2 if lead >= 0xDE else 1), 1 + size
    return 0, 0
