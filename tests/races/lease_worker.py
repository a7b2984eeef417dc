"""One process that takes exclusive turns: ``python -m tests.races.lease_worker``.

It reads a :class:`Task` as a line of JSON and says what it does, a word a line. It may be
stopped and killed at any time; what it was told by then is in its notes.
"""

import asyncio
import random
import sys
from pathlib import Path

import msgspec

from perdure import LeaseLost, Session, Store


class Task(msgspec.Struct, frozen=True):
    """What the process is to do."""

    url: str
    tenant: str
    work: str
    """``hold``: take one turn, and end it when told so. ``race``: take turns, for ever."""
    sessions: int = 1
    lease: float = 0.3
    notes: str = ""


def say(word: str) -> None:
    print(word, flush=True)


async def hold(session: Session, lease: float) -> None:
    say("asking")
    try:
        async with session.turn(exclusive=True, wait=60, lease=lease) as turn:
            say("held")
            turn.append("child")
            await asyncio.to_thread(sys.stdin.readline)
    except LeaseLost:
        say("lost")
    else:
        say("committed")


async def race(session: Session, notes: Path, lease: float) -> None:
    """Note every turn that was acknowledged, and every lease lost."""
    while True:
        try:
            async with session.turn(exclusive=True, wait=60, lease=lease) as turn:
                assert turn.lease is not None
                last = await turn.entries(last=1)
                entry = [last[0][0] + 1 if last else 0, turn.lease.fence]
                await asyncio.sleep(random.uniform(0, lease))
                turn.append(entry)
        except LeaseLost:
            line = f"{session.key.id} lost"
        else:
            line = f"{session.key.id} {entry[0]} {entry[1]}"
        with notes.open("a") as file:
            file.write(line + "\n")


async def main() -> None:
    task = msgspec.json.decode(await asyncio.to_thread(sys.stdin.readline), type=Task)
    async with Store(task.url, tenant=task.tenant) as store:
        sessions = [store.session(str(n)) for n in range(task.sessions)]
        if task.work == "hold":
            await hold(sessions[0], task.lease)
        else:
            say("racing")
            async with asyncio.TaskGroup() as group:
                for session in sessions:
                    group.create_task(race(session, Path(task.notes), task.lease))


if __name__ == "__main__":
    asyncio.run(main())
