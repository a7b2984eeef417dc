"""What a table is asked to write, and rows as they travel.

Every attribute of ours has a name of one character, none of which DynamoDB reserves: names need
no placeholders in expressions. Values in them are written ``:name`` and given in ``values``
under ``name``, without the colon.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from perdure.errors import Corrupt

PARTITION = "p"
"""Name of the partition key, a binary."""

SORT = "s"
"""Name of the sort key, a binary."""

EXPIRY = "x"
"""Name of the attribute by which time to live removes a row: seconds since the epoch."""

Value = bytes | int | str
"""Binary, number, string: the types of attributes that perdure uses."""

Row = dict[str, Value]
"""All attributes of a row, or those that were asked for."""


class Attribute(msgspec.Struct, frozen=True, gc=False):
    """A value as it arrives: exactly one of its fields is set."""

    B: bytes | None = None
    N: str | None = None
    S: str | None = None


WireRow = dict[str, Attribute]


class Put(msgspec.Struct, frozen=True):
    """Write a whole row, in place of the one with its keys if there is one."""

    KIND: ClassVar[str] = "Put"
    row: Row
    """With both keys."""
    condition: str | None = None
    """Judged on the row that is there, as ``attribute_not_exists(p)``."""
    values: Mapping[str, Value] = {}
    """Those of the condition."""

    def body(self) -> dict[str, object]:
        """The action as DynamoDB's JSON has it, to be completed with the table's name."""
        return _body({"Item": _encoded(self.row)}, self.condition, self.values)


class Update(msgspec.Struct, frozen=True):
    """Change attributes of a row. Without a condition it makes the row if it is not there."""

    KIND: ClassVar[str] = "Update"
    partition: bytes
    sort: bytes
    expression: str
    """As ``SET n = :n REMOVE v``."""
    condition: str | None = None
    values: Mapping[str, Value] = {}
    """Those of the expression and the condition."""

    def body(self) -> dict[str, object]:
        body = _body({"Key": key(self.partition, self.sort)}, self.condition, self.values)
        body["UpdateExpression"] = self.expression
        return body


class Delete(msgspec.Struct, frozen=True):
    """Remove a row. One that is not there is no error unless the condition makes it one."""

    KIND: ClassVar[str] = "Delete"
    partition: bytes
    sort: bytes
    condition: str | None = None
    values: Mapping[str, Value] = {}

    def body(self) -> dict[str, object]:
        return _body({"Key": key(self.partition, self.sort)}, self.condition, self.values)


class Check(msgspec.Struct, frozen=True):
    """Write nothing; the transaction fails where the condition does not hold."""

    KIND: ClassVar[str] = "ConditionCheck"
    partition: bytes
    sort: bytes
    condition: str
    values: Mapping[str, Value] = {}

    def body(self) -> dict[str, object]:
        return _body({"Key": key(self.partition, self.sort)}, self.condition, self.values)


Action = Put | Update | Delete | Check


class ConditionFailed(Exception):
    """The condition of a write did not hold when it was last tried.

    ``repeated``: an earlier try of the same request got no answer. It may have been applied,
    and then it is what the condition met; ``row`` tells.
    """

    def __init__(self, row: Row | None, *, repeated: bool) -> None:
        super().__init__("the condition did not hold")
        self.row = row
        """The row that was there. ``None``: there was none."""
        self.repeated = repeated


class Reason(msgspec.Struct, frozen=True):
    """What one action of a refused transaction met."""

    failed: bool
    """Its condition did not hold. False: it was refused for the sake of the others."""
    row: Row | None
    """The row that was there if ``failed``, and if there was one."""


class TransactionRefused(Exception):
    """Conditions of some actions of a transaction did not hold. Nothing of it was applied.

    ``repeated``: as in :class:`ConditionFailed`. DynamoDB recognises a repeated transaction for
    ten minutes, so that only one that took longer can have met itself.
    """

    def __init__(self, reasons: tuple[Reason, ...], *, repeated: bool) -> None:
        super().__init__("the condition of an action did not hold")
        self.reasons = reasons
        """One per action, in their order."""
        self.repeated = repeated


def key(partition: bytes, sort: bytes) -> dict[str, object]:
    """The key of a row as DynamoDB's JSON has it; msgspec writes bytes as base64."""
    return {PARTITION: {"B": partition}, SORT: {"B": sort}}


def values_of(values: Mapping[str, Value]) -> dict[str, object]:
    """Expression values as DynamoDB's JSON has them."""
    return {":" + name: _attribute(value) for name, value in values.items()}


def row_of(attributes: WireRow) -> Row:
    """A row from its JSON. Raises ``Corrupt`` for a type of value that perdure never writes."""
    row: Row = {}
    for name, attribute in attributes.items():
        if attribute.B is not None:
            row[name] = attribute.B
        elif attribute.N is not None:
            row[name] = _number(attribute.N)
        elif attribute.S is not None:
            row[name] = attribute.S
        else:
            raise Corrupt(f"attribute {name!r} of a row is of a type that perdure never writes")
    return row


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Corrupt("a number in a row is none that perdure writes") from None


def _attribute(value: Value) -> dict[str, Value]:
    if type(value) is bytes:
        return {"B": value}
    if type(value) is int:
        return {"N": str(value)}
    return {"S": value}


def _encoded(row: Mapping[str, Value]) -> dict[str, object]:
    return {name: _attribute(value) for name, value in row.items()}


def _body(
    body: dict[str, object], condition: str | None, values: Mapping[str, Value]
) -> dict[str, object]:
    if condition is not None:
        body["ConditionExpression"] = condition
        body["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if values:
        body["ExpressionAttributeValues"] = values_of(values)
    return body
