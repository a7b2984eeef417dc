"""What stands in for a model: replies that follow a script.

As with a model, a reply depends on the history and on nothing else. An entry that was lost,
doubled or out of order would lead to another answer.
"""

from collections.abc import Sequence

import msgspec

from perdure_cli.demo.messages import Message, ToolCall
from perdure_cli.demo.tools import amounts

TOTAL = "What did all shops sell together?"
BEST = "And which one sold most?"
AVERAGE = "Stop there: what did a shop sell on average, of those you have read?"


class Reply(msgspec.Struct, frozen=True):
    """What the model says, and the tool that it wants called; none: this is the answer."""

    text: str
    call: ToolCall | None = None


def reply(history: Sequence[Message]) -> Reply:
    """The model's next message."""
    results = _results(history)
    question = next(m.content for m in reversed(history) if m.role == "user")
    if question == TOTAL:
        return _total(results)
    sums = _sums(results)
    if question == BEST:
        best = results.get(_key("largest", numbers=list(sums.values())))
        if best is None:
            return _calling("Comparing the shops.", "largest", numbers=list(sums.values()))
        name = next(name for name, sold in sums.items() if sold == best)
        return Reply(f"{_shop(name)} sold most: {best}.")
    total = results.get(_key("add", numbers=list(sums.values())))
    if total is None:
        return _calling("Adding up these shops.", "add", numbers=list(sums.values()))
    count = str(len(sums))
    average = results.get(_key("divide", dividend=total, divisor=count))
    if average is None:
        return _calling("Dividing.", "divide", dividend=total, divisor=count)
    return Reply(f"{count} shops sold {average} each on average.")


def _total(results: dict[bytes, str]) -> Reply:
    listing = results.get(_key("list_files"))
    if listing is None:
        return _calling("Let me see what there is.", "list_files")
    for name in listing.split():
        table = results.get(_key("read_file", name=name))
        if table is None:
            return _calling(f"Reading what {_shop(name)} sold.", "read_file", name=name)
        if _key("add", numbers=amounts(table)) not in results:
            return _calling(f"Adding up {_shop(name)}.", "add", numbers=amounts(table))
    sums = list(_sums(results).values())
    total = results.get(_key("add", numbers=sums))
    if total is None:
        return _calling("Adding up the shops.", "add", numbers=sums)
    return Reply(f"The {len(sums)} shops sold {total} together.")


def _sums(results: dict[bytes, str]) -> dict[str, str]:
    """What each shop sold, of those whose file was read and added up."""
    found: dict[str, str] = {}
    for name in results.get(_key("list_files"), "").split():
        table = results.get(_key("read_file", name=name))
        sold = results.get(_key("add", numbers=amounts(table))) if table else None
        if sold is not None:
            found[name] = sold
    return found


def _results(history: Sequence[Message]) -> dict[bytes, str]:
    """What the calls in the history returned: a result follows its call."""
    found: dict[bytes, str] = {}
    call: ToolCall | None = None
    for message in history:
        if message.role == "tool" and call is not None:
            found[_key(call.name, **call.arguments)] = message.content
        call = message.tool_calls[0] if message.tool_calls else None
    return found


def _calling(text: str, name: str, /, **arguments: str | list[str]) -> Reply:
    return Reply(text, ToolCall(name, arguments))


def _key(name: str, /, **arguments: str | list[str]) -> bytes:
    return msgspec.json.encode((name, arguments), order="sorted")


def _shop(name: str) -> str:
    return name.removesuffix(".csv").title()
