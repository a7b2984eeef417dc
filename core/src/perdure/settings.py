"""What a session carries beside its items: meta, labels, expiry. Validated here."""

from datetime import datetime
from typing import TypedDict

from perdure.errors import InvalidKey, TooLarge
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


def settings(
    *,
    meta: bytes | None = None,
    labels: tuple[str, ...] | None = None,
    expires_in: float | None = None,
    expires_at: datetime | None = None,
    never_expires: bool = False,
) -> Settings:
    """Validated settings; what is ``None`` is left out. See ``Session.set``.

    Raises ``TooLarge``, ``InvalidKey``.
    """
    made = Settings()
    if meta is not None:
        if len(meta) > MAX_META_BYTES:
            raise TooLarge(f"meta is {len(meta)} bytes long; the limit is {MAX_META_BYTES}")
        made["meta"] = meta
    if labels is not None:
        if len(labels) > MAX_LABELS or len(set(labels)) != len(labels):
            raise InvalidKey(f"a session carries at most {MAX_LABELS} labels, each once")
        made["labels"] = tuple(
            check_identifier("label", label, MAX_LABEL_BYTES) for label in labels
        )
    if (expires_in is not None) + (expires_at is not None) + never_expires > 1:
        raise InvalidKey("give one of expires_in, expires_at and never_expires")
    if expires_in is not None:
        if expires_in <= 0:
            raise InvalidKey("expires_in must be more than 0 seconds")
        made["expires_in"] = max(1, round(expires_in * 1000))
    if expires_at is not None:
        if expires_at.tzinfo is None:
            raise InvalidKey("expires_at needs a time zone")
        made["expires_at"] = max(1, round(expires_at.timestamp() * 1000))
    if never_expires:
        made["expires_at"] = NEVER
    return made
