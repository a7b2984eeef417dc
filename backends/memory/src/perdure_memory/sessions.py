"""What one key holds: the session present, what is remembered of those before, what is read."""

from bisect import bisect_left

from perdure.backend import REMEMBERED_COMMITS, TOMBSTONE_MS
from perdure.types import Commit, Get, Head, Item, Read, Rows


class Life:
    """One incarnation of a key, as its writers' retries need it remembered."""

    __slots__ = ("commits", "deleted_at", "deletion", "forgot", "incarnation")

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation = incarnation
        # id -> (digest, version, when) of the last commits, oldest first
        self.commits: dict[bytes, tuple[bytes, int, int]] = {}
        self.forgot = False  # whether any was ever dropped
        self.deleted_at: int | None = None
        self.deletion: bytes | None = None  # the id of the deletion; expiry has none

    def remember(self, commit: Commit, made: Head, now: int) -> None:
        if commit.restored is not None:  # it follows on commits that were made elsewhere
            self.commits.clear()
            self.forgot = made.version > 1
        self.commits[commit.id] = commit.digest, made.version, now
        if len(self.commits) > 2 * REMEMBERED_COMMITS:
            del self.commits[next(iter(self.commits))]
            self.forgot = True

    def remembers_since(self, base: int, seen: int | None, now: int) -> bool:
        """Whether every commit after version ``base``, or from ``seen`` on, is remembered.

        A clock that is behind ``seen`` has been set back, and its times prove nothing.
        """
        _, version, at = next(iter(self.commits.values()))
        return not self.forgot or version <= base + 1 or (seen is not None and at < seen <= now)


class Session:
    """One key: the session present, if there is one, and what is known of those before it."""

    __slots__ = ("head", "items", "keys", "lives", "resent_at")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.items: dict[bytes, Item] = {}  # last written last
        self.keys: list[bytes] = []  # those of items, sorted
        self.lives: list[Life] = []  # oldest first; all but the present one are tombstones
        self.resent_at = 0  # when a commit with ``resend`` was applied last

    def sent_before(self, commit: Commit, now: int) -> bool:
        """Whether the commit may have been sent before: it says so, or its own resend may have
        overtaken it."""
        seen = 0 if commit.seen is None or commit.seen > now else commit.seen
        return commit.resend or self.resent_at >= max(seen, now - TOMBSTONE_MS)

    def remembers_since(self, commit: Commit, now: int) -> bool:
        """Whether the commit can be known not to have been applied when it was sent before.

        Nothing was ever committed to an incarnation that nobody knows, or so long ago that its
        tombstone has lapsed; no retry is that late.
        """
        if commit.incarnation is None:
            return all(life.remembers_since(0, commit.seen, now) for life in self.lives)
        return all(
            life.remembers_since(commit.base, commit.seen, now)
            for life in self.lives
            if life.incarnation == commit.incarnation
        )

    def put(self, key: bytes, value: bytes, version: int) -> None:
        if self.items.pop(key, None) is None:
            if not self.keys or key > self.keys[-1]:
                self.keys.append(key)
            else:
                self.keys.insert(bisect_left(self.keys, key), key)
        self.items[key] = Item(key, value, version)

    def remove(self, start: bytes, stop: bytes | None) -> None:
        low = bisect_left(self.keys, start)
        high = len(self.keys) if stop is None else bisect_left(self.keys, stop)
        for key in self.keys[low:high]:
            del self.items[key]
        del self.keys[low:high]

    def bury(self, now: int, deletion: bytes | None) -> None:
        self.lives[-1].deleted_at = now
        self.lives[-1].deletion = deletion
        self.head = None
        self.items.clear()
        self.keys.clear()

    def forget(self, now: int) -> bool:
        """Drop the tombstones that have lapsed; whether there were any."""
        kept = [
            life
            for life in self.lives
            if life.deleted_at is None or now - life.deleted_at <= TOMBSTONE_MS
        ]
        lapsed = len(kept) < len(self.lives)
        self.lives = kept
        return lapsed


class Stage:
    """Parts written ahead of the commit that will name them."""

    __slots__ = ("parts", "staged_at")

    def __init__(self, staged_at: int) -> None:
        self.staged_at = staged_at
        self.parts: dict[bytes, bytes] = {}


def answer(session: Session | None, reads: tuple[Read, ...]) -> tuple[Rows, ...]:
    """What each read finds; nothing where there is no session."""
    return tuple(_rows(session, read) for read in reads)


def _rows(session: Session | None, read: Read) -> Rows:
    if session is None:
        return Rows()
    if isinstance(read, Get):
        item = session.items.get(read.key)
        return Rows() if item is None else Rows((item,))
    keys = _written_since(session, read.since) if read.since else session.keys
    low = bisect_left(keys, read.start)
    high = len(keys)
    if read.stop is not None:
        high = max(low, bisect_left(keys, read.stop))
    found: list[Item] = []
    size = 0
    for position in range(high - 1, low - 1, -1) if read.reverse else range(low, high):
        item = session.items[keys[position]]
        if found and (
            (read.limit is not None and len(found) >= read.limit)
            or (read.max_bytes is not None and size >= read.max_bytes)
        ):
            return Rows(found, more=True)
        found.append(item)
        size += len(item.value)
    return Rows(found)


def _written_since(session: Session, version: int) -> list[bytes]:
    """The keys of the items stamped later, sorted."""
    keys: list[bytes] = []
    for item in reversed(session.items.values()):
        if item.version <= version:
            break
        keys.append(item.key)
    return sorted(keys)
