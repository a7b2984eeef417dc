"""The play: a watcher, an agent, SIGKILL, another agent, a fork, a long session, the proof."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import SystemRandom

from perdure_cli.demo.children import Child, child
from perdure_cli.demo.messages import (
    Acknowledged,
    Answered,
    Forked,
    Job,
    Message,
    Progress,
    Report,
    Resumed,
    Seen,
    Verdict,
    Writing,
)
from perdure_cli.demo.outcome import Kill, Outcome, seen_in
from perdure_cli.demo.screen import FIRST, FORK, LONG, SECOND, WATCHER, Mood, Screen
from perdure_cli.text import plural

KILL_WHILE_WRITING = range(8, 13)
"""One of these turns is the first agent's last."""
PAUSE = 0.4
"""Seconds in which nobody does anything after the kill, for people to see it."""
LONGEST_AIM = 0.02
"""Seconds after which the kill comes at the latest, however long commits take."""
WATCHER_SECONDS = 10.0
"""The watcher has this long to be given the last entry."""
KILLED = -9
"""How a process ends that SIGKILL ended."""


class Stage:
    """One run of the demo."""

    def __init__(self, job: Job, folder: Path, screen: Screen) -> None:
        self._job = job
        self._folder = folder
        self._screen = screen
        self._seen = asyncio.Event()
        self.outcome = Outcome()

    async def play(self) -> None:
        """Everything, in order. No process is left, however this ends.

        Raises ``CommandError`` if one fails.
        """
        started = time.monotonic()
        self._screen.status("a watcher waits for a session that does not exist yet")
        async with child("watcher", self._job, self._folder) as watcher:
            watching = asyncio.create_task(self._watch(watcher))
            try:
                await self._until(lambda: self.outcome.store is not None, watching)
                await self._first_agent()
                await asyncio.sleep(PAUSE)
                await self._second_agent()
                await self._until(self._watcher_has_all, watching)
            finally:
                watching.cancel()
                await asyncio.wait((watching,))
        await self._long_session()
        await self._proof()
        self.outcome.seconds = time.monotonic() - started
        self._screen.status(f"done in {self.outcome.seconds:.1f} s")

    async def clean(self) -> None:
        """Delete the sessions."""
        async with child("clean", self._job, self._folder) as cleaner:
            async for report in cleaner.reports():
                self.outcome.take(report)

    async def _watch(self, watcher: Child) -> None:
        async for report in watcher.reports():
            self.outcome.take(report)
            self._seen.set()
            if isinstance(report, Seen):
                count = plural(len(self.outcome.seen), "entry")
                self._screen.mark(WATCHER, seen_in(report).turn, Mood.GOOD)
                self._screen.remark(WATCHER, f"pid {watcher.pid} · saw {count}")
            else:
                self._screen.say(WATCHER, f"process {watcher.pid} waits")
                self._screen.remark(WATCHER, f"pid {watcher.pid}")

    async def _until(self, reached: Callable[[], bool], watching: asyncio.Task[None]) -> None:
        """Wait until the watcher has come so far; if it takes too long, the proof will tell."""
        deadline = time.monotonic() + WATCHER_SECONDS
        while not reached() and time.monotonic() < deadline:
            if watching.done():
                watching.result()
                return
            self._seen.clear()
            moved = asyncio.create_task(self._seen.wait())
            await asyncio.wait(
                (moved, watching),
                timeout=deadline - time.monotonic(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            moved.cancel()

    def _watcher_has_all(self) -> bool:
        last = self.outcome.last_entry
        return any(seen_in(report).id == last for report in reversed(self.outcome.seen))

    async def _first_agent(self) -> None:
        self._screen.status("agent 1 works, and persists every turn")
        last_turn = SystemRandom().choice(KILL_WHILE_WRITING)
        async with child("agent", self._job, self._folder) as agent:
            self._screen.remark(FIRST, f"pid {agent.pid}")
            async for report in agent.reports():
                if isinstance(report, Writing) and report.turn == last_turn:
                    # A commit takes about as long as the last one: die anywhere in it.
                    agent.kill_within(min(self.outcome.turn_ms[-1] / 1000, LONGEST_AIM))
                self._take(FIRST, agent, report)
            status = await agent.status()
        acknowledged = self.outcome.session.acknowledged
        self.outcome.kill = Kill(agent.pid, status, last_turn, acknowledged)
        moment = f"while it wrote turn {last_turn}"
        if acknowledged == last_turn:
            moment = f"just after turn {last_turn} was acknowledged"
        self.outcome.verdicts.append(
            Verdict(
                "killed",
                "agent 1 was ended by SIGKILL in the midst of its work",
                status == KILLED,
                f"exit status {status}, {moment}",
            )
        )
        self._screen.mark(FIRST, acknowledged + 1, Mood.BAD)
        self._screen.say(
            FIRST,
            f"SIGKILL {moment}; acknowledged: 1 to {acknowledged}",
            Mood.BAD,
        )
        self._screen.remark(FIRST, f"pid {agent.pid} · SIGKILL in turn {last_turn}")
        self._screen.status("agent 1 is dead; agent 2 gets nothing but the session's id")

    async def _second_agent(self) -> None:
        async with child("agent", self._job, self._folder) as agent:
            async for report in agent.reports():
                self._take(SECOND, agent, report)
                if isinstance(report, Resumed):
                    text = f"pid {agent.pid} · resumed behind turn {report.turn}"
                    self._screen.remark(SECOND, text)
                    self._screen.status("agent 2 goes on from what the store holds")

    def _take(self, who: str, agent: Child, report: Report) -> None:
        """Note what an agent reports, and tell it."""
        outcome, screen = self.outcome, self._screen
        outcome.take(report)
        match report:
            case Resumed(turn=0):
                screen.say(who, f"process {agent.pid} begins: there is no session yet")
            case Resumed(turn=turn, entries=entries):
                screen.say(
                    who,
                    f"process {agent.pid} finds {turn} turns, {entries} entries{self._extra()}",
                    Mood.GOOD,
                )
            case Writing(session=session, turn=turn):
                screen.mark(FORK if session == outcome.fork_id else who, turn, Mood.BUSY)
            case Acknowledged(session=session, turn=turn, ms=ms):
                lane = FORK if session == outcome.fork_id else who
                text = describe(outcome.branch(session).turns[-1].entries)
                screen.say(lane, f"turn {turn:>2} {ms:5.2f} ms  {text}")
                screen.mark(lane, turn, Mood.GOOD)
            case Answered(session=session, text=text):
                screen.say(FORK if session == outcome.fork_id else who, text, Mood.GOOD)
            case Forked(turn=turn, fork=fork):
                screen.say(FORK, f"{fork} shares turns 1 to {turn}")
                screen.mark(FORK, turn, Mood.BRANCH)
                screen.remark(FORK, f"pid {agent.pid} · shares turns 1 to {turn}")
                screen.status("agent 2 goes on with both, the session and its fork")
            case _:
                pass

    def _extra(self) -> str:
        """What the second agent found that the first one could not report any more."""
        kill, resumed = self.outcome.kill, self.outcome.resumed
        if kill is None or resumed is None or resumed.turn == kill.acknowledged:
            return ""
        return f": turn {resumed.turn} is there, its report died with agent 1"

    async def _long_session(self) -> None:
        self._screen.status("a session of 1,000 turns: what does the last one cost?")
        async with child("measure", self._job, self._folder) as measure:
            async for report in measure.reports():
                self.outcome.take(report)
                if isinstance(report, Progress):
                    self._screen.progress(report.turns)
                    self._screen.remark(LONG, f"{report.turns:,} turns of 3 KiB")

    async def _proof(self) -> None:
        self._screen.status("the proof: a new process asks the store")
        job = self._job.with_claim(self.outcome.claim)
        async with child("proof", job, self._folder) as prover:
            async for report in prover.reports():
                self.outcome.take(report)


def describe(entries: Sequence[Message]) -> str:
    """A turn in one line."""
    called = next((entry.tool_calls[0] for entry in entries if entry.tool_calls), None)
    if called is None:
        return "answers"
    given = called.arguments.values()
    shown = (value if isinstance(value, str) else f"{len(value)} numbers" for value in given)
    result = entries[-1].content
    count = len(result.splitlines())
    return f"{called.name}({', '.join(shown)}) → {result if count == 1 else f'{count} lines'}"
