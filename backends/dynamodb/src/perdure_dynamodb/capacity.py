"""What requests cost, as DynamoDB says in its replies.

Requests that were refused are counted without their units: DynamoDB charges for a write whose
condition failed and does not say how much.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class Consumed(msgspec.Struct):
    """What requests of one kind have cost."""

    requests: int = 0
    """Tries, those that failed included."""
    read_units: float = 0.0
    write_units: float = 0.0


class Consumption:
    """What a backend's requests have cost, by DynamoDB's names for them."""

    def __init__(self) -> None:
        self.operations: dict[str, Consumed] = {}
        """By request, as ``PutItem``. Only grows."""

    @property
    def total(self) -> Consumed:
        """All of them together, now."""
        total = Consumed()
        for consumed in self.operations.values():
            total.requests += consumed.requests
            total.read_units += consumed.read_units
            total.write_units += consumed.write_units
        return total

    def count(self, operation: str) -> None:
        """A request was sent."""
        self._of(operation).requests += 1

    def charge(self, operation: str, units: float) -> None:
        """A reply said what its request has cost."""
        consumed = self._of(operation)
        if operation in READS:
            consumed.read_units += units
        else:
            consumed.write_units += units

    def _of(self, operation: str) -> Consumed:
        consumed = self.operations.get(operation)
        if consumed is None:
            consumed = self.operations[operation] = Consumed()
        return consumed


READS = frozenset({"Query", "GetItem", "TransactGetItems"})
"""Requests that consume read units; the others consume write units."""

_METERS: ContextVar[tuple[Consumption, ...]] = ContextVar("perdure_dynamodb_meters", default=())


@contextmanager
def measured() -> Generator[Consumption]:
    """Counts what is asked of DynamoDB within, by this task and those that it starts::

        with measured() as cost:
            await session.append("turn")
        cost.total.write_units

    What a backend goes on with in the background afterwards is counted too, as it happens.
    """
    meter = Consumption()
    token = _METERS.set((*_METERS.get(), meter))
    try:
        yield meter
    finally:
        _METERS.reset(token)


def meters() -> tuple[Consumption, ...]:
    """Those that are measuring here."""
    return _METERS.get()
