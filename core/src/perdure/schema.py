"""What the entries of a typed session are."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from perdure.codec import Codec
from perdure.errors import InvalidValue
from perdure.types import Item, SessionKey

if TYPE_CHECKING:  # a plain `Session` is one of anything: PEP 696, for all our Pythons
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")


class Schema(Generic[T]):
    """A type that msgspec decodes to (a Struct, a dataclass, a TypedDict, a union of tagged
    Structs, ...), and how to bring what was stored under an earlier one into its form.

    ``migrate`` gets each entry as plain values (dicts, lists, ...), new ones too, and returns
    what is then decoded to the type. Without one, fields that were added need a default and
    fields that went are ignored, as msgspec has it.
    """

    __slots__ = ("migrate", "type")

    def __init__(self, type: Any = Any, migrate: Callable[[Any], Any] | None = None) -> None:
        self.type = type
        self.migrate = migrate

    def check(self, entries: Sequence[object], *, first: int = 0) -> None:
        """Raise ``InvalidValue`` for an entry that would not be read back as the type."""
        if self.type is Any:
            return
        for index, entry in enumerate(entries, first):
            _convert(entry, self.type, f"entries[{index}]")

    def unpack(self, codec: Codec, key: SessionKey, items: Sequence[Item]) -> list[list[T]]:
        """:meth:`Codec.unpack`, to the type. Raises ``InvalidValue`` and ``Corrupt``."""
        if self.migrate is None:
            return codec.unpack(key, items, self.type)
        migrate, type = self.migrate, self.type
        return [
            [_convert(migrate(entry), type, f"an entry of {key}") for entry in row]
            for row in codec.unpack(key, items)
        ]


ANY: Schema[Any] = Schema()
"""Entries as they come."""


def _convert(value: object, type: Any, path: str) -> Any:
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{path}: {error}", path=path) from error
