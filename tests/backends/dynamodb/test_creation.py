"""Tables that take a while to be made, and what is said of those that are there."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from aiohttp import web

from perdure.errors import Unavailable

from perdure_dynamodb import creation
from perdure_dynamodb.inspection import details
from perdure_dynamodb.table import Table
from tests.backends.dynamodb.answering import (
    TABLE,
    Answer,
    Answering,
    Asked,
    answering,
    refuse,
    reply,
)

MISSING = refuse("ResourceNotFoundException", "Requested resource not found")
DENIED = refuse("AccessDeniedException", "not authorized")


@pytest.fixture
async def server(aws_credentials: None) -> AsyncGenerator[Answering]:
    async with answering() as server:
        yield server


async def being_made(asked: Asked) -> web.Response:
    return reply({"Table": TABLE | {"TableStatus": "CREATING"}})


async def lapsing(asked: Asked) -> web.Response:
    return reply({"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED"}})


async def made(asked: Asked) -> web.Response:
    return reply({"TableDescription": TABLE | {"TableStatus": "CREATING"}})


async def test_a_table_is_waited_for(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "POLL", 0.0)
    # A new table may not be there yet for who looks at once.
    server.descriptions += [MISSING, MISSING, being_made, being_made]
    server.answers += [made, lapsing]
    async with asyncio.timeout(10):
        assert await creation.create(server.settings())
    assert server.operations == ["CreateTable", "DescribeTimeToLive"]
    assert not server.descriptions


@pytest.mark.parametrize("answer", [MISSING, being_made])
async def test_a_table_is_not_waited_for_for_ever(
    server: Answering, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(creation, "POLL", 0.0)
    monkeypatch.setattr(creation, "PATIENCE", 0.05)
    server.descriptions.append(MISSING)
    server.descriptions += [answer] * 10_000
    server.answers += [made, lapsing]
    with pytest.raises(Unavailable):
        await creation.create(server.settings())


async def test_who_may_not_make_a_table_is_told_so(server: Answering) -> None:
    server.descriptions.append(MISSING)
    server.answers.append(DENIED)
    with pytest.raises(Unavailable, match="lack the permission dynamodb:CreateTable"):
        await creation.create(server.settings())


async def test_what_may_not_be_asked_is_unknown(server: Answering) -> None:
    server.answers += [DENIED, DENIED]
    table = Table(server.settings())
    told = await details(table)
    await table.aclose()
    assert told["time to live"] == "unknown"
    assert told["point-in-time recovery"] == "unknown"


async def test_a_description_of_a_table_that_others_have_set_up(server: Answering) -> None:
    async def another(asked: Asked) -> web.Response:
        if asked.operation == "DescribeTimeToLive":
            told = {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}
            return reply({"TimeToLiveDescription": told})
        recovery = {"PointInTimeRecoveryStatus": "ENABLED"}
        told = {"PointInTimeRecoveryDescription": recovery}
        return reply({"ContinuousBackupsDescription": told})

    server.answers += [another, another]
    server.table |= {
        "SSEDescription": {"Status": "ENABLED", "SSEType": "KMS"},
        "ProvisionedThroughput": {"ReadCapacityUnits": 3, "WriteCapacityUnits": 4},
    }
    table = Table(server.settings())
    told = await details(table)
    await table.aclose()
    assert told["time to live"] == "enabled on 'ttl', which should be 'x'"
    assert told["point-in-time recovery"] == "enabled"
    assert told["encryption"] == "by a key of KMS, enabled"
    assert told["mode"] == "provisioned, 3 read and 4 write units a second"
