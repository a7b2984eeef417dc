"""The agent: asks a (scripted) model, calls tools, and persists every turn.

``python -m perdure_cli.demo.agent`` runs it, with its job on standard input. The same job
begins and resumes: what there is to do follows from what the store holds.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import msgspec

from perdure import Cell, Log, Scope, Session

from perdure_cli.demo.messages import (
    Acknowledged,
    Answered,
    Forked,
    Job,
    Message,
    Report,
    Resumed,
    ToolCall,
    Writing,
    perform,
    send,
)
from perdure_cli.demo.script import AVERAGE, BEST, TOTAL, reply
from perdure_cli.demo.tools import TOOLS

COUNTER = "turn"
"""The cell that counts turns. It is committed with the entries of the turn: turns that are
done are counted, and no others."""


class Agent:
    """An agent at work on one session. Remembers nothing that the store does not hold."""

    def __init__(
        self, session: Session, files: Path, pace: float, report: Callable[[Report], None]
    ) -> None:
        self.session = session
        self._files = files
        self._pace = pace
        self._report = report
        self._history: list[Message] = []
        self._turn = 0

    async def resume(self) -> None:
        """Take up what the store holds.

        That may be a turn more than anybody was told of: a process that dies between a commit
        and its report leaves one that is done. Going by the store, it is not done twice.
        """
        entries, self._turn = await self.session.read(Log(), Cell(COUNTER, 0))
        self._history = msgspec.convert(list(entries), list[Message])
        self._report(Resumed(self._turn, len(entries)))

    async def answer(self, question: str) -> None:
        """Work on the question until it is answered, one commit per turn."""
        new: list[Message] = []
        if not any(m.role == "user" and m.content == question for m in self._history):
            new.append(self._message("user", question))
        elif answer := _answer_at_end(self._history):
            self._report(Answered(self.session.key.id, answer))
            return
        while True:
            await asyncio.sleep(self._pace)
            wanted = reply([*self._history, *new])
            calls: tuple[ToolCall, ...] = (wanted.call,) if wanted.call else ()
            new.append(self._message("assistant", wanted.text, calls))
            for call in calls:
                result = TOOLS[call.name](self._files, call.arguments)
                new.append(self._message("tool", result))
            await self._persist(new)
            if not calls:
                self._report(Answered(self.session.key.id, wanted.text))
                return
            new = []

    async def fork(self, id: str, after: int) -> "Agent":
        """An agent on a fork of the session that shares the turns up to ``after``."""
        entries = await self.session.entries()
        history = msgspec.convert(list(entries), list[Message])
        last = max(n for n, message in enumerate(history) if message.turn == after)
        session = await self.session.fork(id, at=entries.positions[last])
        await session.cells.put(COUNTER, after)  # cells are copied as they are now
        self._report(Forked(id, after))
        other = Agent(session, self._files, self._pace, self._report)
        other._history, other._turn = history[: last + 1], after
        return other

    async def _persist(self, new: list[Message]) -> None:
        """Commit the turn: all of it or nothing, and only behind the turns that we know."""
        id, number = self.session.key.id, self._turn + 1
        self._report(Writing(id, number, tuple(new)))
        started = time.perf_counter()
        async with self.session.turn() as turn:
            turn.append(*(msgspec.to_builtins(message) for message in new))
            turn.cells[COUNTER] = number
        ms = (time.perf_counter() - started) * 1000
        self._report(Acknowledged(id, number, ms, time.time()))
        self._history += new
        self._turn = number

    def _message(self, role: str, content: str, calls: tuple[ToolCall, ...] = ()) -> Message:
        turn = self._turn + 1
        return Message(id=uuid4().hex, turn=turn, role=role, content=content, tool_calls=calls)


def _answer_at_end(history: list[Message]) -> str | None:
    last = history[-1]
    return last.content if last.role == "assistant" and not last.tool_calls else None


async def work(job: Job, scope: Scope, report: Callable[[Report], None]) -> None:
    """Answer; then, if so told, fork the session and go on with both at once."""
    agent = Agent(scope.session(job.session), Path(job.workspace), job.pace, report)
    await agent.resume()
    await agent.answer(TOTAL)
    if job.fork_after is not None:
        other = await agent.fork(job.fork, job.fork_after)
        await asyncio.gather(agent.answer(BEST), other.answer(AVERAGE))


async def main(job: Job) -> None:
    """Do the job."""
    async with job.store() as store:
        await work(job, store, send)


if __name__ == "__main__":
    perform(main)
