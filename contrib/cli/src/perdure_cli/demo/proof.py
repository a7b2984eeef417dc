"""The proof: what the parent was told, held against what a fresh store holds."""

from collections import Counter
from collections.abc import Sequence

from perdure import Scope

from perdure_cli.demo.messages import Claim, Verdict
from perdure_cli.demo.script import Message


async def prove(scope: Scope, session: str, fork: str, claim: Claim) -> list[Verdict]:
    """One verdict for each thing claimed. Reads everything from the store; trusts nothing."""
    main, branch = scope.session(session), scope.session(fork)
    log, branch_log = await main.entries(), await branch.entries()
    ids = [entry["id"] for entry in log]
    lineage = await branch.lineage()
    prefix = [entry for entry in log if entry["turn"] <= claim.fork_turn]
    return [
        _exactly_once("session", ids, claim.acknowledged),
        _in_order(ids, claim.acknowledged),
        _whole_turns(log, await main.cells.get("turn")),
        _same_as_seen(list(zip(log.positions, ids, strict=True)), claim),
        _exactly_once("fork", [entry["id"] for entry in branch_log], claim.fork_acknowledged),
        _forked(log, branch_log, prefix),
        Verdict(
            "the fork knows what it came from",
            lineage is not None and lineage.parent == main.key,
            f"{lineage.parent.id} behind turn {claim.fork_turn}" if lineage else "no lineage",
        ),
    ]


def _exactly_once(what: str, ids: Sequence[str], acknowledged: Sequence[str]) -> Verdict:
    counts = Counter(ids)
    missing = [id for id in acknowledged if counts[id] == 0]
    doubled = [id for id, count in counts.items() if count > 1]
    detail = f"{len(acknowledged)} acknowledged, {len(ids)} in the store"
    if missing:
        detail += f", missing: {', '.join(missing)}"
    if doubled:
        detail += f", more than once: {', '.join(doubled)}"
    return Verdict(
        f"every acknowledged entry of the {what} is there exactly once",
        bool(acknowledged) and not missing and not doubled,
        detail,
    )


def _in_order(ids: Sequence[str], acknowledged: Sequence[str]) -> Verdict:
    wanted = set(acknowledged)
    found = [id for id in ids if id in wanted]
    wrong = next(
        (
            n
            for n, pair in enumerate(zip(found, acknowledged, strict=False))
            if pair[0] != pair[1]
        ),
        None,
    )
    ok = found == list(acknowledged)
    where = "" if wrong is None else f", first at {found[wrong]}"
    return Verdict(
        "and in the order in which it was acknowledged",
        ok,
        "same order" if ok else f"another order or number{where}",
    )


def _whole_turns(log: Sequence[Message], counted: object) -> Verdict:
    """Turns 1, 2, 3 …, each with all its parts: no turn is there by half, or twice."""
    places = [(entry.get("turn"), entry.get("part")) for entry in log]
    turns = max((entry.get("turn", 0) for entry in log), default=0)
    parts = {entry.get("turn", 0): entry.get("parts", 0) for entry in log}
    whole = [
        (turn, part + 1) for turn in range(1, turns + 1) for part in range(parts.get(turn, 0))
    ]
    ok = places == whole and turns == counted and set(parts) == set(range(1, turns + 1))
    return Verdict(
        "no turn is there by half or twice, and the counter agrees",
        ok,
        f"{turns} turns, counter {counted}",
    )


def _same_as_seen(log: Sequence[tuple[str, str]], claim: Claim) -> Verdict:
    seen = [(sighting.position, sighting.id) for sighting in claim.seen]
    return Verdict(
        "the watcher saw the same entries at the same positions, live",
        seen == list(log),
        f"{len(seen)} seen, {len(log)} in the store",
    )


def _forked(
    log: Sequence[Message], branch: Sequence[Message], prefix: Sequence[Message]
) -> Verdict:
    shared = len(prefix)
    same = bool(prefix) and list(branch[:shared]) == list(prefix)
    rest, branch_rest = log[shared:], branch[shared:]
    differ = bool(rest) and bool(branch_rest) and rest[0] != branch_rest[0]
    return Verdict(
        "the fork shares its past with the session and then goes its own way",
        same and differ,
        f"{shared} entries shared, then {len(rest)} and {len(branch_rest)}"
        + ("" if same else "; the shared ones are not the same")
        + ("" if differ else "; they do not part"),
    )
