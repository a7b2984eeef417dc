"""What a session carries beside its items: meta, labels, expiry. Validated here."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict, cast

from perdure.errors import InvalidKey, InvalidValue, TooLarge
from perdure.types import (
    MAX_LABEL_BYTES,
    MAX_LABELS,
    MAX_META_BYTES,
    NEVER,
    check_identifier,
)


class Settings(TypedDict, total=False):
    """The fields of a commit that these become."""

    meta: bytes
    labels: tuple[str, ...]
    expires_at: int
    expires_in: int


MAX_SECONDS = 100 * 365 * 86_400
"""Longest duration; whoever means for ever says ``never_expires``."""


def milliseconds(seconds: object, name: str = "expires_in") -> int:
    """A duration given in seconds. Raises :class:`InvalidKey`."""
    if not (isinstance(seconds, int | float) and 0 < seconds <= MAX_SECONDS):
        raise InvalidKey(f"{name} must be more than 0 and at most {MAX_SECONDS} seconds")
    return max(1, round(seconds * 1000))


def moment(expires_at: object) -> int:
    """A time as ms since the Unix epoch. Raises :class:`InvalidKey`."""
    if not isinstance(expires_at, datetime) or expires_at.tzinfo is None:
        raise InvalidKey("expires_at must be a datetime with a time zone")
    return max(1, round(expires_at.timestamp() * 1000))


def settings(
    *,
    meta: object = None,
    labels: object = None,
    expires_in: object = None,
    expires_at: object = None,
    never_expires: bool = False,
) -> Settings:
    """Validated settings; what is ``None`` is left out. See ``Session.set``.

    Raises ``TooLarge``, ``InvalidKey``.
    """
    made = Settings()
    if meta is not None:
        if not isinstance(meta, bytes):
            raise InvalidValue(f"meta must be bytes, not {type(meta).__name__}", path="meta")
        if len(meta) > MAX_META_BYTES:
            raise TooLarge(f"meta is {len(meta)} bytes long; the limit is {MAX_META_BYTES}")
        made["meta"] = meta
    if labels is not None:
        if not isinstance(labels, list | tuple):
            raise InvalidKey(f"labels are a tuple of str, not {type(labels).__name__}")
        names = cast("Sequence[object]", labels)
        made["labels"] = tuple(
            check_identifier("label", name, MAX_LABEL_BYTES) for name in names
        )
        if len(names) > MAX_LABELS or len(set(made["labels"])) != len(names):
            raise InvalidKey(f"a session carries at most {MAX_LABELS} labels, each once")
    if (expires_in is not None) + (expires_at is not None) + never_expires > 1:
        raise InvalidKey("give one of expires_in, expires_at and never_expires")
    if expires_in is not None:
        made["expires_in"] = milliseconds(expires_in)
    if expires_at is not None:
        made["expires_at"] = moment(expires_at)
    if never_expires:
        made["expires_at"] = NEVER
    return made
