"""Copying between any two backends: random sessions answer on the other as on the one."""

import random
from collections.abc import AsyncGenerator, Callable
from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest

from perdure import Order, Store
from perdure.backend import Backend
from perdure.copying import Fate
from perdure.plugins import open_backend
from perdure.testing.shorthand import write
from perdure.types import Expect, Restored, SessionKey

from tests.core.copies import answers, change, copy, everything, noise, same_items
from tests.core.wrappers import Narrow, Recorder

BACKENDS = ("memory", "sqlite", "redis", "postgres", "dynamodb", "durable_objects")

ONE_PLACE = ("dynamodb", "durable_objects")
"""Those of which a test has but one place, to copy from or to."""

PAIRS = [
    pair
    for pair in product(BACKENDS, repeat=2)
    if pair[0] != pair[1] or pair[0] not in ONE_PLACE
]

Urls = Callable[[str, str], str]


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    """Where a backend's ``role`` is played: by a place of its own."""

    def url(backend: str, role: str) -> str:
        if backend == "memory":
            return "memory://"
        if backend == "sqlite":
            return f"sqlite:///{tmp_path / role}.db?synchronous=normal"
        if backend == "redis":
            return f"{request.getfixturevalue('valkey_url')}?prefix=copying-{role}"
        if backend == "postgres":
            return f"{request.getfixturevalue('postgres_url')}?schema=copying_{role}"
        return request.getfixturevalue(f"{backend}_url")

    return url


@pytest.fixture(params=[pytest.param(pair, id=" to ".join(pair)) for pair in PAIRS])
async def pair(
    request: pytest.FixtureRequest, url_of: Urls
) -> AsyncGenerator[tuple[Backend, Backend]]:
    """What is copied from, and to."""
    source, target = request.param
    one = open_backend(url_of(source, "source"))
    other = open_backend(url_of(target, "target"))
    yield one, other
    await one.aclose()
    await other.aclose()


@pytest.fixture
def tenants() -> list[str]:
    """Nobody else's: the servers are shared."""
    return [f"{name} {uuid4()}" for name in ("a", "ü\n'{}%")]


async def test_random_sessions_answer_as_they_did(
    pair: tuple[Backend, Backend], tenants: list[str]
) -> None:
    source, target = pair
    here, there = Store(source), Store(target)
    chance = random.Random(7)
    names = [
        SessionKey(tenant, kind, f"{tenant[:1]}-{kind}-{n}")
        for tenant in tenants
        for kind in ("session", "k\t\u2028")
        for n in range(2)
    ]
    for _ in range(60):
        await change(here, chance.choice(names), chance)
    expected = await everything(here, tenants)
    assert len(expected) >= len(names)
    reports = await copy(source, target, tenants=tenants)
    assert {report.key: report.fate for report in reports.values()} == dict.fromkeys(
        expected, Fate.COPIED
    )
    assert all(report.digest for report in reports.values())
    assert await everything(there, tenants) == expected

    for _ in range(20):
        await change(here, chance.choice(names), chance)
    expected = await everything(here, tenants)
    reports = await copy(source, target, tenants=tenants)
    assert {report.fate for report in reports.values()} == {
        Fate.COPIED,  # forks
        Fate.REPLACED,
        Fate.PRESENT,
    }
    assert await everything(there, tenants) == expected
    reports = await copy(source, target, tenants=tenants, verify=True)
    assert {report.fate for report in reports.values()} == {Fate.PRESENT}

    # Both go on in the same way, and the copy that was written to is one no more.
    key = names[0]
    one, other = (
        store.tenant(key.tenant).kind(key.kind).session(key.id) for store in (here, there)
    )
    assert await one.append("next") == await other.append("next")
    assert (await one.pop(), await other.pop()) == ("next", "next")
    assert await same_items(source, target, key)
    await one.append("here")
    await other.append("there")
    reports = await copy(source, target, tenants=tenants)
    assert reports[key.id].fate is Fate.REFUSED
    assert (await copy(source, target, tenants=tenants, overwrite=True))[
        key.id
    ].fate is Fate.REPLACED
    assert (await answers(there, key))["entries"] == (await answers(here, key))["entries"]


async def test_large_sessions_come_over_in_parts(
    pair: tuple[Backend, Backend], tenants: list[str]
) -> None:
    source, target = pair
    chance = random.Random(8)
    key = SessionKey(tenants[0], "session", "large")
    here, there = (Store(backend).tenant(key.tenant) for backend in pair)
    session = here.session(key.id)
    for n in range(4):
        await session.append(*(noise(chance, 50_000) for _ in range(8)))
        await session.cells.update({f"{n}-{m}": noise(chance, 100) for m in range(50)})
    await here.save(key.id, [noise(chance, 1000) for _ in range(60)])

    recorder = Recorder(Narrow(target, commit_bytes=1 << 17))
    narrow = Narrow(source, read_bytes=1 << 16)
    narrow.between = [lambda: session.cells.put("0-0", "late"), lambda: session.append("late")]
    reports = await copy(narrow, recorder, tenants=tenants)
    assert reports["large"].fate is Fate.COPIED
    assert len(recorder.commits) == 1
    assert recorder.commits[0].stages
    assert await same_items(source, target, key)
    assert await answers(Store(target), key) == await answers(Store(source), key)

    # The next version takes its place at once; deleted, it comes back.
    await session.pop()
    await session.append("more")
    recorder.reset()
    assert (await copy(source, recorder, tenants=tenants))["large"].fate is Fate.REPLACED
    assert len(recorder.commits) == 1
    assert await same_items(source, target, key)
    for _ in range(2):
        await there.delete(key.id)
        assert (await copy(source, target, tenants=tenants))["large"].fate is Fate.COPIED
        await target.sweep()
        assert await same_items(source, target, key)


async def test_lists_stay_in_their_order(
    pair: tuple[Backend, Backend], tenants: list[str]
) -> None:
    """Sessions of the last days: each written an hour after the other."""
    source, target = pair
    names = [f"s{n}" for n in range(12)]
    random.Random(9).shuffle(names)
    now = (await source.read(SessionKey(tenants[0], "session", "s"))).now
    for hours, name in enumerate(names):
        times = Restored(hours + 1, now - 10**9, now - 10**8 + hours * 3_600_000)
        key = SessionKey(tenants[0], "session", name)
        await write(source, key, expect=Expect.ABSENT, restored=times, labels=("l",))
        await write(source, SessionKey(tenants[1], "session", name), expect=Expect.ABSENT)
    await copy(source, target, tenants=tenants[:1])
    for label in (None, "l"):
        for order, expected in ((Order.ID, sorted(names)), (Order.RECENCY, names[::-1])):
            scope = Store(target).tenant(tenants[0])
            found = [entry.key.id async for entry in scope.list(label=label, order=order)]
            assert found == expected
