"""A process of the demo: ``python -m perdure_cli.demo.agent``, with its job on stdin."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from perdure import START, PerdureError, Scope, Session, Store

from perdure_cli.demo.measure import measure
from perdure_cli.demo.messages import (
    Acknowledged,
    Doing,
    Failed,
    Forked,
    Job,
    Ready,
    Role,
    Seen,
    Sighting,
    send,
)
from perdure_cli.demo.proof import prove
from perdure_cli.demo.script import ALTERNATIVE, CONTINUED, FORK_TURN, SCRIPT, Reply, messages
from perdure_cli.text import clip, speaker_and_text


async def work(
    session: Session, script: Sequence[Reply], branch: str, workspace: Path, pace: float
) -> None:
    """The agent: one turn after another, from wherever the store says that the session is.

    Nothing is remembered outside the store. The cell ``turn`` counts the turns done and is
    written in the same commit as the turn's entries: if a process dies, the turn that it was
    in is there and counted, or it is not there at all and is done again.
    """
    while True:
        started = time.perf_counter()
        async with session.turn() as turn:
            done: int = await turn.cells.get("turn", 0)
            if done == len(script):
                return
            history = await turn.entries()
            spent = time.perf_counter() - started
            step = script[done](history)
            if step.tool is None:
                text = clip(step.text, 60)
            else:
                text = f"{step.tool}({', '.join(step.arguments.values())})"
            send(Doing(session.key.id, done + 1, text))
            await asyncio.sleep(pace)
            entries = messages(step, done + 1, branch, workspace)
            turn.append(*entries)
            turn.cells["turn"] = done + 1
            started = time.perf_counter()
        spent += time.perf_counter() - started
        ids = [entry.get("id", "") for entry in entries]
        send(Acknowledged(session.key.id, done + 1, ids, spent * 1000))


async def agent(job: Job, scope: Scope) -> None:
    """Work through the script."""
    session = scope.session(job.session)
    entries = await session.entries()
    send(Ready(await session.cells.get("turn", 0), len(entries)))
    await work(session, SCRIPT, "t", Path(job.workspace), job.pace)


async def closer(job: Job, scope: Scope) -> None:
    """Work through the rest of the script, fork the session, and continue both at once."""
    await agent(job, scope)
    session, workspace = scope.session(job.session), Path(job.workspace)
    entries = await session.entries()
    shared = [
        position
        for position, entry in zip(entries.positions, entries, strict=True)
        if entry["turn"] <= FORK_TURN
    ]
    fork = await session.fork(job.fork, at=shared[-1])
    await fork.cells.put("turn", FORK_TURN)  # cells are copied as they are now
    send(Forked(FORK_TURN, job.fork))
    await asyncio.gather(
        work(session, CONTINUED, "t", workspace, job.pace),
        work(fork, ALTERNATIVE, "f", workspace, job.pace),
    )


async def watcher(job: Job, scope: Scope) -> None:
    """Report every entry as it comes, until told to stop."""
    session = scope.session(job.session)
    send(Ready(0, 0))
    async for entry in session.watch(after=START):
        speaker, text = speaker_and_text(entry.value)
        sighting = Sighting(entry.position, entry.value["id"])
        send(Seen(sighting, f"{speaker}: {clip(' '.join(text.split()), 60)}"))


async def cleaner(job: Job, scope: Scope) -> None:
    """Delete the sessions that the demo made."""
    for id in (job.session, job.fork, job.long):
        await scope.delete(id)


async def run(job: Job) -> None:
    """Do the job."""
    async with Store(job.url, tenant=job.tenant, kind=job.kind) as store:
        match job.role:
            case Role.AGENT:
                await agent(job, store)
            case Role.CLOSER:
                await closer(job, store)
            case Role.WATCHER:
                await watcher(job, store)
            case Role.PROVER:
                assert job.claim is not None
                for verdict in await prove(store, job.session, job.fork, job.claim):
                    send(verdict)
            case Role.CLEANER:
                await cleaner(job, store)
            case Role.MEASURER:
                pass
    if job.role is Role.MEASURER:  # opens the store itself, twice
        send(await measure(job))


def main() -> int:
    """Read the job, do it, and end when it is done or the parent has gone."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        asyncio.run(run(job))
    except PerdureError as error:
        send(Failed(str(error)))
        return 1
    except BrokenPipeError:
        return 1
    return 0


def _end_with_parent() -> None:
    # Not through sys.stdin: its lock would be held when the interpreter shuts down.
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
