"""What the demo's processes tell one another: JSON Lines, a job down and reports up."""

import sys
from enum import Enum

import msgspec


class Role(Enum):
    """What a process of the demo is there for."""

    AGENT = "agent"
    """Work through the script from where the log ends, until killed or done."""
    CLOSER = "closer"
    """The same, then fork the session and continue both."""
    WATCHER = "watcher"
    """Report every entry of the session as it comes."""
    MEASURER = "measurer"
    """Write a long session and report what its turns cost."""
    PROVER = "prover"
    """Hold what was reported against the store."""
    CLEANER = "cleaner"
    """Delete the demo's sessions."""


class Sighting(msgspec.Struct, frozen=True):
    """An entry as somebody saw it."""

    position: str
    id: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent was told, and now wants proved."""

    acknowledged: list[str]
    """Ids of the entries of the session's acknowledged turns, in that order."""
    fork_acknowledged: list[str]
    """The same of the fork."""
    seen: list[Sighting]
    """What the watcher reported, in that order."""
    fork_turn: int
    """The last turn that session and fork have in common."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do. Comes on standard input, so that no URL shows in a list of
    processes; when standard input closes, the parent has gone and the process ends."""

    role: Role
    url: str | None
    tenant: str
    kind: str
    session: str
    workspace: str
    pace: float
    """Seconds that the scripted model thinks."""
    claim: Claim | None = None

    @property
    def fork(self) -> str:
        """Id of the fork."""
        return f"{self.session}-fork"

    @property
    def long(self) -> str:
        """Id of the session that is measured."""
        return f"{self.session}-long"


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Connected. ``turns`` and ``entries``: what was found in the store."""

    turns: int
    entries: int


class Doing(msgspec.Struct, frozen=True, tag=True):
    """About to do something."""

    session: str
    turn: int
    text: str


class Acknowledged(msgspec.Struct, frozen=True, tag=True):
    """The store has acknowledged a turn."""

    session: str
    turn: int
    ids: list[str]
    ms: float
    """Time spent in the store, reading included."""


class Seen(msgspec.Struct, frozen=True, tag=True):
    """The watcher was given an entry."""

    sighting: Sighting
    text: str


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The session was forked behind a turn."""

    turn: int
    fork: str


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far the long session has come."""

    turns: int
    of: int


class Measured(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the turns of a long session cost."""

    turns: int
    payload_bytes: int
    """Size of a turn as JSON."""
    meter: str | None
    """How bytes were measured; ``None``: there was no way."""
    first_bytes: int | None = None
    """Written per turn over the first turns: the median."""
    last_bytes: int | None = None
    """The same over the last ones."""
    average_bytes: int | None = None
    """Over all turns, whatever the store did beside them included."""
    median_ms: float
    """Of all turns, reading included."""
    early_ms: float
    """Of the first hundred, once warm."""
    late_ms: float
    """Of the last hundred."""

    @property
    def ratio(self) -> float | None:
        """Bytes of a late turn over bytes of an early one."""
        if self.first_bytes is None or self.last_bytes is None or not self.first_bytes:
            return None
        return self.last_bytes / self.first_bytes


class Verdict(msgspec.Struct, frozen=True, tag=True):
    """One thing that was to be proved."""

    claim: str
    ok: bool
    detail: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The process cannot go on."""

    reason: str


Report = Ready | Doing | Acknowledged | Seen | Forked | Progress | Measured | Verdict | Failed

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def send(report: Report) -> None:
    """Hand a report to the parent at once: it must not be lost in a buffer by a SIGKILL."""
    sys.stdout.buffer.write(_encoder.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def decode(line: bytes) -> Report:
    """A report as it came through the pipe."""
    return _decoder.decode(line)
