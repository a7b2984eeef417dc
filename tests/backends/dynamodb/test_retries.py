"""What is tried again, what is not, and what is known of a write that failed."""

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

import pytest
from botocore.retries.standard import ThrottledRetryableChecker

from perdure.errors import OutcomeUnknown, StoreClosed, Unavailable

from perdure_dynamodb.actions import Check, ConditionFailed, Put, TransactionRefused
from perdure_dynamodb.failures import PASSING
from perdure_dynamodb.table import Table
from tests.backends.dynamodb.answering import (
    Answer,
    Answering,
    answering,
    bad_gateway,
    cancelled,
    garbled,
    hang_up,
    refuse,
    silence,
    strange,
)

PUT = Put({"p": b"p", "s": b"s"}, "attribute_not_exists(p)")

PASSING_ANSWERS = [
    refuse("ThrottlingException", "Rate of requests exceeds the allowed throughput"),
    refuse("ProvisionedThroughputExceededException"),
    refuse("RequestLimitExceeded"),
    refuse("TransactionConflictException"),
    refuse("TransactionInProgressException"),
    refuse("ReplicatedWriteConflictException"),
]
"""Refusals that pass, and apply nothing."""

UNKNOWN_ANSWERS = [
    refuse("InternalServerError", status=500),
    refuse("ServiceUnavailable", status=503),
    bad_gateway,
    hang_up,
    silence,
    garbled,
    strange,
]
"""After which nobody knows what was applied."""


@pytest.fixture
async def server(aws_credentials: None) -> AsyncGenerator[Answering]:
    async with answering() as server:
        yield server


def patience(answer: Answer) -> float:
    """For how many seconds a client waits for a reply, where it does not come."""
    return 0.5 if answer is silence else 5.0


async def gives_up(server: Answering, answer: Answer) -> Table:
    """A table that soon gives up, and the answers that it gets."""
    table = Table(server.settings(request_timeout=patience(answer)))
    await table.open()
    table.client.settings = server.settings(timeout=0.1)
    server.answers.append(answer)
    server.answers += PASSING_ANSWERS * 20
    return table


@pytest.fixture
async def table(server: Answering) -> AsyncGenerator[Table]:
    table = Table(server.settings())
    await table.open()
    yield table
    await table.aclose()


@pytest.mark.parametrize("answer", [*PASSING_ANSWERS, *UNKNOWN_ANSWERS])
async def test_a_write_is_repeated_as_it_was(server: Answering, answer: Answer) -> None:
    table = Table(server.settings(request_timeout=patience(answer)))
    server.answers += [answer, answer]
    await table.put(PUT)
    await table.aclose()
    assert server.operations == ["PutItem"] * 3
    assert table.consumption.operations["PutItem"].requests == 3
    first, *others = [asked.body for asked in server.asked if asked.operation == "PutItem"]
    assert others == [first, first]


@pytest.mark.parametrize("answer", [*PASSING_ANSWERS, *UNKNOWN_ANSWERS])
async def test_a_read_is_repeated(server: Answering, answer: Answer) -> None:
    table = Table(server.settings(request_timeout=patience(answer)))
    server.answers.append(answer)
    assert (await table.query(b"p", b"a", b"b")).rows == []
    await table.aclose()
    assert server.operations == ["Query"] * 2


@pytest.mark.parametrize(
    "codes",
    [
        ("None", "TransactionConflict"),
        ("ThrottlingError", "None"),
        ("ProvisionedThroughputExceeded", "TransactionConflict"),
    ],
)
async def test_a_cancelled_transaction_is_repeated_under_its_token(
    server: Answering, table: Table, codes: tuple[str, str]
) -> None:
    server.answers += [cancelled(*codes), hang_up]
    await table.transact([PUT, Check(b"p", b"t", "attribute_exists(p)")])
    tokens = {str(asked.body["ClientRequestToken"]) for asked in server.asked[1:]}
    assert server.operations == ["TransactWriteItems"] * 3
    assert len(tokens) == 1
    await table.transact([PUT])
    assert server.asked[-1].body["ClientRequestToken"] not in tokens


@pytest.mark.parametrize("answer", PASSING_ANSWERS)
async def test_a_write_that_was_only_refused_was_not_applied(
    server: Answering, answer: Answer
) -> None:
    table = await gives_up(server, answer)
    with pytest.raises(Unavailable, match="too busy") as caught:
        await table.put(PUT)
    assert not caught.value.lasting
    await table.aclose()


@pytest.mark.parametrize("answer", UNKNOWN_ANSWERS)
async def test_a_write_that_was_not_answered_may_have_been_applied(
    server: Answering, answer: Answer
) -> None:
    table = await gives_up(server, answer)
    with pytest.raises(OutcomeUnknown, match="it may have been applied"):
        await table.put(PUT)
    await table.aclose()


