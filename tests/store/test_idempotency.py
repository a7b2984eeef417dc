"""Appends under a key, on every backend and from several processes."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE

import pytest

from perdure import CommitIdReused, SessionDeleted, Store
from perdure.idempotency import KEPT_MS
from perdure.testing import Harness
from perdure.testing.race import kill

PROCESSES = 3
TASKS = 17


async def test_a_repeat_is_told_the_first_position(any_store: Store, harness: Harness) -> None:
    session = any_store.session("s")
    await session.append("before")
    first = await session.append("a", {"b": 1}, key="webhook-123 \U0001f600")
    assert await session.append("a", {"b": 1}, key="webhook-123 \U0001f600") == first
    with pytest.raises(CommitIdReused):
        await session.append("b", key="webhook-123 \U0001f600")
    await session.truncate(before=first)
    await session.pop()
    other = await harness.open()
    try:
        cold = Store(other, tenant=any_store.key("s").tenant).session("s")
        assert await cold.append("a", {"b": 1}, key="webhook-123 \U0001f600") == first
        assert await cold.entries() == []
    finally:
        if other is not any_store.backend:
            await other.aclose()


async def test_a_key_goes_with_its_session(any_store: Store) -> None:
    session = any_store.session("s")
    await session.append("a", key="k")
    await any_store.delete("s")
    with pytest.raises(SessionDeleted):
        await session.append("a", key="k")
    await any_store.session("s").append("b", key="k")
    assert await any_store.session("s").entries() == ["b"]


async def test_a_key_lapses_after_a_day(any_store: Store, harness: Harness) -> None:
    if harness.patience < 2 * KEPT_MS:
        pytest.skip("time really passes here")
    session = any_store.session("s")
    first = await session.append("a", key="k")
    await harness.advance(KEPT_MS - 60_000)
    assert await any_store.session("s").append("a", key="k") == first
    await harness.advance(120_000)
    second = await any_store.session("s").append("c", key="k")
    assert second > first
    assert await session.append("c", key="k") == second
    assert await session.entries() == ["a", "c"]


async def test_many_at_once_are_one(any_store: Store) -> None:
    positions = await asyncio.gather(
        *(any_store.session("s").append("a", "b", key="k") for _ in range(50))
    )
    entries = await any_store.session("s").entries()
    assert entries == ["a", "b"]
    assert positions == [entries.positions[1]] * 50


async def test_several_processes_at_once_are_one(any_store: Store, harness: Harness) -> None:
    if harness.process is None:
        pytest.skip("this backend lives in one process")
    tenant = any_store.key("s").tenant
    path = os.pathsep.join(entry for entry in sys.path if entry)
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.store.repeating",
            *(harness.process.factory, harness.process.argument, tenant, str(TASKS)),
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        for _ in range(PROCESSES)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
        told = await asyncio.gather(*(child.communicate(b"go\n") for child in children))
    finally:
        for child in children:
            await kill(child)
    positions = [position for output, _ in told for position in json.loads(output)]
    entries = await any_store.session("s").entries()
    assert entries == [["hook", {"n": 1}], "done"]
    assert positions == [entries.positions[1]] * (PROCESSES * TASKS)
