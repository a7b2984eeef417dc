"""The parts of ``perdure demo``: its proof fails where it should, its agent does nothing twice,
its tools and its meter are real."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Scope, Store

from perdure_cli.demo import measure as measuring
from perdure_cli.demo.agent import closer, work
from perdure_cli.demo.measure import payload
from perdure_cli.demo.messages import (
    Acknowledged,
    Claim,
    Job,
    Progress,
    Report,
    Role,
    Sighting,
    Verdict,
    decode,
)
from perdure_cli.demo.proof import prove
from perdure_cli.demo.script import CONTINUED, FILES, FORK_TURN, SCRIPT, calculate, order_value

# The proof


class Played:
    """A session and its fork as the demo leaves them, and what was claimed of them."""

    def __init__(self, scope: Scope, job: Job, claim: Claim) -> None:
        self.scope = scope
        self.job = job
        self.claim = claim
        self.session = scope.session(job.session)
        self.fork = scope.session(job.fork)

    async def failing(self) -> list[str]:
        """What is not proved of the store as it is now."""
        verdicts = await prove(self.scope, self.job.session, self.job.fork, self.claim)
        return [verdict.claim for verdict in verdicts if not verdict.ok]


def job(folder: Path) -> Job:
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return Job(
        role=Role.CLOSER,
        url=None,
        tenant="default",
        kind="demo",
        session="demo",
        workspace=str(folder),
        pace=0,
    )


def reports(captured: bytes) -> list[Report]:
    return [decode(line) for line in captured.splitlines()]


def acknowledged(found: Sequence[Report], session: str) -> list[str]:
    return [
        id
        for report in found
        if isinstance(report, Acknowledged) and report.session == session
        for id in report.ids
    ]


async def sightings(scope: Scope, session: str) -> list[Sighting]:
    log = await scope.session(session).entries()
    return [
        Sighting(position, entry["id"])
        for position, entry in zip(log.positions, log, strict=True)
    ]


@pytest.fixture
async def played(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Played:
    task = job(tmp_path)
    scope = Store("memory://").kind("demo")
    await closer(task, scope)
    found = reports(capsysbinary.readouterr().out)
    claim = Claim(
        acknowledged=acknowledged(found, task.session),
        fork_acknowledged=acknowledged(found, task.fork),
        seen=await sightings(scope, task.session),
        fork_turn=FORK_TURN,
    )
    return Played(scope, task, claim)


async def rewrite(played: Played, entries: Sequence[Any]) -> None:
    """Replace the log, as a store that mixes things up might."""
    await played.session.clear()
    await played.session.append(*entries)
    played.claim = msgspec.structs.replace(
        played.claim, seen=await sightings(played.scope, played.job.session)
    )


async def test_an_honest_store_passes(played: Played) -> None:
    assert await played.failing() == []
    assert len(played.claim.acknowledged) == 30
    assert len(await played.fork.entries()) == 23


async def test_a_lost_last_entry_is_noticed(played: Played) -> None:
    await played.session.pop()
    assert await played.failing() == [
        "every acknowledged entry of the session is there exactly once",
        "and in the order in which it was acknowledged",
        "no turn is there by half or twice, and the counter agrees",
        "the watcher saw the same entries at the same positions, live",
    ]


@pytest.mark.parametrize("index", range(0, 30, 7))
async def test_any_lost_entry_is_noticed(played: Played, index: int) -> None:
    entries = list(await played.session.entries())
    await rewrite(played, entries[:index] + entries[index + 1 :])
    failing = await played.failing()
    assert "every acknowledged entry of the session is there exactly once" in failing
    assert "no turn is there by half or twice, and the counter agrees" in failing


async def test_a_doubled_entry_is_noticed(played: Played) -> None:
    entries = list(await played.session.entries())
    await rewrite(played, [*entries, entries[-1]])
    failing = await played.failing()
    assert "every acknowledged entry of the session is there exactly once" in failing
    assert "no turn is there by half or twice, and the counter agrees" in failing


async def test_entries_that_changed_places_are_noticed(played: Played) -> None:
    entries = list(await played.session.entries())
    entries[20], entries[21] = entries[21], entries[20]
    await rewrite(played, entries)
    failing = await played.failing()
    assert "every acknowledged entry of the session is there exactly once" not in failing
    assert "and in the order in which it was acknowledged" in failing


async def test_a_turn_that_nobody_made_is_noticed(played: Played) -> None:
    await played.session.append({"id": "t16.1", "turn": 16, "part": 1, "parts": 2})
    assert "no turn is there by half or twice, and the counter agrees" in await played.failing()


async def test_a_counter_that_lags_is_noticed(played: Played) -> None:
    await played.session.cells.put("turn", 14)
    assert await played.failing() == [
        "no turn is there by half or twice, and the counter agrees"
    ]


async def test_a_watcher_that_missed_something_is_noticed(played: Played) -> None:
    played.claim = msgspec.structs.replace(played.claim, seen=played.claim.seen[:-1])
    assert await played.failing() == [
        "the watcher saw the same entries at the same positions, live"
    ]


async def test_a_fork_without_its_past_is_noticed(played: Played) -> None:
    entries = list(await played.fork.entries())
    await played.fork.clear()
    await played.fork.append(*entries[1:])
    assert await played.failing() == [
        "the fork shares its past with the session and then goes its own way"
    ]


async def test_a_fork_that_never_parts_is_noticed(played: Played) -> None:
    await played.fork.clear()
    await played.fork.append(*await played.session.entries())
    assert "the fork shares its past with the session and then goes its own way" in (
        await played.failing()
    )


async def test_a_missing_fork_is_noticed(played: Played) -> None:
    await played.fork.delete()
    assert "the fork knows what it came from" in await played.failing()


async def test_nothing_claimed_proves_nothing() -> None:
    claim = Claim(acknowledged=[], fork_acknowledged=[], seen=[], fork_turn=FORK_TURN)
    verdicts = await prove(Store("memory://"), "none", "none-fork", claim)
    assert not all(verdict.ok for verdict in verdicts)


# The agent


async def test_a_turn_whose_acknowledgement_was_lost_is_not_done_twice(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    task = job(tmp_path)
    scope = Store("memory://").kind("demo")
    await work(scope.session("demo"), SCRIPT[:6], "t", tmp_path, 0)
    told = acknowledged(reports(capsysbinary.readouterr().out), "demo")
    heard = [id for id in told if not id.startswith("t06")]  # the sixth died in the pipe
    await closer(task, scope)
    found = reports(capsysbinary.readouterr().out)
    assert "t06.1" not in acknowledged(found, "demo")
    played = Played(
        scope,
        task,
        Claim(
            acknowledged=heard + acknowledged(found, "demo"),
            fork_acknowledged=acknowledged(found, task.fork),
            seen=await sightings(scope, "demo"),
            fork_turn=FORK_TURN,
        ),
    )
    assert await played.failing() == []


async def test_the_answer_comes_from_the_files(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    job(tmp_path)
    (tmp_path / "prices.csv").write_text("item,price\nlamp,1\nchair,2\ndesk,3\nshelf,4\n")
    session = Store("memory://").session("demo")
    await work(session, CONTINUED, "t", tmp_path, 0)
    (answer,) = await session.entries(last=1)
    # Lyon 62, Oslo 49, Berlin 37: a tenth of 148, and three times 120 of freight.
    assert answer["content"] == "With freight it comes to 374.80."
    assert capsysbinary.readouterr().out


def test_the_order_value_is_worked_out(tmp_path: Path) -> None:
    job(tmp_path)
    assert order_value(tmp_path, "orders-berlin.csv") == "1901.80"


@given(st.integers(0, 999), st.integers(1, 999))
def test_the_calculator_calculates(left: int, right: int) -> None:
    assert calculate(Path(), f"({left} + 2) * {right} / 4") == f"{(left + 2) * right / 4:.2f}"


@pytest.mark.parametrize("text", ["__import__('os')", "a", "2 ** 99", "'x' * 9", "f(1)"])
def test_the_calculator_runs_no_code(text: str) -> None:
    with pytest.raises(ValueError, match="cannot calculate"):
        calculate(Path(), text)


def test_a_measured_turn_is_realistic() -> None:
    sizes = [len(json.dumps(payload(turn))) for turn in range(50)]
    assert min(sizes) > 2500
    assert max(sizes) < 3700
    assert payload(7) == payload(7) != payload(8)


async def test_bytes_are_measured_by_the_growth_of_files_where_the_system_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(measuring, "COUNTERS", tmp_path / "none")
    monkeypatch.delenv("PERDURE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    measured = await measuring.measure(job(tmp_path))
    assert measured.meter == "growth of the store's files"
    assert measured.turns == 1000
    assert measured.first_bytes is not None
    assert measured.first_bytes > 500
    assert measured.ratio is not None
    assert 0.5 < measured.ratio < 2
    progress = reports(capsysbinary.readouterr().out)
    assert [report.turns for report in progress if isinstance(report, Progress)] == [
        *range(100, 1001, 100)
    ]


def test_a_verdict_survives_the_pipe() -> None:
    verdict = Verdict("all is well", True, "ünïcode, too")
    assert decode(msgspec.json.encode(verdict)) == verdict
