"""The README's table of what the backends can do, made from what they say themselves."""

from collections.abc import Callable, Mapping

from perdure.backend import Capabilities, Durability, Expiry, Wait

BEGIN, END = "<!-- capabilities -->\n", "<!-- /capabilities -->\n"

DURABILITY = {
    Durability.NONE: "nothing",
    Durability.PROCESS: "a killed process",
    Durability.HOST: "a power loss",
    Durability.REPLICATED: "the loss of a host",
}
WAITS = {Wait.PUSH: "pushed", Wait.POLL: "polled"}
EXPIRES = {Expiry.NATIVE: "the database", Expiry.SWEEP: "`sweep()`"}


ELSEWHERE = {
    "Redis": "as it is set up",  # which is read when connecting
    "Durable Objects": DURABILITY[Durability.REPLICATED],  # here they are in one process
}
"""What cannot be asked on one machine."""


def _durability(name: str, can: Capabilities) -> str:
    return ELSEWHERE.get(name) or DURABILITY[can.durability]


FACTS: dict[str, Callable[[str, Capabilities], str]] = {
    "an acknowledged commit survives": _durability,
    "longest value of one item": lambda _, can: _size(can.max_item_bytes),
    "written at once, larger commits in parts": lambda _, can: _size(can.max_commit_bytes),
    "changes are": lambda _, can: WAITS[can.wait],
    "expired sessions are removed by": lambda _, can: EXPIRES[can.expiry],
    "a new session is listed": lambda _, can: _lag(can.list_lag),
    "the order by recency is right": lambda _, can: _lag(can.recency_lag),
    "its clock is off by at most": lambda _, can: (
        f"{can.clock_error / 1000:g} s" if can.clock_error else "–"
    ),
}
"""What the table says of each."""


def table(capabilities: Mapping[str, Capabilities]) -> str:
    """The table, in Markdown."""
    lines = [["", *capabilities], ["---"] * (len(capabilities) + 1)]
    lines += [
        [fact, *(say(name, can) for name, can in capabilities.items())]
        for fact, say in FACTS.items()
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_table(text: str, capabilities: Mapping[str, Capabilities]) -> str:
    """``text`` with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(capabilities)}{END}{after}"


def _size(size: int) -> str:
    if size >= 1 << 30:
        return "memory"
    mib = size / (1 << 20)
    return f"{mib:.3g} MiB" if mib >= 1 else f"{size / 1024:.3g} KiB"


def _lag(ms: int) -> str:
    return f"within {ms / 1000:g} s" if ms else "at once"
