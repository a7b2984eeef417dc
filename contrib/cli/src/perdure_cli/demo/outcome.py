"""What happened in a run of the demo, as the parent was told."""

from signal import Signals
from statistics import median

import msgspec

from perdure_cli.demo.messages import (
    Acknowledged,
    Answered,
    Claim,
    Forked,
    Measured,
    Report,
    Resumed,
    Seen,
    Turn,
    Verdict,
    Watching,
    Writing,
)


class Branch(msgspec.Struct):
    """What the agents did in one session."""

    turns: list[Turn] = []
    answers: list[str] = []

    @property
    def acknowledged(self) -> int:
        """Turns acknowledged."""
        return sum(turn.acknowledged for turn in self.turns)

    @property
    def entries(self) -> int:
        """Entries acknowledged."""
        return sum(len(turn.entries) for turn in self.turns if turn.acknowledged)


class Kill(msgspec.Struct, frozen=True):
    """The end of the first agent."""

    pid: int
    status: int
    """Its exit status: minus the number of the signal."""
    turn: int
    """The turn that it was told to be writing."""
    acknowledged: int
    """The last turn acknowledged, by the reports that were left in its pipe too."""

    @property
    def signal(self) -> str | None:
        """Name of the signal that ended it, if one did."""
        return Signals(-self.status).name if self.status < 0 else None


class Outcome(msgspec.Struct, kw_only=True):
    """All that the processes reported."""

    session: Branch = msgspec.field(default_factory=Branch)
    fork: Branch = msgspec.field(default_factory=Branch)
    fork_id: str = ""
    store: Watching | None = None
    kill: Kill | None = None
    resumed: Resumed | None = None
    seen: list[Seen] = []
    turn_ms: list[float] = []
    measured: Measured | None = None
    verdicts: list[Verdict] = []
    seconds: float = 0.0
    _acknowledged_at: dict[str, float] = {}

    def take(self, report: Report) -> None:
        """Note what a process reported."""
        match report:
            case Watching():
                self.store = report
            case Seen():
                self.seen.append(report)
            case Resumed():
                self.resumed = report
            case Writing(session=session, turn=number, entries=entries):
                turn = Turn(turn=number, entries=entries)
                self.branch(session).turns.append(turn)
            case Acknowledged(session=session, ms=ms, at=at):
                turn = self.branch(session).turns[-1]
                turn.acknowledged = True
                self.turn_ms.append(ms)
                self._acknowledged_at.update((entry.id, at) for entry in turn.entries)
            case Answered(session=session, text=text):
                self.branch(session).answers.append(text)
            case Forked(fork=fork):
                self.fork_id = fork
            case Measured():
                self.measured = report
            case Verdict():
                self.verdicts.append(report)
            case _:
                pass

    def branch(self, session: str) -> Branch:
        """Where what concerns a session is noted."""
        return self.fork if session == self.fork_id else self.session

    @property
    def claim(self) -> Claim:
        """What is to be proved."""
        seen = [report.sighting for report in self.seen]
        return Claim(session=self.session.turns, fork=self.fork.turns, seen=seen)

    @property
    def last_entry(self) -> str | None:
        """Id of the entry of the session that was acknowledged last."""
        done = [turn for turn in self.session.turns if turn.acknowledged]
        return done[-1].entries[-1].id if done else None

    @property
    def proved(self) -> bool:
        """Whether there is a proof, and all of it holds."""
        return bool(self.verdicts) and all(verdict.ok for verdict in self.verdicts)

    @property
    def turn_ms_median(self) -> float:
        """Of the agents' turns."""
        return median(self.turn_ms)

    @property
    def lag_ms_median(self) -> float | None:
        """From an acknowledgement until the watcher had the entry. Less than nothing, where
        it had it before the agent had its acknowledgement."""
        lags = [
            (report.at - self._acknowledged_at[id]) * 1000
            for report in self.seen
            if (id := seen_in(report).id) in self._acknowledged_at
        ]
        return median(lags) if lags else None


class Identity(msgspec.Struct):
    """As much of an entry as tells which one it is."""

    id: str = ""
    turn: int = 0


def seen_in(report: Seen) -> Identity:
    """Which entry the watcher was given."""
    return msgspec.convert(report.sighting.entry, Identity)
