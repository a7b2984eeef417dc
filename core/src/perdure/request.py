"""What every readable thing is to the store: one backend read, and how to answer from it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from perdure.codec import Codec
from perdure.types import Head, Item, Read, SessionKey

R = TypeVar("R")


class View(msgspec.Struct, frozen=True, gc=False):
    """The snapshot that a request is answered from."""

    key: SessionKey
    head: Head | None
    now: int
    codec: Codec
    epoch: bytes = b""


class Request(ABC, Generic[R]):
    """One thing to read with ``Session.read``. The methods are the store's."""

    @abstractmethod
    def compile(self) -> Read:
        """The backend read that answers it."""

    def enough(self, items: Sequence[Item], view: View) -> bool:
        """Whether ``items``, a first part of what there is, suffice."""
        return False

    @abstractmethod
    def answer(self, items: Sequence[Item], view: View) -> R:
        """The value. Raises ``Corrupt``."""


class Stored(Request[Sequence[Item]]):
    """The items of a backend read, as stored."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def compile(self) -> Read:
        return self._read

    def answer(self, items: Sequence[Item], view: View) -> Sequence[Item]:
        return items


def check_requests(requests: Sequence[object]) -> None:
    """Raise ``TypeError`` for what cannot be read."""
    for request in requests:
        if not isinstance(request, Request):
            raise TypeError(
                "what is read is named by Log, Cell, Cells or Document, not by "
                f"{type(request).__name__}"
            )
