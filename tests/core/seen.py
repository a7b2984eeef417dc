"""The events of a store, noted."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from perdure import Event


class Seen(list[Event]):
    """The events of a store, in order."""

    def only(self) -> Event:
        """The one since it was asked last."""
        (event,) = self
        self.clear()
        return event

    @property
    def names(self) -> list[str]:
        return [event.operation for event in self]


async def first(generator: AsyncGenerator[object, None]) -> None:
    async with aclosing(generator):
        await anext(generator)
