"""The envelope around every stored row: its format, what it holds, how it was packed.

A row is one byte of format, one of flags, a header that depends on its kind, and a body.
``docs/format.md`` has the bytes in full. Rows that are ``ENCRYPTED`` are opened before they
come here (:mod:`perdure.encryption`).
"""

from perdure.errors import Corrupt, FormatTooNew, Undecryptable

FORMAT = 1
"""Written as the first byte. A new kind, flag or extension type makes a new format."""

# The kind of a row: the two upper bits of its flags.
LOG = 0x00
"""Entries of one commit, or a fragment of a long one."""
VALUE = 0x40
"""One value: a cell."""
BYTES = 0x80
"""Opaque bytes."""
KIND = 0xC0

ZSTD = 0x01
"""The body is one zstd frame."""
EXTENDED = 0x02
"""The body may hold extension types of ours."""
FRAGMENT = 0x04
"""The body is a piece of one entry that is too long for a row."""
MORE_FRAGMENTS = 0x08
"""The next row goes on with it."""
EXPIRES = 0x10
"""The header holds an expiry."""
ENCRYPTED = 0x20
"""The header is a longer one, and the body sealed with a key."""

_ALLOWED = {
    LOG: ZSTD | EXTENDED | FRAGMENT | MORE_FRAGMENTS,
    VALUE: ZSTD | EXTENDED | EXPIRES,
    BYTES: ZSTD,
}
_NAMES = {LOG: "a log row", VALUE: "a value", BYTES: "bytes"}

PREFIX_BYTES = 2


def flags_of(value: bytes, kind: int, header: int) -> int:
    """The flags of a row of ``kind``, the kind itself left out.

    ``header`` is the length that the kind's header has at least. Raises ``FormatTooNew``,
    ``Undecryptable`` for encrypted ones, and ``Corrupt``.
    """
    if len(value) < PREFIX_BYTES:
        raise Corrupt(f"a row of {len(value)} bytes has no envelope")
    if value[0] != FORMAT:
        if value[0] > FORMAT:
            raise FormatTooNew(
                f"a row has format {value[0]}; this perdure reads formats up to {FORMAT}"
            )
        raise Corrupt(f"a row has the unknown format {value[0]}")
    flags = value[1]
    if flags & KIND != kind:
        found = _NAMES.get(flags & KIND, "a row of unknown kind")
        raise Corrupt(f"this should be {_NAMES[kind]} and is {found}")
    flags &= ~KIND
    if flags & ENCRYPTED:
        id = value[3 : 3 + value[2]].decode("ascii", "replace") if len(value) > 3 else ""
        raise Undecryptable(
            f"a row is sealed with the key {id!r}: open the store with its keys (keys= or "
            "PERDURE_ENCRYPTION_KEYS)",
            missing_key=id,
        )
    if flags & ~_ALLOWED[kind] or (flags & MORE_FRAGMENTS and not flags & FRAGMENT):
        raise Corrupt(f"{_NAMES[kind]} has the impossible flags {flags:#04x}")
    if len(value) < PREFIX_BYTES + header:
        raise Corrupt(f"{_NAMES[kind]} of {len(value)} bytes is cut short")
    return flags


def wrap(kind_and_flags: int, header: bytes, body: bytes, compress_min: int | None) -> bytes:
    """A row, its body compressed if that pays: from ``compress_min`` bytes on (``None``:
    never), and only if it saves an eighth."""
    if compress_min is not None and len(body) >= compress_min:
        from perdure.codec.zstd import compress

        compressed = compress(body)
        if len(compressed) <= len(body) - len(body) // 8:
            return b"%c%c%b%b" % (FORMAT, kind_and_flags | ZSTD, header, compressed)
    return b"%c%c%b%b" % (FORMAT, kind_and_flags, header, body)


def unwrap(value: bytes, start: int, flags: int, limit: int) -> bytes:
    """The body, which begins at ``start``: at most ``limit`` bytes if it is compressed.

    Raises ``Corrupt``.
    """
    if not flags & ZSTD:
        return value[start:]
    from perdure.codec.zstd import decompress

    return decompress(value[start:], limit)
