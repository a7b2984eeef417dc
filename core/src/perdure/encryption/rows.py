"""The rows of one session, sealed and opened.

A sealed row is bound to its place (tenant, kind, session, incarnation, item key), to the commit
that wrote it and, in a log, to the row before it. See ``docs/format.md``.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import add, attrgetter, itemgetter

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from perdure.codec.envelope import BYTES, ENCRYPTED, EXPIRES, FORMAT, KIND, LOG, VALUE
from perdure.codec.log_rows import HEADER_BYTES as LOG_HEADER_BYTES
from perdure.encryption.keys import MAX_ID_BYTES, KeyRing
from perdure.errors import Corrupt, FormatTooNew, Undecryptable
from perdure.types import Item, SessionKey, appended_version

LINK_BYTES = 12
NO_LINK = bytes(LINK_BYTES)
"""Of the first row of a log."""
ANY_LINK = b"\xff" * LINK_BYTES
"""Of a row whose predecessor was not known when it was sealed."""

UNBOUND = 0
"""The version of a row that was staged: it is adopted by a commit that was not known yet."""

NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD = 1 + MAX_ID_BYTES + 8 + LINK_BYTES + NONCE_BYTES + TAG_BYTES
"""By how many bytes a sealed row is longer at most."""

PURPOSE = b"perdure row"

_VERSION = struct.Struct(">Q")
_KIND_HEADER = {LOG: LOG_HEADER_BYTES, VALUE: 0, BYTES: 0}
_BATCH = 8
"""From so many rows on they are opened all at once, in loops that are not Python's."""

_PLAIN_PREFIX = {flags: bytes((FORMAT, flags & ~ENCRYPTED)) for flags in range(256)}
_SEALED_LOG_FLAGS = frozenset(flags for flags in range(64) if flags & ENCRYPTED)

_key_of = attrgetter("key")
_value_of = attrgetter("value")
_version_of = attrgetter("version")
_tail_of = itemgetter(slice(-LINK_BYTES, None))


def is_log_row(value: bytes) -> bool:
    """Whether a row, sealed or not, is one of a log's chain."""
    return len(value) > 1 and value[1] & KIND == LOG


def is_sealed(value: bytes) -> bool:
    """Whether a row says that it is encrypted."""
    return len(value) > 1 and bool(value[1] & ENCRYPTED)


def key_id_of(value: bytes) -> str:
    """The id of the key that a sealed row names. Raises ``Undecryptable``."""
    return value[3 : _id_stop(value)].decode("ascii", "replace")


def link_of(value: bytes) -> bytes:
    """The link of a log row: the tail of the key of the row before it.

    Of one in plain, which has none: ``ANY_LINK``.
    """
    if not is_sealed(value):
        return ANY_LINK
    start = _id_stop(value) + _VERSION.size
    return value[start : start + LINK_BYTES]


def tail_before(key: bytes) -> bytes | None:
    """What a log row is linked to as its key says it: the row before, of the same commit.
    ``None`` for the first row of a commit."""
    ordinal = int.from_bytes(key[-4:], "big")
    return key[-LINK_BYTES:-4] + (ordinal - 1).to_bytes(4, "big") if ordinal else None


def tail_in(prefix: bytes, item: Item | None) -> bytes | None:
    """What the row after this one is linked to, if both are of the log with this prefix."""
    if item is None or not is_log_row(item.value) or item.key[:-LINK_BYTES] != prefix:
        return None
    return item.key[-LINK_BYTES:]


def _id_stop(value: bytes) -> int:
    """Where the id of a sealed row's key ends."""
    length = value[2] if len(value) > 2 else 0
    if not 0 < length <= MAX_ID_BYTES or len(value) < 3 + length:
        raise Undecryptable("a row is encrypted and does not say with which key")
    return 3 + length


