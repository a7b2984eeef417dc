"""Eight processes with sixteen writers each on a few sessions, on every shared database."""

from collections import Counter
from pathlib import Path
from uuid import uuid4

from perdure.plugins import open_backend
from perdure.testing import Process
from perdure.testing.race import judge, race
from perdure.testing.recorder import Deletion, Write
from perdure.testing.shorthand import read_head, read_items
from perdure.testing.writer import COUNTER, LEASE, LOG, Assignment
from perdure.types import SessionKey

from tests.services.cluster import Cluster

PROCESSES = 8
TASKS = 16
APPENDS = 250


async def run(url: str, directory: Path, *, processes: int, tasks: int, appends: int) -> None:
    """Race, and account for everything that was acknowledged."""
    tenant = f"race-{uuid4()}"
    sessions = tuple(SessionKey.of(tenant, "session", str(n)) for n in range(8))
    lasting, mortal = sessions[:4], sessions[4:]
    calls = await race(
        Assignment(
            process=Process("perdure.plugins:open_backend", url),
            name=str(n),
            sessions=sessions,
            mortal=mortal,
            tasks=tasks,
            appends=appends,
            notes=str(directory / f"{n}.jsonl"),
        )
        for n in range(processes)
    )
    answered = [call for call in calls if call.returned is not None]
    writes = [call for call in answered if isinstance(call, Write)]
    applied = [call for call in writes if call.applied]
    assert len(applied) == processes * tasks * appends

    # It has been a race: all that was to happen did happen.
    refusals = Counter(call.refusal for call in writes if call.refusal)
    assert refusals.keys() == {"Conflict", "SessionDeleted"}
    assert any(call.deleted for call in answered if isinstance(call, Deletion))
    assert any(under_lease(call) for call in writes if call.refusal)
    assert any(under_lease(call) for call in applied)
    assert any(call.replayed for call in writes)

    backend = open_backend(url)
    try:
        assert await judge(backend, calls) == []
        # The same once more for sessions of one life, as plainly as it can be said.
        for key in lasting:
            made = [call for call in applied if call.key == key]
            items = await read_items(backend, key)
            values = [value for call in made for value in call.commit.appends[0].values]
            assert sorted(values) == sorted(i.value for i in items if i.key.startswith(LOG))
            assert (await read_head(backend, key)).version == len(made)
            counted = sum(name == COUNTER for call in made for name, _ in call.commit.puts)
            assert [i.value for i in items if i.key == COUNTER] == [b"%d" % counted]
    finally:
        await backend.aclose()


def under_lease(write: Write) -> bool:
    """Whether its sender thought to hold the lease, and did not ask for it."""
    asks = any(name == LEASE for name, _ in write.commit.puts)
    return not asks and any(wanted.key == LEASE for wanted in write.commit.conditions)


async def test_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    await run(url, tmp_path, processes=4, tasks=8, appends=100)


async def test_on_redis(valkey_url: str, tmp_path: Path) -> None:
    await run(valkey_url, tmp_path, processes=PROCESSES, tasks=TASKS, appends=APPENDS)


async def test_on_a_redis_cluster(valkey_cluster: Cluster, tmp_path: Path) -> None:
    await run(valkey_cluster.url, tmp_path, processes=4, tasks=8, appends=100)


async def test_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    await run(postgres_url, tmp_path, processes=PROCESSES, tasks=TASKS, appends=APPENDS)


async def test_on_dynamodb(dynamodb_url: str, tmp_path: Path) -> None:
    await run(dynamodb_url, tmp_path, processes=4, tasks=8, appends=50)


async def test_on_durable_objects(durable_objects_url: str, tmp_path: Path) -> None:
    await run(durable_objects_url, tmp_path, processes=PROCESSES, tasks=TASKS, appends=100)
