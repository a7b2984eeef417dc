"""Checking all of a session: that every row can be opened, is where it was written, follows the
one before it, and holds what its envelope says."""

from collections.abc import Sequence

import msgspec

from perdure.backend import Backend
from perdure.codec import Codec
from perdure.codec.envelope import FRAGMENT, KIND, LOG, VALUE
from perdure.encryption import Sealing, as_stored
from perdure.errors import Corrupt, FormatTooNew, Undecryptable
from perdure.layout import successor
from perdure.retry import retrying
from perdure.types import Head, Item, Scan, SessionKey

PAGE_BYTES = 4 << 20
PAGE_ITEMS = 4096

MOST_PROBLEMS = 100
"""No more are told of one session."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one session."""

    key: SessionKey
    items: int
    size: int
    """Bytes of the keys and values, as stored."""
    problems: tuple[str, ...]
    """One sentence each, at most ``MOST_PROBLEMS``; none: all is as it was written."""


async def verify_session(
    backend: Backend, key: SessionKey, *, deadline: float = 30.0
) -> Verified | None:
    """Read all rows of a session, encrypted or not, and say what is wrong with them.

    Page by page, in bounded memory; what changes meanwhile is read or not. ``None``: there is
    no such session. Raises ``Unavailable``.
    """
    stored = as_stored(backend)
    verification = _Verification(backend, key)
    start = b""
    while True:
        scan = Scan(start, limit=PAGE_ITEMS, max_bytes=PAGE_BYTES)
        snapshot = await retrying(lambda scan=scan: stored.read(key, scan), deadline)
        if snapshot.head is None:
            return None
        (rows,) = snapshot.rows
        verification.check(snapshot.head, rows.items, start)
        if not rows.more:
            return verification.result()
        start = successor(rows.items[-1].key)


class _Verification:
    """What was read of one session, and found wrong with it, so far."""

    def __init__(self, backend: Backend, key: SessionKey) -> None:
        self._backend = backend if isinstance(backend, Sealing) else None
        self._key = key
        self._codec = Codec()
        self._items = self._size = 0
        self._problems: list[str] = []
        self._missing_keys: set[str] = set()
        self._before: Item | None = None
        self._version = 0

    def result(self) -> Verified:
        return Verified(
            key=self._key,
            items=self._items,
            size=self._size,
            problems=tuple(self._problems[:MOST_PROBLEMS]),
        )

    def check(self, head: Head, items: Sequence[Item], start: bytes) -> None:
        """Take in the next page: all there is from the key ``start`` on."""
        self._items += len(items)
        self._size += sum(len(item.key) + len(item.value) for item in items)
        for item in self._opened(head, items, start) if self._backend and items else items:
            try:
                self._decode(item)
            except (Corrupt, FormatTooNew) as error:
                self._note(error)
        if items:
            self._before, self._version = items[-1], head.version

    def _opened(self, head: Head, items: Sequence[Item], start: bytes) -> Sequence[Item]:
        """The rows in plain, without those that cannot be opened."""
        from perdure.encryption.backend import EncryptedBackend  # loads cryptography
        from perdure.encryption.rows import LINK_BYTES, tail_in

        assert isinstance(self._backend, EncryptedBackend)
        seal = self._backend.seal_for(self._key, head.incarnation)
        tail: bytes | None = None
        if head.last_delete <= self._version:  # else what came before may be gone by right
            tail = tail_in(items[0].key[:-LINK_BYTES], self._before)
        try:
            return seal.open(items, head.last_delete, before=tail, start=start)
        except (Corrupt, FormatTooNew):  # one by one, then, to find all that is wrong
            opened: list[Item] = []
            for item in items:
                try:
                    opened += seal.open((item,), head.last_delete)
                except (Corrupt, FormatTooNew) as error:
                    self._note(error)
            for gap in seal.gaps(items, head.last_delete, before=tail, start=start):
                self._note(gap)
            return opened

    def _decode(self, item: Item) -> None:
        """Make of a row what it holds. Raises ``Corrupt``."""
        flags = item.value[1] if len(item.value) > 1 else LOG
        if flags & KIND == VALUE:
            self._codec.open(self._key, item)
        elif flags & KIND == LOG and not flags & FRAGMENT:
            self._codec.unpack(self._key, (item,))
        else:
            self._codec.body(self._key, item)

    def _note(self, error: Corrupt | FormatTooNew) -> None:
        """A problem; of rows that take the same missing key, one."""
        missing = error.missing_key if isinstance(error, Undecryptable) else None
        if missing is None:
            self._problems.append(str(error))
        elif missing not in self._missing_keys:
            self._missing_keys.add(missing)
            self._problems.append(str(error))
