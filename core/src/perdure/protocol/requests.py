"""The bodies of requests. Decoded ones keep every rule of :mod:`perdure.types`, so that a
server may hand them to a backend as they are; limits of capabilities are the server's."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from perdure.protocol.limits import (
    MAX_BOUND_BYTES,
    MAX_CURSOR_BYTES,
    MAX_ELEMENTS,
    MAX_MADE,
    MAX_READS,
    MAX_WAIT_MS,
)
from perdure.protocol.messages import (
    Decoder,
    Id,
    Int,
    ItemKey,
    Labels,
    Malformed,
    MetaBytes,
    Positive,
    encode,
)
from perdure.types import (
    MAX_ITEM_KEY_BYTES,
    MAX_LABEL_BYTES,
    Append,
    At,
    Commit,
    Condition,
    Expect,
    Get,
    Head,
    KeyRange,
    ListQuery,
    Order,
    Read,
    Restored,
    Scan,
    check_identifier,
)

_Bound = Annotated[bytes, Meta(max_length=MAX_BOUND_BYTES)]
_Prefix = Annotated[bytes, Meta(max_length=MAX_ITEM_KEY_BYTES - 12)]
_Digest = Annotated[bytes, Meta(min_length=8, max_length=8)]
_Cursor = Annotated[str, Meta(max_length=MAX_CURSOR_BYTES)]

# msgspec 0.22 crashes (in garbage collection) on a union of a constrained type with a tuple of
# fixed length: there the first is not constrained, and is checked by hand.
_Scan = tuple[_Bound, _Bound | None, Positive | None, bool, Int, Int | None]
_Read = bytes | _Scan
_Expect = int | tuple[Int, Id]
_Range = tuple[_Bound, _Bound | None]
# Long lists are refused by the length they state, before they are built.
_Some = Meta(max_length=MAX_ELEMENTS)
_Made = Annotated[int, Meta(ge=1, le=MAX_MADE)]
_Puts = Annotated[list[tuple[ItemKey, bytes]], _Some]
_Reads = Annotated[list[_Read], Meta(max_length=MAX_READS)]
_Commit = tuple[
    Id,  # id
    _Digest,
    Id,  # new_incarnation
    tuple[_Made, Int, Int] | None,  # restored
    _Expect,
    Id | None,  # incarnation
    Annotated[list[tuple[ItemKey | None, Int]], _Some],  # conditions
    Int,  # base
    bool,  # resend
    Int | None,  # seen
    Annotated[list[bytes | _Range], _Some],  # deletes
    _Puts,
    Annotated[list[tuple[_Prefix, Annotated[list[bytes], _Some]]], _Some],  # appends
    Annotated[list[Id], _Some],  # stages
    MetaBytes | None,
    Labels | None,
    Int | None,  # expires_at
    _Made | None,  # expires_in
    _Reads,  # returning
]
_Position = tuple[Int, Id, Id] | None

_decode_read: Decoder[list[_Read]] = Decoder(_Reads)
_decode_commit: Decoder[_Commit] = Decoder(_Commit)
_Stage = tuple[Id, Id, _Puts]
_decode_stage: Decoder[_Stage] = Decoder(_Stage)
_Delete = tuple[Id, _Expect, Id | None]
_decode_delete: Decoder[_Delete] = Decoder(_Delete)
_List = tuple[Annotated[int, Meta(ge=0, le=1)], str, str | None, Positive, _Cursor | None]
_decode_list: Decoder[_List] = Decoder(_List)
_Names = tuple[_Cursor | None, Positive]
_decode_names: Decoder[_Names] = Decoder(_Names)
_decode_sweep: Decoder[tuple[Positive]] = Decoder(tuple[Positive])
_decode_position: Decoder[_Position] = Decoder(_Position)

_EXPECTS = (Expect.ANY, Expect.PRESENT, Expect.ABSENT)
"""In the order of their numbers."""
_ORDERS = (Order.ID, Order.RECENCY)


class Stage(msgspec.Struct, frozen=True):
    """The arguments of :meth:`perdure.backend.Backend.stage`."""

    incarnation: bytes
    stage: bytes
    puts: tuple[tuple[bytes, bytes], ...]


class Delete(msgspec.Struct, frozen=True):
    """The arguments of :meth:`perdure.backend.Backend.delete`."""

    id: bytes
    expect: Expect | At
    incarnation: bytes | None


class Names(msgspec.Struct, frozen=True):
    """The arguments of :meth:`perdure.backend.Backend.tenants` and ``kinds``."""

    cursor: str | None
    limit: int


class Position(msgspec.Struct, frozen=True):
    """Of a head, what tells whether another differs from it."""

    version: int
    tip: bytes
    incarnation: bytes

    def head(self) -> Head:
        """A head that compares as this does (``same_state``). All else in it is made up."""
        return Head(
            version=self.version,
            incarnation=self.incarnation,
            tip=self.tip,
            created_at=0,
            updated_at=0,
        )


def encode_read(reads: Sequence[Read]) -> bytes:
    """The body of ``read``."""
    return encode([_read_fields(read) for read in reads])


def decode_read(body: bytes) -> tuple[Read, ...]:
    """Raises ``Malformed``, as all functions here that decode."""
    return tuple(map(_read_of, _decode_read(body)))


def encode_commit(commit: Commit) -> bytes:
    """The body of ``commit``."""
    restored = commit.restored
    return encode(
        (
            commit.id,
            commit.digest,
            commit.new_incarnation,
            (restored.version, restored.created_at, restored.updated_at) if restored else None,
            _expect_fields(commit.expect),
            commit.incarnation,
            [(condition.key, condition.version) for condition in commit.conditions],
            commit.base,
            commit.resend,
            commit.seen,
            [d if isinstance(d, bytes) else (d.start, d.stop) for d in commit.deletes],
            commit.puts,
            [(append.prefix, append.values) for append in commit.appends],
            commit.stages,
            commit.meta,
            commit.labels,
            commit.expires_at,
            commit.expires_in,
            [_read_fields(read) for read in commit.returning],
        )
    )


def decode_commit(body: bytes) -> Commit:
    """The inverse of :func:`encode_commit`."""
    (
        id,
        digest,
        new_incarnation,
        restored,
        expect,
        incarnation,
        conditions,
        base,
        resend,
        seen,
        deletes,
        puts,
        appends,
        stages,
        meta,
        labels,
        expires_at,
        expires_in,
        returning,
    ) = _decode_commit(body)
    expected = _expect_of(expect)
    if expires_at is not None and expires_in is not None:
        raise Malformed("a commit has expires_at or expires_in, not both")
    if restored is not None and not (
        expected is Expect.ABSENT
        or (isinstance(expected, At) and expected.version < restored[0])
    ):
        raise Malformed("a commit that restores a version expects absence or a lower version")
    _check_once("a key", [key for key, _ in puts])
    _check_once("a prefix", [prefix for prefix, _ in appends])
    _check_once("a stage", stages)
    if labels is not None:
        _check_once("a label", labels)
        for label in labels:
            _check_text("a label", label, MAX_LABEL_BYTES)
    return Commit(
        id=id,
        digest=digest,
        new_incarnation=new_incarnation,
        restored=Restored(*restored) if restored is not None else None,
        expect=expected,
        incarnation=incarnation,
        conditions=tuple(Condition(key, version) for key, version in conditions),
        base=base,
        resend=resend,
        seen=seen,
        deletes=tuple(_item_key(d) if isinstance(d, bytes) else _range_of(*d) for d in deletes),
        puts=tuple(puts),
        appends=tuple(Append(prefix, tuple(values)) for prefix, values in appends),
        stages=tuple(stages),
        meta=meta,
        labels=tuple(labels) if labels is not None else None,
        expires_at=expires_at,
        expires_in=expires_in,
        returning=tuple(map(_read_of, returning)),
    )


def encode_stage(
    incarnation: bytes, stage: bytes, puts: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """The body of ``stage``."""
    return encode((incarnation, stage, puts))


def decode_stage(body: bytes) -> Stage:
    """The inverse of :func:`encode_stage`."""
    incarnation, stage, puts = _decode_stage(body)
    _check_once("a key", [key for key, _ in puts])
    return Stage(incarnation, stage, tuple(puts))


def encode_delete(id: bytes, expect: Expect | At, incarnation: bytes | None) -> bytes:
    """The body of ``delete``."""
    return encode((id, _expect_fields(expect), incarnation))


def decode_delete(body: bytes) -> Delete:
    """The inverse of :func:`encode_delete`."""
    id, expect, incarnation = _decode_delete(body)
    expected = _expect_of(expect)
    if expected is Expect.ABSENT:
        raise Malformed("deleting a session that is expected to be absent")
    return Delete(id, expected, incarnation)


def encode_list(query: ListQuery) -> bytes:
    """The body of ``list``."""
    order = _ORDERS.index(query.order)
    return encode((order, query.prefix, query.label, query.limit, query.cursor))


def decode_list(body: bytes) -> ListQuery:
    """The inverse of :func:`encode_list`."""
    order, prefix, label, limit, cursor = _decode_list(body)
    if prefix:
        _check_text("a prefix", prefix)
        if _ORDERS[order] is not Order.ID:
            raise Malformed("a prefix goes with the order by id only")
    if label is not None:
        _check_text("a label", label, MAX_LABEL_BYTES)
    return ListQuery(
        order=_ORDERS[order], prefix=prefix, label=label, limit=limit, cursor=cursor
    )


def encode_names(cursor: str | None, limit: int) -> bytes:
    """The body of ``tenants`` and of ``kinds``."""
    return encode((cursor, limit))


def decode_names(body: bytes) -> Names:
    """The inverse of :func:`encode_names`."""
    return Names(*_decode_names(body))


def encode_sweep(limit: int) -> bytes:
    """The body of ``sweep``."""
    return encode((limit,))


def decode_sweep(body: bytes) -> int:
    """The inverse of :func:`encode_sweep`."""
    return _decode_sweep(body)[0]


def wait_query(after: Head | None, timeout_ms: int) -> str:
    """The query of ``wait``, without the question mark."""
    position = (after.version, after.tip, after.incarnation) if after else None
    return f"after={_unpadded(encode(position))}&timeout={min(timeout_ms, MAX_WAIT_MS)}"


def wait_of(query: str) -> tuple[Position | None, int]:
    """The inverse of :func:`wait_query`: the position, and the timeout in ms."""
    options: dict[str, str] = {}
    for option in query.split("&"):
        name, _, value = option.partition("=")
        if name not in ("after", "timeout") or name in options:
            raise Malformed("the query of wait is after=…&timeout=…")
        options[name] = value
    after, timeout = options.get("after", ""), options.get("timeout", "")
    if not (timeout.isascii() and timeout.isdigit() and len(timeout) <= 9):
        raise Malformed("timeout is a number of milliseconds")
    try:
        position = urlsafe_b64decode(after + "=" * (-len(after) % 4))
    except ValueError:
        position = b""
    if _unpadded(position) != after:
        raise Malformed("after is not canonical base64url")
    fields = _decode_position(position)
    return Position(*fields) if fields is not None else None, min(int(timeout), MAX_WAIT_MS)


def _unpadded(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _read_fields(read: Read) -> object:
    if isinstance(read, Get):
        return read.key
    return (read.start, read.stop, read.limit, read.reverse, read.since, read.max_bytes)


def _read_of(fields: _Read) -> Read:
    if isinstance(fields, bytes):
        return Get(_item_key(fields))
    return Scan(*fields)


def _range_of(start: bytes, stop: bytes | None) -> KeyRange:
    if stop is not None and stop < start:
        raise Malformed("a range stops before it starts")
    return KeyRange(start, stop)


def _expect_fields(expect: Expect | At) -> object:
    if isinstance(expect, At):
        return (expect.version, expect.tip)
    return _EXPECTS.index(expect)


def _expect_of(fields: int | tuple[int, bytes]) -> Expect | At:
    if not isinstance(fields, int):
        return At(*fields)
    if not 0 <= fields < len(_EXPECTS):
        raise Malformed("what is expected is 0, 1, 2 or an array")
    return _EXPECTS[fields]


def _item_key(key: bytes) -> bytes:
    if len(key) > MAX_ITEM_KEY_BYTES:
        raise Malformed(f"a key is longer than {MAX_ITEM_KEY_BYTES} bytes")
    return key


def _check_once(what: str, names: Sequence[bytes] | Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise Malformed(f"{what} is given twice")


def _check_text(what: str, text: str, limit: int = 512) -> None:
    try:
        check_identifier(what, text, limit)
    except ValueError as error:
        raise Malformed(str(error)) from None
