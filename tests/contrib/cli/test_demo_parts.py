"""The parts of ``perdure demo``: its proof fails where it should, its agent does nothing twice,
and its answers and its meter are real."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import START, Scope, Store

from perdure_cli.demo import measure as measuring
from perdure_cli.demo.agent import COUNTER, Agent, work
from perdure_cli.demo.measure import measure, payload
from perdure_cli.demo.messages import (
    Acknowledged,
    Answered,
    Claim,
    Job,
    Measured,
    Report,
    Resumed,
    Seen,
    Sighting,
    Writing,
)
from perdure_cli.demo.outcome import Outcome
from perdure_cli.demo.proof import prove
from perdure_cli.demo.script import BEST, TOTAL
from perdure_cli.demo.tools import make_files, sales_of


class Died(Exception):
    """The agent's end, in the tests that need one at an exact place."""


class Played:
    """A session and its fork as the agents leave them, and what was reported of them."""

    def __init__(self, folder: Path) -> None:
        self.job = Job(
            url=None,
            tenant="default",
            kind="demo",
            session="demo",
            workspace=str(folder / "shops"),
            pace=0,
            fork_after=13,
        )
        make_files(Path(self.job.workspace))
        self.scope: Scope = Store("memory://", kind="demo")
        self.session = self.scope.session(self.job.session)
        self.fork = self.scope.session(self.job.fork)
        self.outcome = Outcome()

    async def agents(self) -> None:
        await work(self.job, self.scope, self.outcome.take)

    async def watch(self) -> None:
        """See all that there is."""
        log = await self.session.entries()
        pairs = zip(log.positions, log, strict=True)
        self.outcome.seen = [Seen(Sighting(position, entry), 0) for position, entry in pairs]

    async def rewrite(self, entries: Sequence[Any]) -> None:
        """Replace the log, as a store that mixes things up might."""
        await self.session.clear()
        await self.session.append(*entries)
        await self.watch()

    async def failing(self) -> set[str]:
        """What is not proved of the store as it is now."""
        verdicts = await prove(self.scope, self.job, self.outcome.claim)
        return {verdict.name for verdict in verdicts if not verdict.ok}


@pytest.fixture
async def played(tmp_path: Path) -> Played:
    found = Played(tmp_path)
    await found.agents()
    await found.watch()
    return found


async def test_an_honest_store_passes(played: Played) -> None:
    assert await played.failing() == set()
    assert len(await played.session.entries()) == 42
    assert len(await played.fork.entries()) == 33


@pytest.mark.parametrize("index", range(0, 42, 6))
async def test_a_removed_entry_is_noticed(played: Played, index: int) -> None:
    entries = list(await played.session.entries())
    await played.rewrite(entries[:index] + entries[index + 1 :])
    assert {"session-exactly-once", "session-in-order", "whole-turns"} <= await played.failing()


async def test_a_removed_last_entry_is_noticed(played: Played) -> None:
    await played.session.pop()
    failing = {"session-exactly-once", "session-in-order", "whole-turns", "watcher", "answers"}
    assert await played.failing() == failing


@pytest.mark.parametrize("index", [0, 20, 41])
async def test_a_doubled_entry_is_noticed(played: Played, index: int) -> None:
    entries = list(await played.session.entries())
    await played.rewrite([*entries[: index + 1], *entries[index:]])
    assert {"session-exactly-once", "session-in-order", "whole-turns"} <= await played.failing()


async def test_reordered_entries_are_noticed(played: Played) -> None:
    entries = list(await played.session.entries())
    entries[30], entries[31] = entries[31], entries[30]
    await played.rewrite(entries)
    assert await played.failing() == {"session-in-order", "whole-turns"}


async def test_reordered_turns_are_noticed(played: Played) -> None:
    entries = list(await played.session.entries())
    await played.rewrite([*entries[:31], *entries[33:35], *entries[31:33], *entries[35:]])
    assert await played.failing() == {"session-in-order", "whole-turns"}


async def test_an_altered_entry_is_noticed(played: Played) -> None:
    entries = list(await played.session.entries())
    entries[30] = entries[30] | {"content": "something else"}
    await played.rewrite(entries)
    assert "session-exactly-once" in await played.failing()


async def test_an_entry_that_nobody_wrote_is_noticed(played: Played) -> None:
    await played.session.append({"id": "another", "turn": 22, "role": "user", "content": "?"})
    await played.watch()
    assert await played.failing() == {"whole-turns", "answers"}


async def test_a_counter_that_lags_is_noticed(played: Played) -> None:
    await played.session.cells.put(COUNTER, 20)
    assert await played.failing() == {"whole-turns"}


