"""Limits hold before memory is spent."""

import random
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from perdure.codec import (
    MAX_NODES,
    MAX_VALUE_BYTES,
    ROW_BYTES,
    Codec,
    conversion,
    decode,
    encode,
)
from perdure.codec.log_rows import MAX_ROW_BYTES
from perdure.codec.zstd import compress, decompress
from perdure.errors import Corrupt, TooLarge

from tests.core.codec.values import COMMIT, KEY, item

CODEC = Codec()
MIB = 1024 * 1024


def peak(action: Callable[[], Any]) -> int:
    """Bytes allocated at once by Python while ``action`` runs."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_longest_value_is_stored_and_no_longer_one() -> None:
    longest = b"x" * (MAX_VALUE_BYTES - 5)
    body, _ = encode(longest)
    assert len(body) == MAX_VALUE_BYTES
    for write in (
        lambda: encode(longest + b"x"),
        lambda: CODEC.seal(KEY, longest + b"x"),
        lambda: CODEC.pack(KEY, COMMIT, [1, longest + b"x"]),
        lambda: CODEC.encode_entries([1, longest + b"x"]),
        lambda: CODEC.seal_bytes(KEY, longest + b"123456"),
    ):
        with pytest.raises(TooLarge, match=str(MAX_VALUE_BYTES)):
            write()


def test_an_entry_that_is_too_long_is_named() -> None:
    with pytest.raises(TooLarge, match=r"entries\[2\]"):
        CODEC.pack(KEY, COMMIT, [1, 2, b"x" * MAX_VALUE_BYTES])


class Leaf(msgspec.Struct):
    text: str = "x" * 1000


@pytest.mark.parametrize("leaf", [0, 2**70, Leaf()], ids=["plain", "extended", "struct"])
def test_a_value_that_grows_by_sharing_is_refused_early(
    leaf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2**40 leaves out of 40 lists."""
    monkeypatch.setattr(conversion, "MAX_NODES", 100_000)
    monkeypatch.setattr(conversion, "MAX_VALUE_BYTES", 10 * MIB)
    value = [leaf]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(TooLarge):
        encode(value)


def test_a_wide_value_of_shared_parts_is_refused_early() -> None:
    wide = [0] * 100_000
    with pytest.raises(TooLarge, match=str(MAX_NODES)):
        encode([[wide] * 1000])


def test_what_is_too_wide_is_not_gathered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "MAX_NODES", 20_000)
    value = [[0] * 10_000] * 1000

    def write() -> None:
        with pytest.raises(TooLarge):
            encode(value)

    assert peak(write) < 5 * MIB


def test_structs_that_are_too_many_are_not_all_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversion, "MAX_VALUE_BYTES", MIB)
    value = [Leaf()] * 20_000

    def write() -> None:
        with pytest.raises(TooLarge):
            encode(value)

    assert peak(write) < 5 * MIB


