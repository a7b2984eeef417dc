"""What scripts are given and what they answer, as bytes.

Each script says at its top what it expects; the flags here are those of ``lua/commit.lua``.
"""

from collections.abc import Sequence
from struct import Struct
from typing import cast

from perdure.types import (
    At,
    Commit,
    Expect,
    Get,
    Head,
    Item,
    KeyRange,
    Read,
    Rows,
)

from perdure_redis.keys import behind, bound, escape, place, unescape

RESEND = 1
NAMED = 2
PRESENT = 4
ABSENT = 8
AT = 16
SEEN = 32
EXPIRES_AT = 64
EXPIRES_IN = 128
META = 256
LABELS = 512
RESTORED = 1024

APPLIED, REPLAYED, REUSED, FORGOTTEN, DELETED, CONFLICT, NO_STAGE, NO_INDEX = range(8)
NOTHING, LONG = 8, 9
"""How scripts say what came of a request; the same in all of them."""

_EXPECT = {Expect.ANY: 0, Expect.PRESENT: PRESENT, Expect.ABSENT: ABSENT}

_HEADER = Struct(">HHHHHH16s8sQ16s").pack
_NUMBER = Struct(">Q").pack
_LENGTH = Struct(">H").pack
_ORDINAL = Struct(">I").pack
_VERSION_AND_TIP = Struct(">Q16s").pack
_THREE = Struct(">QQQ").pack
_SCAN = Struct(">c?IQIH").pack
_DELETION = Struct(">B16s16sQ16s").pack
_HEAD = Struct(">2xQQQQQQQQ16s16s").unpack

_MOST = (1 << 32) - 1

EMPTY = Rows()


def commit_arguments(commit: Commit) -> list[bytes]:
    """``ARGV`` of ``commit.lua``."""
    expect, named = commit.expect, commit.incarnation
    flags = (RESEND if commit.resend else 0) | (0 if named is None else NAMED)
    optional = b""
    if isinstance(expect, At):
        flags |= AT
        optional = _VERSION_AND_TIP(expect.version, expect.tip)
    else:
        flags |= _EXPECT[expect]
    if commit.seen is not None:
        flags |= SEEN
        optional += _NUMBER(commit.seen)
    if commit.expires_in is not None:
        flags |= EXPIRES_IN
        optional += _NUMBER(commit.expires_in)
    elif commit.expires_at is not None:
        flags |= EXPIRES_AT
        optional += _NUMBER(commit.expires_at)
    if commit.restored is not None:
        origin = commit.restored
        flags |= RESTORED
        optional += _THREE(origin.version, origin.created_at, origin.updated_at)
    arguments = [b""]
    if commit.meta is not None:
        flags |= META
        arguments.append(commit.meta)
    if commit.labels is not None:
        flags |= LABELS
        arguments.append("\0".join(commit.labels).encode())
    for condition in commit.conditions:
        where = b"" if condition.key is None else place(condition.key)
        arguments.append(_NUMBER(condition.version) + where)
    for target in commit.deletes:
        if isinstance(target, KeyRange):
            low, high = bound(target.start), bound(target.stop)
        else:
            low = place(target)
            high = behind(low)
        arguments.append(_LENGTH(len(low)) + low + high)
    arguments += commit.stages
    # Stamped for the version that it is likely to become; the script knows better.
    stamp = _NUMBER(commit.base + 1 if commit.restored is None else commit.restored.version)
    for key, value in commit.puts:
        arguments.append(b"%b%b%b" % (place(key), stamp, value))
    for append in commit.appends:
        prefix = bound(append.prefix)
        arguments.append(_LENGTH(len(append.values)) + prefix)
        for ordinal, value in enumerate(append.values):
            suffix = escape(stamp + _ORDINAL(ordinal))
            arguments.append(b"%b%b\0%b%b" % (prefix, suffix, stamp, value))
    for read in commit.returning:
        arguments.append(read_argument(read))
    arguments[0] = (
        _HEADER(
            flags,
            len(commit.conditions),
            len(commit.deletes),
            len(commit.stages),
            len(commit.puts),
            len(commit.appends),
            commit.id,
            commit.digest,
            commit.base,
            commit.new_incarnation if named is None else named,
        )
        + optional
    )
    return arguments


