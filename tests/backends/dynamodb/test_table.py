"""The table's requests, on a server that speaks DynamoDB's protocol."""

import uuid
from collections.abc import AsyncGenerator

import pytest
from click.testing import CliRunner

from perdure.errors import Corrupt, Unavailable
from perdure.uri import parse

from perdure_dynamodb import commands, creation
from perdure_dynamodb.actions import (
    Check,
    ConditionFailed,
    Delete,
    Put,
    Reason,
    Row,
    TransactionRefused,
    Update,
)
from perdure_dynamodb.capacity import Consumed, measured
from perdure_dynamodb.creation import Capacity
from perdure_dynamodb.inspection import details
from perdure_dynamodb.settings import Settings, settings_from
from perdure_dynamodb.table import Table
from tests.services.dynamodb import REGION, client

NEW = "attribute_not_exists(p)"


@pytest.fixture
def settings(dynamodb_endpoint: str) -> Settings:
    """Of a table that is not there."""
    return Settings(table=f"wire-{uuid.uuid4().hex}", region=REGION, endpoint=dynamodb_endpoint)


@pytest.fixture
async def table(settings: Settings) -> AsyncGenerator[Table]:
    await creation.create(settings)
    table = Table(settings)
    yield table
    await table.aclose()


def row(sort: bytes, **more: bytes | int | str) -> Row:
    return {"p": b"p", "s": sort, **more}


async def test_rows_come_back_as_they_were_written(table: Table) -> None:
    written = row(b"\0\xff", v=bytes(range(256)), n=-(2**53), m="žluť\0", e=b"", x=0)
    await table.put(Put(written))
    assert await table.get(b"p", b"\0\xff") == written
    assert await table.get(b"p", b"\0\xff", only=("n", "m")) == {"n": -(2**53), "m": "žluť\0"}
    assert await table.get(b"p", b"\0") is None


async def test_a_condition_that_fails_shows_the_row(table: Table) -> None:
    await table.put(Put(row(b"a", n=1), NEW))
    with pytest.raises(ConditionFailed) as caught:
        await table.put(Put(row(b"a", n=2), NEW))
    assert caught.value.row == row(b"a", n=1)
    with pytest.raises(ConditionFailed) as caught:
        await table.update(Update(b"p", b"b", "SET n = :n", "n < :n", {"n": 5}))
    assert caught.value.row is None
    with pytest.raises(ConditionFailed):
        await table.delete(Delete(b"p", b"a", "n > :n", {"n": 1}))
    await table.update(Update(b"p", b"a", "SET n = :n REMOVE v", "n < :n", {"n": 5}))
    assert await table.get(b"p", b"a") == row(b"a", n=5)
    await table.delete(Delete(b"p", b"a", "n > :n", {"n": 1}))
    await table.delete(Delete(b"p", b"a"))
    assert await table.get(b"p", b"a") is None


async def test_a_transaction_is_applied_whole_or_not(table: Table) -> None:
    await table.transact(
        [
            Put(row(b"a", n=1), NEW),
            Put(row(b"b", n=1), NEW),
            Update(b"p", b"c", "SET n = :n", values={"n": 1}),
        ]
    )
    with pytest.raises(TransactionRefused) as caught:
        await table.transact(
            [
                Put(row(b"d", n=2), NEW),
                Check(b"p", b"a", "n = :n", {"n": 2}),
                Delete(b"p", b"b", "n = :n", {"n": 1}),
            ]
        )
    nothing = Reason(failed=False, row=None)
    assert caught.value.reasons == (nothing, Reason(failed=True, row=row(b"a", n=1)), nothing)
    await table.transact(
        [Check(b"p", b"a", "n = :n", {"n": 1}), Delete(b"p", b"b", "n = :n", {"n": 1})]
    )
    found = await table.query(b"p", b"\0", b"\xff")
    assert found.rows == [row(b"a", n=1), row(b"c", n=1)]
    assert found.last is None


async def test_a_query_in_pages(table: Table) -> None:
    sorts = [bytes([n]) for n in range(1, 8)]
    await table.transact([Put(row(sort, v=b"v")) for sort in sorts])
    for reverse in (False, True):
        met: list[bytes] = []
        last: bytes | None = None
        while True:
            found = await table.query(
                b"p", b"\2", b"\6", reverse=reverse, limit=2, only=("s",), start_after=last
            )
            met += [sort for r in found.rows if isinstance(sort := r["s"], bytes)]
            assert all(set(r) == {"s"} for r in found.rows)
            if (last := found.last) is None:
                break
        assert met == sorted(sorts[1:6], reverse=reverse)
    assert (await table.query(b"q", b"\0", b"\xff")).rows == []
    assert (await table.query(b"p", b"\6", b"\2")).rows == []


async def test_a_page_is_of_a_megabyte(table: Table) -> None:
    for n in range(4):
        await table.put(Put(row(bytes([n]), v=bytes(380_000))))
    found = await table.query(b"p", b"\0", b"\xff")
    assert 2 <= len(found.rows) <= 3
    assert found.last == found.rows[-1]["s"]


