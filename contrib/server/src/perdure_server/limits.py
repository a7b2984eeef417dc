"""How much one request may ask for.

Backends trust their callers to keep the limits of their capabilities. A server cannot, and
sees to it that no single request fills its memory.
"""

from collections.abc import Sequence

import msgspec

from perdure.backend import Capabilities
from perdure.errors import TooLarge
from perdure.types import MAX_ITEM_KEY_BYTES, Commit, Read, Scan

MAX_COMMIT_BYTES = 8 << 20
MAX_COMMIT_ITEMS = 10_000
MAX_READ_BYTES = 8 << 20
"""What a request may do at most, whatever the backend can. With keys and bounds of the longest
everywhere, so many items of a commit still fit a body of ``protocol.limits.MAX_BODY_BYTES``."""

MAX_ANSWER_BYTES = 32 << 20
"""What the scans of one request may find together, about."""

MAX_PAGE = 1000
"""Sessions or names of one page; a caller who asks for more gets so many and a cursor."""

MAX_SWEEP = 1000


def served(capabilities: Capabilities) -> Capabilities:
    """What can be done with a backend through this server."""
    commit_bytes = min(capabilities.max_commit_bytes, MAX_COMMIT_BYTES)
    return msgspec.structs.replace(
        capabilities,
        # With its key, the largest item must fit a stage of its own.
        max_item_bytes=min(capabilities.max_item_bytes, commit_bytes - MAX_ITEM_KEY_BYTES),
        max_commit_bytes=commit_bytes,
        max_commit_items=min(capabilities.max_commit_items, MAX_COMMIT_ITEMS),
        max_read_bytes=min(capabilities.max_read_bytes, MAX_READ_BYTES),
        loop_bound=False,
    )


def check_commit(commit: Commit, limits: Capabilities) -> None:
    """Raise ``TooLarge`` if a commit is beyond what is served."""
    sizes = [len(key) + len(value) for key, value in commit.puts]
    values = [len(value) for _, value in commit.puts]
    for append in commit.appends:
        sizes += [len(append.prefix) + 12 + len(value) for value in append.values]
        values += map(len, append.values)
    if len(commit.stages) > limits.max_commit_items:
        raise TooLarge(
            f"{len(commit.stages)} stages; this server takes {limits.max_commit_items}"
        )
    _check(sizes, values, len(commit.deletes) + len(commit.conditions), limits)


def check_parts(puts: Sequence[tuple[bytes, bytes]], limits: Capabilities) -> None:
    """Raise ``TooLarge`` if parts to be staged are beyond what is served."""
    sizes = [len(key) + len(value) for key, value in puts]
    _check(sizes, [len(value) for _, value in puts], 0, limits)


def _check(sizes: Sequence[int], values: Sequence[int], others: int, to: Capabilities) -> None:
    longest, size, count = max(values, default=0), sum(sizes), len(sizes) + others
    if longest > to.max_item_bytes:
        raise TooLarge(f"an item of {longest} bytes; this server takes {to.max_item_bytes}")
    if size > to.max_commit_bytes:
        raise TooLarge(f"{size} bytes at once; this server takes {to.max_commit_bytes}")
    if count > to.max_commit_items:
        raise TooLarge(
            f"{count} items, deletions and conditions; this server takes {to.max_commit_items}"
        )


def bounded(reads: tuple[Read, ...], limits: Capabilities) -> tuple[Read, ...]:
    """The same reads, none of which finds more than its part of an answer.

    What is cut says ``more``, as always.
    """
    scans = sum(isinstance(read, Scan) for read in reads)
    share = min(limits.max_read_bytes, MAX_ANSWER_BYTES // max(scans, 1))
    return tuple(
        msgspec.structs.replace(read, max_bytes=share)
        if isinstance(read, Scan) and (read.max_bytes is None or read.max_bytes > share)
        else read
        for read in reads
    )