def stage_arguments(token: bytes, puts: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """``ARGV`` of ``stage.lua``; ``token`` is the incarnation and the stage."""
    parts: dict[bytes, bytes] = {}
    for key, value in puts:
        parts.setdefault(place(key), value)
    return [token, *(b"p%b%b%b" % (token, where, parts[where]) for where in parts)]


def deletion_argument(id: bytes, expect: Expect | At, incarnation: bytes | None) -> bytes:
    """``ARGV`` of ``delete.lua``."""
    at = expect if isinstance(expect, At) else None
    return _DELETION(
        (0 if incarnation is None else 1) | (0 if at is None else 2),
        id,
        incarnation or b"",
        at.version if at else 0,
        at.tip if at else b"",
    )


def read_argument(read: Read) -> bytes:
    """One read, as ``parts/items.lua`` takes it."""
    if isinstance(read, Get):
        return place(read.key)
    low = bound(read.start)
    return (
        _SCAN(
            b"s",
            read.reverse,
            0 if read.limit is None else max(1, min(read.limit, _MOST)),
            read.since,
            _MOST if read.max_bytes is None else max(0, min(read.max_bytes, _MOST)),
            len(low),
        )
        + low
        + bound(read.stop)
    )


def read_command(key: bytes, read: Read) -> tuple[bytes, ...]:
    """One read as a plain command: all that it may need, in its order."""
    if isinstance(read, Get):
        where = place(read.key)
        return _range(key, where, behind(where), reverse=False)
    command = _range(key, bound(read.start), bound(read.stop), reverse=read.reverse)
    if read.limit is not None and not read.since:
        # One more, to know whether there is more.
        command += b"LIMIT", b"0", b"%d" % (max(1, read.limit) + 1)
    return command


def head_command(key: bytes) -> tuple[bytes, ...]:
    """The h members of a session."""
    return _range(key, b"h", b"i", reverse=False)


def _range(key: bytes, low: bytes, high: bytes, *, reverse: bool) -> tuple[bytes, ...]:
    if reverse:
        return b"ZRANGE", key, b"(" + high, b"[" + low, b"BYLEX", b"REV"
    return b"ZRANGE", key, b"[" + low, b"(" + high, b"BYLEX"


def head_of(members: Sequence[bytes]) -> Head | None:
    """The head that a session's h members are; ``None`` if there are none."""
    if not members:
        return None
    version, last_delete, meta_version, created, updated, expires, _, _, life, tip = _HEAD(
        members[0]
    )
    meta, labels = b"", ()
    for member in members[1:]:
        if member[1:2] == b"1":
            labels = tuple(member[2:].decode().split("\0"))
        else:
            meta = member[2:]
    return Head(
        version=version,
        incarnation=life,
        tip=tip,
        last_delete=last_delete,
        created_at=created,
        updated_at=updated,
        expires_at=expires or None,
        meta=meta,
        meta_version=meta_version,
        labels=labels,
    )


def recency_of(members: Sequence[bytes]) -> int:
    """``recent_at`` of a session, of its h members."""
    return int.from_bytes(members[0][50:58], "big")


def size_of(members: Sequence[bytes]) -> int:
    """How many bytes a session's items take, of its h members."""
    return int.from_bytes(members[0][58:66], "big")


def items_of(members: Sequence[bytes]) -> list[Item]:
    """The items that some members are. Copies each value once."""
    number = int.from_bytes
    items: list[Item] = []
    for member in members:
        end = member.index(b"\0")
        key = member[1:end]
        if b"\1" in key:
            key = unescape(key)
        items.append(Item(key, member[end + 9 :], number(member[end + 1 : end + 9], "big")))
    return items


def rows_of(answers: object) -> tuple[Rows, ...]:
    """What a script answered to reads."""
    found: list[Rows] = []
    for more, *members in cast("list[list[bytes]]", answers):
        found.append(Rows(items_of(members), more=bool(more)) if members else EMPTY)
    return tuple(found)


def rows_from(read: Read, members: Sequence[bytes]) -> Rows:
    """The answer to a read, out of what its :func:`read_command` found."""
    items = items_of(members)
    if isinstance(read, Get) or not items:
        return Rows(items)
    if read.since:
        items = [item for item in items if item.version > read.since]
    stop = len(items)
    if read.limit is not None:
        stop = min(stop, max(1, read.limit))
    if read.max_bytes is not None:
        size = 0
        for position, item in enumerate(items[:stop]):
            if size >= read.max_bytes and position:
                stop = position
                break
            size += len(item.value)
    return Rows(items[:stop], more=stop < len(items))