async def test_requests_of_megabytes(table: Table) -> None:
    actions = [Put(row(bytes([n]), v=bytes(380_000))) for n in range(8)]
    await table.transact(actions)
    assert len((await table.query(b"p", b"\0", b"\xff", only=("s",))).rows) >= 2


async def test_what_requests_cost(table: Table) -> None:
    await table.open()
    with measured() as cost:
        await table.put(Put(row(b"a", v=bytes(3072)), NEW))
        assert cost.operations == {"PutItem": Consumed(requests=1, write_units=4.0)}
        await table.transact([Put(row(b"b", v=bytes(2000))), Put(row(b"c"))])
        assert cost.operations["TransactWriteItems"] == Consumed(requests=1, write_units=6.0)
        with measured() as inner:
            await table.query(b"p", b"\0", b"\xff")
            await table.get(b"p", b"b")
        assert inner.total == Consumed(requests=2, read_units=3.0)
        with pytest.raises(ConditionFailed):
            await table.put(Put(row(b"a"), NEW))
    await table.put(Put(row(b"d")))
    assert cost.total == Consumed(requests=5, read_units=3.0, write_units=10.0)
    assert table.consumption.total.write_units == 11.0


async def test_a_row_that_is_not_perdures(table: Table, settings: Settings) -> None:
    assert settings.endpoint is not None
    client(settings.endpoint).put_item(
        TableName=settings.table, Item={"p": {"B": b"p"}, "s": {"B": b"a"}, "v": {"BOOL": True}}
    )
    with pytest.raises(Corrupt, match="'v'"):
        await table.get(b"p", b"a")
    client(settings.endpoint).put_item(
        TableName=settings.table, Item={"p": {"B": b"p"}, "s": {"B": b"a"}, "v": {"N": "0.5"}}
    )
    with pytest.raises(Corrupt, match="number"):
        await table.get(b"p", b"a")


async def test_a_new_table_is_what_was_asked_for(settings: Settings) -> None:
    assert await creation.create(settings)
    assert not await creation.create(settings, Capacity(5, 5))
    assert settings.endpoint is not None
    boto = client(settings.endpoint)
    made = boto.describe_table(TableName=settings.table)["Table"]
    assert made.get("BillingModeSummary", {}).get("BillingMode") == "PAY_PER_REQUEST"
    assert "GlobalSecondaryIndexes" not in made
    lapsing = boto.describe_time_to_live(TableName=settings.table)["TimeToLiveDescription"]
    assert lapsing.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    assert lapsing.get("AttributeName") == "x"


async def test_a_description_says_mode_and_region(settings: Settings) -> None:
    await creation.create(settings)
    table = Table(settings)
    told = await details(table)
    await table.aclose()
    assert told["mode"] == "on demand"
    assert told["region"] == REGION
    assert told["time to live"] == "enabled"
    assert told["deletion protection"] == "on"


async def test_a_provisioned_table(settings: Settings) -> None:
    await creation.create(settings, Capacity(7, 9))
    table = Table(settings)
    told = await details(table)
    await table.aclose()
    assert told["mode"] == "provisioned, 7 read and 9 write units a second"


async def test_time_to_live_is_turned_on_for_a_table_without(settings: Settings) -> None:
    assert settings.endpoint is not None
    client(settings.endpoint).create_table(
        TableName=settings.table,
        KeySchema=[
            {"AttributeName": "p", "KeyType": "HASH"},
            {"AttributeName": "s", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "p", "AttributeType": "B"},
            {"AttributeName": "s", "AttributeType": "B"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    table = Table(settings)
    assert (await details(table))["time to live"] == "disabled"
    assert not await creation.create(settings)
    assert (await details(table))["time to live"] == "enabled"
    await table.aclose()


async def test_a_table_of_another_kind_is_left_alone(settings: Settings) -> None:
    assert settings.endpoint is not None
    boto = client(settings.endpoint)
    boto.create_table(
        TableName=settings.table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(Unavailable, match="HASH 'id' of type S") as caught:
        await creation.create(settings)
    assert caught.value.lasting
    lapsing = boto.describe_time_to_live(TableName=settings.table)["TimeToLiveDescription"]
    assert lapsing.get("TimeToLiveStatus") == "DISABLED"


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(commands.commands, ["create-table", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_makes_the_table_once(settings: Settings) -> None:
    assert settings.endpoint is not None
    where = ("--table", settings.table, "--region", REGION, "--endpoint", settings.endpoint)
    assert invoke(*where).startswith(f"made; open it as dynamodb://{settings.table}")
    assert invoke(*where).startswith("was there already")


def test_the_command_says_a_url_that_opens_the_table(settings: Settings) -> None:
    assert settings.endpoint is not None
    where = ("--table", settings.table, "--region", REGION, "--endpoint", settings.endpoint)
    url = invoke(*where).split()[-1]
    assert settings_from(parse(url)) == settings


def test_a_wrong_name_is_refused_by_the_command() -> None:
    result = CliRunner().invoke(commands.commands, ["create-table", "--table", "a"])
    assert result.exit_code == 2
    assert "3 to 255" in result.output
