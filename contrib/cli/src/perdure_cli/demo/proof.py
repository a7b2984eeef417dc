"""The proof: what the parent was told, held against what a fresh store holds.

``python -m perdure_cli.demo.proof`` runs it, with its job on standard input.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from perdure import Scope

from perdure_cli.demo.agent import COUNTER
from perdure_cli.demo.messages import Claim, Job, Sighting, Turn, Verdict, perform, send
from perdure_cli.demo.tools import sales_of


async def prove(scope: Scope, job: Job, claim: Claim) -> list[Verdict]:
    """One verdict for each thing claimed. Reads everything from the store; trusts nothing."""
    session, fork = scope.session(job.session), scope.session(job.fork)
    log, fork_log = await session.entries(), await fork.entries()
    counted = await session.cells.get(COUNTER)
    lineage = await fork.lineage()
    after = job.fork_after or 0
    sightings = [Sighting(p, entry) for p, entry in zip(log.positions, log, strict=True)]
    inherited = [turn for turn in claim.session if turn.turn <= after]
    return [
        exactly_once("session", claim.session, log),
        in_order("session", claim.session, log),
        whole_turns(claim.session, log, counted),
        same_as_seen(claim.seen, sightings),
        exactly_once("fork", [*inherited, *claim.fork], fork_log),
        in_order("fork", [*inherited, *claim.fork], fork_log),
        parted(log, fork_log, after),
        Verdict(
            "lineage",
            "the fork knows what it came from",
            lineage is not None and lineage.parent == session.key,
            f"{lineage.parent.id}, at its version {lineage.version}"
            if lineage
            else "it does not",
        ),
        answers(log, fork_log, sales_of(Path(job.workspace)), after),
    ]


def exactly_once(what: str, turns: Iterable[Turn], log: Iterable[object]) -> Verdict:
    """Every entry of an acknowledged turn is in the log once, as it was written."""
    found = Counter(map(_form, log))
    promised = _acknowledged(turns)
    missing = sum(found[form] == 0 for form in promised)
    doubled = sum(count > 1 for count in found.values())
    return Verdict(
        f"{what}-exactly-once",
        f"every acknowledged entry of the {what} is there exactly once",
        bool(promised) and not missing and not doubled,
        f"{len(promised)} acknowledged, {missing} missing, {doubled} doubled",
    )


def in_order(what: str, turns: Iterable[Turn], log: Iterable[object]) -> Verdict:
    """The acknowledged entries stand in the order in which they were acknowledged."""
    promised = _acknowledged(turns)
    wanted = set(promised)
    found = [form for form in map(_form, log) if form in wanted]
    return Verdict(
        f"{what}-in-order",
        "and in the order in which they were acknowledged",
        found == promised,
        "the same order" if found == promised else "another order, or other entries",
    )


def whole_turns(turns: Sequence[Turn], log: Sequence[object], counted: object) -> Verdict:
    """The log is made of whole turns, 1, 2, 3 …, and the counter agrees.

    A turn that was not acknowledged before the kill may be there, but not by half; if it is
    not, another with its number was written after.
    """
    written = {turn.entries[0].id: turn for turn in turns if turn.entries}
    rest, number = [_form(entry) for entry in log], 0
    held_back = 0
    while rest:
        whole = next(
            (
                t
                for t in written.values()
                if rest[: len(t.entries)] == list(map(_form, t.entries))
            ),
            None,
        )
        if whole is None or whole.turn != number + 1:
            break
        number = whole.turn
        held_back += not whole.acknowledged
        rest = rest[len(whole.entries) :]
    detail = f"{number} turns, the counter says {counted}"
    if held_back:
        detail += f"; the kill kept {held_back} of them from being reported"
    return Verdict(
        "whole-turns",
        "no turn is there by half or twice, and the counter cell agrees",
        not rest and number == counted,
        f"{detail}; behind them stand {len(rest)} entries" if rest else detail,
    )


def same_as_seen(seen: Sequence[Sighting], log: Sequence[Sighting]) -> Verdict:
    """The watcher was given what the log holds, entry for entry and position for position."""
    return Verdict(
        "watcher",
        "the watcher saw the same entries at the same positions, live",
        bool(log) and list(seen) == list(log),
        f"{len(seen)} seen, {len(log)} in the store",
    )


def parted(log: Sequence[object], fork: Sequence[object], after: int) -> Verdict:
    """The fork has the session's turns up to ``after``, and then others."""
    shared = sum(_turn_of(entry) <= after for entry in log)
    same = 0
    while same < min(len(log), len(fork)) and log[same] == fork[same]:
        same += 1
    own, forks_own = len(log) - same, len(fork) - same
    return Verdict(
        "fork",
        f"the fork shares turns 1 to {after} with the session and then goes its own way",
        0 < shared == same and own > 0 and forks_own > 0,
        f"{same} entries shared, then {own} and {forks_own} of their own",
    )


def answers(
    log: Sequence[object], fork: Sequence[object], sales: dict[str, Decimal], after: int
) -> Verdict:
    """What the agents concluded from their history agrees with the files."""
    total = f"shops sold {sum(sales.values())} together."
    best = f"sold most: {max(sales.values())}."
    read = list(sales.values())[: (after - 1) // 2]  # after the listing, two turns a file
    average = (sum(read, Decimal(0)) / max(len(read), 1)).quantize(Decimal("0.01"))
    said = [_text(entry) for entry in log]
    right = (
        any(text.endswith(total) for text in said),
        bool(said) and said[-1].endswith(best),
        bool(fork) and f" shops sold {average} each" in _text(fork[-1]),
    )
    return Verdict(
        "answers",
        "what the agents worked out from their histories is right",
        all(right),
        f"{sum(right)} of {len(right)} answers agree with the files",
    )


def _acknowledged(turns: Iterable[Turn]) -> list[bytes]:
    return [_form(entry) for turn in turns if turn.acknowledged for entry in turn.entries]


def _form(entry: object) -> bytes:
    """Equal for entries that are equal, also if one is still a ``Message``."""
    return msgspec.json.encode(entry, order="sorted")


class _Described(msgspec.Struct):
    """As much of an entry as the proof looks into."""

    turn: int = 0
    content: str = ""


def _turn_of(entry: object) -> int:
    return msgspec.convert(entry, _Described).turn


def _text(entry: object) -> str:
    return msgspec.convert(entry, _Described).content


async def main(job: Job) -> None:
    """Do the job."""
    assert job.claim is not None
    async with job.store() as store:
        for verdict in await prove(store, job, job.claim):
            send(verdict)


if __name__ == "__main__":
    perform(main)