@pytest.mark.parametrize("answer", UNKNOWN_ANSWERS)
async def test_a_read_that_was_not_answered_has_changed_nothing(
    server: Answering, answer: Answer
) -> None:
    table = await gives_up(server, answer)
    with pytest.raises(Unavailable):
        await table.get(b"p", b"s")
    await table.aclose()


async def test_a_refusal_does_not_undo_what_an_earlier_try_may_have_done(
    server: Answering, table: Table
) -> None:
    server.answers += [hang_up, refuse("AccessDeniedException")]
    with pytest.raises(OutcomeUnknown, match="lack the permission"):
        await table.put(PUT)
    assert len(server.operations) == 2


async def test_a_failed_condition_says_whether_it_may_have_met_its_own_write(
    server: Answering, table: Table
) -> None:
    row = {"p": {"B": "cA=="}, "s": {"B": "cw=="}, "n": {"N": "7"}}
    failed = refuse("ConditionalCheckFailedException", Item=row)
    server.answers += [failed]
    with pytest.raises(ConditionFailed) as caught:
        await table.put(PUT)
    assert (caught.value.row, caught.value.repeated) == ({"p": b"p", "s": b"s", "n": 7}, False)
    server.answers += [refuse("ThrottlingException"), failed]
    with pytest.raises(ConditionFailed) as caught:
        await table.put(PUT)
    assert not caught.value.repeated
    server.answers += [hang_up, failed]
    with pytest.raises(ConditionFailed) as caught:
        await table.put(PUT)
    assert caught.value.repeated


async def test_a_transaction_with_a_failed_condition_is_not_repeated(
    server: Answering, table: Table
) -> None:
    server.answers += [cancelled("TransactionConflict", "ConditionalCheckFailed")]
    with pytest.raises(TransactionRefused) as caught:
        await table.transact([PUT, Check(b"p", b"t", "attribute_exists(p)")])
    assert [reason.failed for reason in caught.value.reasons] == [False, True]
    assert not caught.value.repeated
    assert server.operations == ["TransactWriteItems"]


async def test_a_request_that_cannot_succeed_is_not_repeated(
    server: Answering, table: Table
) -> None:
    server.answers += [refuse("ValidationException", "The parameter is wrong")]
    with pytest.raises(
        Unavailable, match="PutItem with ValidationException: The para"
    ) as caught:
        await table.put(PUT)
    assert caught.value.lasting
    server.answers += [cancelled("None", "ValidationError")]
    with pytest.raises(Unavailable, match=r"cancelled \(None, ValidationError\)") as caught:
        await table.transact([PUT, PUT])
    assert caught.value.lasting
    assert len(server.operations) == 2


async def test_a_server_that_is_not_there(aws_credentials: None) -> None:
    async with answering() as server:
        settings = server.settings(timeout=0.2)
    table = Table(settings)
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        await table.put(PUT)
    assert not caught.value.lasting
    await table.aclose()


async def test_a_cancelled_call_leaves_the_table_usable(
    server: Answering, table: Table
) -> None:
    server.answers += [silence]
    call = asyncio.create_task(table.put(PUT))
    await server.asked_for_more.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await table.put(PUT)


async def test_closing_waits_for_what_is_under_way(server: Answering, table: Table) -> None:
    server.answers += [refuse("ThrottlingException")]
    call = asyncio.create_task(table.put(PUT))
    await server.asked_for_more.wait()
    await asyncio.gather(table.aclose(), table.aclose())
    assert call.done()
    await call
    with pytest.raises(StoreClosed):
        await table.put(PUT)
    await table.aclose()


async def test_a_table_that_was_never_used_can_be_closed(server: Answering) -> None:
    table = Table(server.settings())
    await table.aclose()
    with pytest.raises(StoreClosed):
        await table.open()
    assert not server.asked


async def test_first_requests_at_once_look_at_the_table_once(server: Answering) -> None:
    table = Table(server.settings())
    await asyncio.gather(*(table.put(PUT) for _ in range(5)))
    assert [asked.operation for asked in server.asked].count("DescribeTable") == 1
    await table.aclose()


async def test_more_calls_at_once_than_connections(server: Answering) -> None:
    table = Table(server.settings(connections=2))
    await asyncio.gather(*(table.put(PUT) for _ in range(20)))
    await table.aclose()


def test_every_code_by_which_botocore_knows_throttling_is_known() -> None:
    known = cast("list[str]", vars(ThrottledRetryableChecker)["_THROTTLED_ERROR_CODES"])
    assert set(known) <= PASSING
