"""A table as the tests see it past the backend: by boto3, row by row."""

import msgspec

from perdure.types import SessionKey, append_key

from perdure_dynamodb import keys, rows
from perdure_dynamodb.state import Kind
from tests.services.dynamodb import client

Row = dict[str, bytes | int | str]


class Raw:
    """Reads what a table holds."""

    def __init__(self, endpoint: str, table: str) -> None:
        self._client = client(endpoint)
        self._table = table

    def close(self) -> None:
        self._client.close()

    def rows(self, first: bytes = b"") -> list[Row]:
        """All rows whose partition starts so, in no order."""
        found: list[Row] = []
        scanned = self._client.scan(TableName=self._table, ConsistentRead=True)
        while True:
            for item in scanned["Items"]:
                row: Row = {}
                for name, value in item.items():
                    if "B" in value:
                        row[name] = bytes(value["B"])
                    elif "N" in value:
                        row[name] = int(value["N"])
                    elif "S" in value:
                        row[name] = value["S"]
                found.append(row)
            if "LastEvaluatedKey" not in scanned:
                break
            scanned = self._client.scan(
                TableName=self._table,
                ConsistentRead=True,
                ExclusiveStartKey=scanned["LastEvaluatedKey"],
            )
        return [row for row in found if partition(row).startswith(first)]

    def session(self, key: SessionKey) -> list[Row]:
        """All of one session, in the order of their sort keys."""
        found = [row for row in self.rows() if partition(row) == keys.session(key)]
        return sorted(found, key=sort)

    def slots(self, key: SessionKey) -> list[Row]:
        """A session's slots, dead ones included."""
        return [row for row in self.session(key) if sort(row).startswith(keys.SLOT)]

    def items(self, key: SessionKey) -> dict[bytes, bytes]:
        """A session's items, and its staged parts under names of their own."""
        found: dict[bytes, bytes] = {}
        for row in self.session(key):
            if sort(row).startswith(keys.SLOT):
                slot = rows.slot_of(row)
                for ordinal, value in enumerate(slot.values):
                    if value is not None and slot.state.log is not None:
                        name = append_key(slot.state.log, slot.state.version, ordinal)
                        found[name] = value
            elif sort(row).startswith(keys.ITEM):
                name, stage = keys.item_of(sort(row))
                value = row.get("v")
                if isinstance(value, bytes):
                    adopted = stage == keys.UNSTAGED or self._adopted(row)
                    found[name if adopted else name + b" of " + stage] = value
        return found

    def _adopted(self, staged: Row) -> bool:
        record = keys.STAGE + sort(staged)[1:17] + sort(staged)[-16:]
        key = {"p": {"B": partition(staged)}, "s": {"B": record}}
        found = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return "n" in found.get("Item", {})


def partition(row: Row) -> bytes:
    return msgspec.convert(row["p"], bytes)


def sort(row: Row) -> bytes:
    return msgspec.convert(row["s"], bytes)


def check_lapses(raw: Raw, key: SessionKey) -> None:
    """Nothing that is not over may ever go by itself; what says that it is, goes last."""
    slots = [rows.slot_of(row).state for row in raw.slots(key) if "x" not in row]
    for row in raw.slots(key):
        if "x" in row and rows.slot_of(row).state.kind is Kind.SEAL:
            assert all(slot.slot > rows.slot_of(row).state.slot for slot in slots)
    for row in raw.session(key):
        if "x" in row:
            assert "v" not in row
            assert "n" not in row
            if "h" in row:
                assert rows.slot_of(row).state.kind in (Kind.STUB, Kind.SEAL)