class Seal:
    """Seals and opens the rows of one incarnation of one session. For any thread."""

    __slots__ = ("_ciphers", "_context", "_key", "_primary", "_ring")

    def __init__(self, ring: KeyRing, key: SessionKey, incarnation: bytes) -> None:
        self._ring = ring
        self._key = key
        session = key.encode()
        # What rows are bound to beside what they themselves hold. Unambiguous: the part before
        # it in the associated data says how long it is, and the item key is all that follows.
        self._context = incarnation + len(session).to_bytes(2, "big") + session
        self._ciphers: dict[str, AESGCM] = {}
        id = ring.primary.encode()
        self._primary = bytes((len(id),)) + id

    def _cipher(self, id: str) -> AESGCM:
        """With a key of this session's own, so that the bound on random nonces is too."""
        cipher = self._ciphers.get(id)
        if cipher is None:
            cipher = AESGCM(self._ring.derive(id, PURPOSE, self._context))
            self._ciphers[id] = cipher
        return cipher

    def seal(self, item_key: bytes, row: bytes, version: int, link: bytes) -> bytes:
        """A row made for this place. ``link`` matters for rows of a log only."""
        flags = row[1]
        body = 2 + _header_bytes(row)
        header = b"%c%c%b%b%b%b" % (
            FORMAT,
            flags | ENCRYPTED,
            self._primary,
            _VERSION.pack(version),
            link if flags & KIND == LOG else b"",
            row[2:body],
        )
        nonce = os.urandom(NONCE_BYTES)
        cipher = self._cipher(self._ring.primary)
        sealed = cipher.encrypt(nonce, row[body:], header + self._context + item_key)
        return header + nonce + sealed

    def open(
        self,
        items: Sequence[Item],
        last_delete: int,
        *,
        reverse: bool = False,
        since: int = 0,
        before: bytes | None = None,
        start: bytes | None = None,
    ) -> Sequence[Item]:
        """The rows in plain, of which those of a log must follow one another as written.

        ``last_delete`` is the head's. ``reverse``, ``since``: as of the scan that found them.
        ``before``: what the first row continues, which is the tail of a key or, in reverse, the
        link of a row. ``start``: the key from which on the scan has found all there is;
        ``None``: these are rows picked out. Raises ``Undecryptable``, ``FormatTooNew``,
        ``Corrupt``.
        """
        if len(items) >= _BATCH:
            opened = self._open_log(items, last_delete, reverse, since, before, start)
            if opened is not None:
                return opened
        opened = [
            Item(item.key, self.open_one(item, last_delete), item.version) for item in items
        ]
        gaps = self.gaps(
            items, last_delete, reverse=reverse, since=since, before=before, start=start
        )
        for gap in gaps:
            raise gap
        return opened

    def _open_log(
        self,
        items: Sequence[Item],
        last_delete: int,
        reverse: bool,
        since: int,
        before: bytes | None,
        start: bytes | None,
    ) -> list[Item] | None:
        """The rows, if all of them are of one log, sealed with one key, and nothing is special
        about any; ``None`` otherwise, errors included. Loops in C."""
        keys = list(map(_key_of, items))
        values = list(map(_value_of, items))
        first = values[0]
        if len(first) < 3:
            return None
        version = 3 + first[2]
        common = itemgetter(slice(2, version))
        one_log = (
            len(set(map(len, keys))) == 1
            and keys[0][:-LINK_BYTES] == keys[-1][:-LINK_BYTES]
            and since < appended_version(keys[-1 if reverse else 0])
        )
        if (
            not one_log
            or min(map(len, values)) <= version + _VERSION.size
            or set(map(itemgetter(0), values)) != {FORMAT}
            or not set(map(itemgetter(1), values)) <= _SEALED_LOG_FLAGS
            or set(map(common, values)) != {first[2:version]}
        ):
            return None
        link = version + _VERSION.size
        header = link + LINK_BYTES
        nonce = header + LOG_HEADER_BYTES
        body = nonce + NONCE_BYTES
        versions = list(map(_version_of, items))
        stated = b"".join(map(itemgetter(slice(version, link)), values))
        if stated != struct.pack(f">{len(versions)}Q", *versions):
            return None
        links = list(map(itemgetter(slice(link, header)), values))
        tails = list(map(_tail_of, keys))
        if reverse:
            if links[:-1] != tails[1:] or before not in (None, tails[0]):
                return None
        elif links[1:] != tails[:-1] or before not in (None, links[0]):
            return None
        if start is not None and _is_bereft(
            items[-1 if reverse else 0], start, max(since + 1, last_delete)
        ):
            return None
        try:
            plain = map(
                self._cipher(first[3:version].decode("ascii")).decrypt,
                map(itemgetter(slice(nonce, body)), values),
                map(itemgetter(slice(body, None)), values),
                map(
                    add,
                    map(itemgetter(slice(0, nonce)), values),
                    map(add, repeat(self._context), keys),
                ),
            )
            rows = [
                _PLAIN_PREFIX[value[1]] + value[header:nonce] + entries
                for value, entries in zip(values, plain, strict=True)
            ]
        except (InvalidTag, ValueError, Undecryptable):
            return None
        return list(map(Item, keys, rows, versions))

    def open_one(self, item: Item, last_delete: int) -> bytes:
        """One row in plain. Raises as :meth:`open` does."""
        value = item.value
        if len(value) > 1 and value[0] > FORMAT:
            raise FormatTooNew(f"a row has format {value[0]} ({self._place(item)})")
        if not is_sealed(value):
            if self._ring.accept_plaintext:
                return value
            raise self._refusal(
                item,
                "is in plain, and this store is encrypted: somebody without the keys wrote it, "
                "or before there were any. If it may be so, accept_plaintext in the key ring "
                "reads it, and `perdure rotate` seals it",
            )
        version = _id_stop(value)
        link = version + _VERSION.size
        header = link + (LINK_BYTES if is_log_row(value) else 0)
        nonce = header + _header_bytes(value)
        body = nonce + NONCE_BYTES
        if value[0] != FORMAT or len(value) < body + TAG_BYTES:
            raise self._refusal(item, "is cut short or no row at all")
        try:
            plain = self._cipher(key_id_of(value)).decrypt(
                value[nonce:body], value[body:], value[:nonce] + self._context + item.key
            )
        except InvalidTag:
            raise self._refusal(
                item,
                "was altered, or moved here from elsewhere, or its key is not what it was",
            ) from None
        except Undecryptable as error:
            message = f"{error} ({self._place(item)})"
            raise Undecryptable(message, missing_key=error.missing_key) from None
        (stated,) = _VERSION.unpack_from(value, version)
        # A copy of a session stamps its items anew, in a commit that also deletes.
        if stated != item.version and (
            stated != UNBOUND and not stated < item.version <= last_delete
        ):
            raise self._refusal(
                item,
                f"was written by version {stated}, and is here as of version {item.version}: "
                "a former value has been put back",
            )
        return _PLAIN_PREFIX[value[1]] + value[header:nonce] + plain

    def gaps(
        self,
        items: Sequence[Item],
        last_delete: int,
        *,
        reverse: bool = False,
        since: int = 0,
        before: bytes | None = None,
        start: bytes | None = None,
    ) -> Iterator[Undecryptable]:
        """An error for each log row that does not follow the one before; see :meth:`open`."""
        previous: Item | None = None
        for item in reversed(items) if reverse else items:
            if not is_log_row(item.value):
                continue
            expected: bytes | None = None
            if previous is None or item.key[:-LINK_BYTES] != previous.key[:-LINK_BYTES]:
                expected = before if previous is None and not reverse else None
                lasting = max(since + 1, last_delete)
                if start is not None and _is_bereft(item, start, lasting):
                    yield self._gap(item)
                    expected = None
            elif item.key[:-LINK_BYTES] == previous.key[:-LINK_BYTES] and (
                # Rows that a scan leaves out as too old are all before those it must find.
                not since or appended_version(previous.key) > since
            ):
                expected = previous.key[-LINK_BYTES:]
            if expected is not None and not _follows(item, expected):
                yield self._gap(item)
            previous = item
        if reverse and previous is not None and before not in (None, ANY_LINK):
            newest = next(item for item in items if is_log_row(item.value))
            if before != newest.key[-LINK_BYTES:]:
                yield self._gap(newest)

    def _gap(self, item: Item) -> Undecryptable:
        return self._refusal(
            item, "does not follow the one before it: what stood between is gone"
        )

    def _refusal(self, item: Item, what: str) -> Undecryptable:
        return Undecryptable(f"a row {what} ({self._place(item)})")

    def _place(self, item: Item) -> str:
        key = self._key
        return (
            f"item {item.key!r} of session {key.id!r}, kind {key.kind!r}, tenant {key.tenant!r}"
        )


def _is_bereft(item: Item, start: bytes, lasting: int) -> bool:
    """Whether the row that a log row is linked to ought to be there too, if all is from the key
    ``start`` on that versions from ``lasting`` on have appended."""
    try:
        link = link_of(item.value)
    except Undecryptable:  # it cannot be opened itself
        return False
    return (
        link not in (NO_LINK, ANY_LINK)
        and int.from_bytes(link[:8], "big") >= lasting
        and item.key[:-LINK_BYTES] + link >= start
    )


def _follows(item: Item, expected: bytes) -> bool:
    """Whether a log row says that it follows the one with this tail, or may."""
    try:
        return link_of(item.value) in (expected, ANY_LINK)
    except Undecryptable:  # it says nothing, and cannot be opened itself
        return True


def _header_bytes(row: bytes) -> int:
    """The length of the header that belongs to the kind of a row."""
    size = _KIND_HEADER.get(row[1] & KIND) if len(row) > 1 else None
    if size is None or row[0] != FORMAT:
        raise Corrupt("this is no row of a kind that can be sealed or opened")
    return size + 8 if row[1] & KIND == VALUE and row[1] & EXPIRES else size
