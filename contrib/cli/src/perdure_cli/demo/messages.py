"""What the demo's processes tell one another: JSON Lines, a job down and reports up."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from perdure import PerdureError, Position, Store

DEADLINE = 8.0
"""Seconds after which the demo gives a store up: people watch."""


class ToolCall(msgspec.Struct, frozen=True):
    """The model wants a tool called."""

    name: str
    arguments: dict[str, str | list[str]]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of the agent's log."""

    id: str
    """Unlike that of any other message ever."""
    turn: int
    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()


class Turn(msgspec.Struct, kw_only=True):
    """A turn that an agent set out to write, as the parent was told."""

    turn: int
    entries: tuple[Message, ...]
    acknowledged: bool = False


class Sighting(msgspec.Struct, frozen=True):
    """An entry as the watcher was given it."""

    position: Position
    entry: object


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent was told, and now wants proved."""

    session: list[Turn]
    fork: list[Turn]
    seen: list[Sighting]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do. Comes on standard input, so that no URL shows in a list of
    processes; when standard input closes, the parent has gone and the process ends."""

    url: str | None
    tenant: str
    kind: str
    session: str
    workspace: str
    """The directory that the agents' tools work in."""
    pace: float
    """Seconds that the scripted model thinks, so that people can follow."""
    fork_after: int | None = None
    """Once done, the agent forks the session behind this turn and goes on with both."""
    claim: Claim | None = None
    """What there is to prove."""
    directory: str | None = None
    """Where to run; it holds the usual store's files and nothing else. ``None``: the URL names
    a store, and relative to where the user is."""

    @property
    def fork(self) -> str:
        """Id of the fork."""
        return f"{self.session}-fork"

    @property
    def long(self) -> str:
        """Id of the session that is measured."""
        return f"{self.session}-long"

    def with_claim(self, claim: Claim) -> "Job":
        """The prover's job in the same run."""
        return msgspec.structs.replace(self, claim=claim)

    def store(self) -> Store:
        """The store, not connected yet."""
        return Store(self.url, tenant=self.tenant, kind=self.kind, deadline=DEADLINE)


class Watching(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The watcher is connected, and tells where."""

    backend: str
    location: str
    durability: str


class Seen(msgspec.Struct, frozen=True, tag=True):
    """The watcher was given an entry."""

    sighting: Sighting
    at: float
    """When, in seconds since the epoch."""


class Resumed(msgspec.Struct, frozen=True, tag=True):
    """An agent is ready. ``turn`` is the last one that it found in the store, 0 if none."""

    turn: int
    entries: int


class Writing(msgspec.Struct, frozen=True, tag=True):
    """The agent commits a turn. Promises nothing."""

    session: str
    turn: int
    entries: tuple[Message, ...]


class Acknowledged(msgspec.Struct, frozen=True, tag=True):
    """The store has acknowledged the turn."""

    session: str
    turn: int
    ms: float
    """How long persisting it took."""
    at: float


class Answered(msgspec.Struct, frozen=True, tag=True):
    """The agent has answered a question."""

    session: str
    text: str


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The session was forked behind a turn."""

    fork: str
    turn: int


class Progress(msgspec.Struct, frozen=True, tag=True):
    """So many turns of the long session are written."""

    turns: int


class Measured(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the turns of a long session cost."""

    turns: int
    payload_bytes: int
    """Size of a turn as JSON, on average."""
    meter: str
    """How bytes were counted, or why they were not."""
    first_bytes: int | None
    """Written per turn over the first turns: the median. ``None``: not counted."""
    last_bytes: int | None
    """The same over the last ones."""
    average_bytes: int | None
    """Over all turns, with whatever the store put off."""
    first_ms: float
    last_ms: float

    @property
    def bytes_ratio(self) -> float | None:
        """Bytes of a late turn over bytes of an early one."""
        if not self.first_bytes or not self.last_bytes:
            return None
        return self.last_bytes / self.first_bytes

    @property
    def time_ratio(self) -> float:
        """Duration of a late turn over that of an early one."""
        return self.last_ms / self.first_ms


class Verdict(msgspec.Struct, frozen=True, tag=True):
    """One thing that was to be proved."""

    name: str
    """For scripts."""
    claim: str
    """For people."""
    ok: bool
    detail: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The process cannot go on, and ends."""

    reason: str


Report = (
    Watching
    | Seen
    | Resumed
    | Writing
    | Acknowledged
    | Answered
    | Forked
    | Progress
    | Measured
    | Verdict
    | Failed
)

_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def send(report: Report) -> None:
    """Hand a report to the parent at once: it must not be lost in a buffer by a SIGKILL."""
    left = msgspec.json.encode(report) + b"\n"
    while left:
        left = left[os.write(1, left) :]


def decode(line: bytes) -> Report:
    """A report as it came through the pipe. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(line)


def perform(work: Callable[[Job], Awaitable[None]]) -> None:
    """Be one of the demo's processes: read the job, do it, and exit when it is done or the
    parent has gone."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    async def main() -> None:
        await work(job)

    try:
        asyncio.run(main())
    except (PerdureError, OSError) as error:
        with suppress(BrokenPipeError):
            send(Failed(str(error)))
        sys.exit(1)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)