@pytest.mark.parametrize("header", ["dd", "df", "c6", "db", "c9"])
def test_a_length_that_the_body_cannot_hold_allocates_nothing(header: str) -> None:
    body = bytes.fromhex(header) + b"\xff\xff\xff\xff" + bytes(50)

    def read() -> None:
        with pytest.raises(Corrupt):
            decode(body)

    assert peak(read) < MIB


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k", b"\xdd\x00\x00\x00\x01"])
def test_endless_nesting_is_corrupt(opening: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(opening * 100_000)
    row = CODEC.pack(KEY, COMMIT, [1])[0][:26] + opening * 100_000
    with pytest.raises(Corrupt):
        CODEC.unpack(KEY, [item(row)])
    with pytest.raises(Corrupt):
        CODEC.trim(KEY, item(row))


# Compression


def test_long_bodies_are_compressed_where_it_pays() -> None:
    text = "All work and no play makes a dull session. " * 400
    packed, unpacked = (
        Codec(compress_min=n).pack(KEY, COMMIT, [text])[0] for n in (8192, None)
    )
    assert len(packed) < len(unpacked) // 10
    assert CODEC.unpack(KEY, [item(packed), item(unpacked)]) == [[text], [text]]
    assert CODEC.row_span(packed) == (0, 1)


def test_what_compression_does_not_shrink_is_stored_as_it_is() -> None:
    noise = random.Random(7).randbytes(40_000)
    row = Codec(compress_min=0).seal_bytes(KEY, noise)
    assert row[2:] == noise


def test_short_bodies_are_not_compressed() -> None:
    text = "x" * (8 * 1024 - 3)
    assert CODEC.seal(KEY, text[:-1])[1] == 0x40
    assert CODEC.seal(KEY, text)[1] == 0x41


def frame(size: int, *, stated: bool) -> bytes:
    """``size`` zeros, with or without their number in the frame's header."""
    settings = zstandard.ZstdCompressor(write_content_size=stated)
    compressor = settings.compressobj(size=size if stated else -1)
    chunk = bytes(min(size, MIB))
    parts = [compressor.compress(chunk) for _ in range(size // len(chunk))]
    return b"".join(parts) + compressor.flush()


BOMB = 1024 * MIB

_BOMB_CHILD = r"""
    import re, sys, time
    from pathlib import Path
    from perdure.codec import Codec
    from perdure.errors import Corrupt
    from perdure.types import Item, SessionKey

    codec, key = Codec(), SessionKey.of("t", "k", "s")
    codec.open(key, Item(b"k", codec.seal(key, "x" * 100_000), 1))  # everything is loaded
    row = Item(b"k", sys.stdin.buffer.read(), 1)
    def peak():  # of this process; ru_maxrss begins with its parent's
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

    before = peak()
    started = time.perf_counter()
    try:
        {"log": lambda: codec.unpack(key, [row]), "cell": lambda: codec.open(key, row),
         "bytes": lambda: codec.open_bytes(key, row)}[sys.argv[1]]()
    except Corrupt:
        print(peak() - before, time.perf_counter() - started)
"""


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    stated = frame(BOMB, stated=True)
    # In the header of this frame, a byte for the window and four for the length of the content
    # follow the magic number and the descriptor.
    assert stated[4] >> 6 == 2
    assert not stated[4] & 0x20
    assert stated[6:10] == BOMB.to_bytes(4, "little")
    return {
        "stated": stated,
        "silent": frame(BOMB, stated=False),
        "lying": stated[:6] + (1000).to_bytes(4, "little") + stated[10:],
        "plausible": stated[:6] + (20_000_000).to_bytes(4, "little") + stated[10:],
    }


@pytest.mark.parametrize("kind", ["log", "cell", "bytes"])
@pytest.mark.parametrize("bomb", ["stated", "silent", "lying", "plausible"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmHWM of Linux")
def test_a_gigabyte_in_a_few_kilobytes_is_refused(
    bombs: dict[str, bytes], kind: str, bomb: str
) -> None:
    data = bombs[bomb]
    assert len(data) < 200_000
    prefix = {"log": b"\x01\x01" + bytes(20) + b"\0\0\0\1", "cell": b"\x01\x41"}
    row = prefix.get(kind, b"\x01\x81") + data
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_BOMB_CHILD), kind],
        input=row,
        capture_output=True,
        check=True,
    )
    grown, seconds = done.stdout.split()
    # The plausible one gets the 20 MB that it says it needs.
    assert int(grown) * 1024 < (64 if bomb == "plausible" else 16) * MIB
    assert float(seconds) < 5


def test_a_log_row_is_held_to_less_than_a_cell() -> None:
    data = compress(bytes(MAX_ROW_BYTES + 1))
    row = b"\x01\x01" + bytes(20) + b"\0\0\0\1" + data
    with pytest.raises(Corrupt, match=f"{MAX_ROW_BYTES} are allowed"):
        CODEC.unpack(KEY, [item(row)])


def test_a_frame_must_be_whole_and_alone() -> None:
    text = b"".join(b"%d," % n for n in range(1000))
    good = compress(text)
    assert decompress(good, len(text)) == text
    for bad in (
        good[:-1],
        good + b"\x00",
        good + good,
        b"",
        b"x",
        b"\x50\x2a\x4d\x18\x00\x00\x00\x00",  # a skippable frame
        b"x" + good,
        good[:5] + bytes((good[5] ^ 1,)) + good[6:],  # another length
    ):
        with pytest.raises(Corrupt):
            decompress(bad, len(text) + 100)
    with pytest.raises(Corrupt, match=f"{len(text) - 1} are allowed"):
        decompress(good, len(text) - 1)


def test_a_frame_whose_checksum_is_cut_off_is_corrupt() -> None:
    text = b"".join(b"%d," % n for n in range(1000))
    good = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    assert decompress(good, ROW_BYTES) == text
    with pytest.raises(Corrupt, match="cannot be decompressed"):
        decompress(good[:-1], ROW_BYTES)


def test_a_frame_must_state_its_length() -> None:
    with pytest.raises(Corrupt, match="does not say"):
        decompress(frame(1000, stated=False), ROW_BYTES)


def test_a_frame_that_wants_a_huge_window_is_corrupt() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=24)
    greedy = zstandard.ZstdCompressor(compression_params=wide).compress(bytes(1 << 25))
    with pytest.raises(Corrupt, match="window"):
        decompress(greedy, MAX_VALUE_BYTES)


def test_the_longest_values_survive_compression() -> None:
    for size in (8 * MIB, MAX_VALUE_BYTES):
        data = bytes(size)
        row = CODEC.seal_bytes(KEY, data)
        assert len(row) < size // 1000
        assert CODEC.open_bytes(KEY, item(row)) == data


def test_compression_is_loaded_when_first_needed() -> None:
    script = """
        import sys
        from perdure.codec import Codec
        from perdure.types import SessionKey
        codec, key = Codec(), SessionKey.of("t", "k", "s")
        codec.seal(key, "short")
        assert "perdure.codec.zstd" not in sys.modules
        codec.seal(key, "x" * 10_000)
        assert "perdure.codec.zstd" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