MISTAKES: dict[str, Callable[[list[Seen]], list[Seen]]] = {
    "late": lambda seen: seen[:-1],
    "early": lambda seen: seen[1:],
    "twice": lambda seen: [*seen, seen[-1]],
    "backwards": lambda seen: seen[::-1],
    "another": lambda seen: [Seen(Sighting(seen[0].sighting.position, {}), 0), *seen[1:]],
    "elsewhere": lambda seen: [Seen(Sighting(START, seen[0].sighting.entry), 0), *seen[1:]],
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_watcher_that_saw_something_else_is_noticed(
    played: Played, mistake: str
) -> None:
    played.outcome.seen = MISTAKES[mistake](played.outcome.seen)
    assert await played.failing() == {"watcher"}


async def test_a_fork_without_its_past_is_noticed(played: Played) -> None:
    entries = list(await played.fork.entries())
    await played.fork.clear()
    await played.fork.append(*entries[1:])
    assert await played.failing() == {"fork-exactly-once", "fork-in-order", "fork"}


async def test_a_fork_that_shares_too_much_is_noticed(played: Played) -> None:
    await played.fork.clear()
    await played.fork.append(*await played.session.entries())
    assert {"fork-exactly-once", "fork", "answers"} <= await played.failing()


async def test_a_missing_fork_is_noticed(played: Played) -> None:
    await played.fork.delete()
    assert {"fork-exactly-once", "fork", "lineage"} <= await played.failing()


async def test_a_wrong_answer_is_noticed(played: Played) -> None:
    table = Path(played.job.workspace) / "cadiz.csv"
    table.write_text(table.read_text() + "globe,1000.00\n")
    assert await played.failing() == {"answers"}


async def test_nothing_claimed_proves_nothing(tmp_path: Path) -> None:
    job = Played(tmp_path).job
    claim = Claim(session=[], fork=[], seen=[])
    verdicts = await prove(Store("memory://"), job, claim)
    assert {verdict.name for verdict in verdicts if verdict.ok} <= {
        "session-in-order",
        "fork-in-order",
    }


# The agent


async def test_an_agent_that_dies_before_the_commit_does_the_turn_again(tmp_path: Path) -> None:
    played = Played(tmp_path)

    def die(report: Report) -> None:
        played.outcome.take(report)
        if isinstance(report, Writing) and report.turn == 7:
            raise Died

    with pytest.raises(Died):
        await work(played.job, played.scope, die)
    await played.agents()
    await played.watch()
    assert played.outcome.resumed == Resumed(6, 13)
    assert [turn.turn for turn in played.outcome.session.turns].count(7) == 2
    assert await played.failing() == set()


async def test_a_turn_whose_acknowledgement_was_lost_is_not_done_twice(tmp_path: Path) -> None:
    played = Played(tmp_path)

    def die(report: Report) -> None:
        if isinstance(report, Acknowledged) and report.turn == 7:
            raise Died
        played.outcome.take(report)

    agent = Agent(played.session, Path(played.job.workspace), 0, die)
    await agent.resume()
    with pytest.raises(Died):
        await agent.answer(TOTAL)
    assert played.outcome.session.acknowledged == 6
    await played.agents()
    await played.watch()
    assert played.outcome.resumed == Resumed(7, 15)
    assert [turn.turn for turn in played.outcome.session.turns].count(7) == 1
    assert await played.failing() == set()


async def test_an_agent_that_is_done_writes_nothing(played: Played) -> None:
    reports: list[Report] = []
    agent = Agent(played.session, Path(played.job.workspace), 0, reports.append)
    before = await played.session.head()
    await agent.resume()
    await agent.answer(BEST)
    assert reports == [Resumed(21, 42), Answered("demo", "Cadiz sold most: 2833.17.")]
    assert await played.session.head() == before


async def test_the_answers_come_from_the_files(tmp_path: Path) -> None:
    played = Played(tmp_path)
    for number, name in enumerate(sales_of(files := Path(played.job.workspace)), 1):
        (files / name).write_text(f"item,sold\natlas,{number}.00\nnovel,0.25\n")
    await played.agents()
    assert played.outcome.session.answers == [
        "The 8 shops sold 38.00 together.",
        "Haarlem sold most: 8.25.",
    ]
    assert played.outcome.fork.answers == ["6 shops sold 3.75 each on average."]


# The meter


def measured(folder: Path, *, url: str, directory: Path) -> Measured:
    job = msgspec.structs.replace(Played(folder).job, url=url)
    return asyncio.run(measure(job, directory))


def test_a_measured_turn_is_always_the_same() -> None:
    assert payload(7) == payload(7) != payload(8)


@pytest.mark.parametrize("counted", [True, False], ids=["counters", "files"])
def test_bytes_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *,
    counted: bool,
) -> None:
    if not counted:
        monkeypatch.setattr(measuring, "COUNTERS", tmp_path / "missing")
    elif not measuring.COUNTERS.exists():
        pytest.skip("this system has none")
    monkeypatch.setattr(measuring, "TURNS", 120)
    folder = tmp_path / "store"
    folder.mkdir()
    url = f"sqlite:///{folder / 'sessions.db'}"
    found = measured(tmp_path, url=url, directory=folder)
    assert capfd.readouterr().out.count("\n") == 2  # at turns 50 and 100
    assert found.turns == 120
    assert found.first_bytes is not None
    assert found.last_bytes is not None
    assert found.payload_bytes < found.first_bytes < 20 * found.payload_bytes
    assert found.bytes_ratio is not None
    assert 0.5 < found.bytes_ratio < 2


def test_bytes_that_go_elsewhere_are_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(measuring, "COUNTERS", tmp_path / "missing")
    monkeypatch.setattr(measuring, "TURNS", 40)
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    found = measured(tmp_path, url=url, directory=tmp_path / "empty")
    assert found.first_bytes is found.last_bytes is found.average_bytes is None
    assert found.bytes_ratio is None
    assert "something else" in found.meter
