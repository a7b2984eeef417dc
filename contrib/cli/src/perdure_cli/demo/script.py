"""The agent of the demo: what its model replies, and the tools that it calls.

The replies are scripted; the tools are real, and so is the dependence on the log: what the
model asks for next is worked out from the results that it finds there.
"""

import ast
import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import msgspec

FILES = {
    "prices.csv": "item,price\nlamp,39.90\nchair,84.50\ndesk,249.00\nshelf,119.00\n",
    "orders-berlin.csv": "item,quantity\nlamp,12\nchair,8\ndesk,3\n",
    "orders-lyon.csv": "item,quantity\nlamp,20\nshelf,9\ndesk,2\n",
    "orders-oslo.csv": "item,quantity\nchair,14\nshelf,4\nlamp,5\n",
    "notes.txt": "Customers ask for 10 % off when they order in bulk. Freight: 120 a city.\n",
}
CITIES = ("berlin", "lyon", "oslo")


class Message(TypedDict, total=False):
    """An entry of the demo's logs: an ordinary chat message with a place in its turn."""

    id: str
    turn: int
    part: int
    parts: int
    role: str
    content: str
    tool_calls: list[dict[str, object]]
    tool: str


class Step(msgspec.Struct, frozen=True):
    """What the model replies once: some text, and perhaps a call of a tool."""

    text: str
    tool: str | None = None
    arguments: dict[str, str] = {}
    question: str | None = None
    """What the user says first."""


Reply = Callable[[Sequence[Message]], Step]


def _results(history: Sequence[Message], tool: str) -> list[str]:
    return [entry.get("content", "") for entry in history if entry.get("tool") == tool]


def _list_files(history: Sequence[Message]) -> Step:
    del history
    return Step(
        "Let me see what there is.",
        "list_files",
        question="Which city's orders are worth most, and what would 10 % off cost us?",
    )


def _read(name: str) -> Reply:
    return lambda history: Step(f"Reading {name}.", "read_file", {"name": name})


def _total(city: str) -> Reply:
    return lambda history: Step(
        f"Adding up {city}.", "order_value", {"name": f"orders-{city}.csv"}
    )


def _sum(history: Sequence[Message]) -> Step:
    totals = " + ".join(_results(history, "order_value")[:3])
    return Step("All three together:", "calculate", {"expression": totals})


def _share(history: Sequence[Message]) -> Step:
    best = max(map(float, _results(history, "order_value")[:3]))
    whole = _results(history, "calculate")[0]
    return Step("The best one's share:", "calculate", {"expression": f"100 * {best} / {whole}"})


def _discount(history: Sequence[Message]) -> Step:
    whole = _results(history, "calculate")[0]
    return Step("10 % off would cost:", "calculate", {"expression": f"{whole} * 0.10"})


def _answer(history: Sequence[Message]) -> Step:
    totals = [float(text) for text in _results(history, "order_value")[:3]]
    best = CITIES[totals.index(max(totals))].title()
    _, share, off = _results(history, "calculate")[:3]
    return Step(
        f"{best} orders most: {max(totals):.2f}, {float(share):.0f} % of all. "
        f"10 % off would cost {float(off):.2f}."
    )


def _freight(history: Sequence[Message]) -> Step:
    off = _results(history, "calculate")[2]
    return Step(
        "Freight as the notes have it, on top:",
        "calculate",
        {"expression": f"{off} + 3 * 120"},
        question="And with freight for all three?",
    )


def _freight_answer(history: Sequence[Message]) -> Step:
    return Step(f"With freight it comes to {float(_results(history, 'calculate')[-1]):.2f}.")


def _without_oslo(history: Sequence[Message]) -> Step:
    berlin, lyon, _ = _results(history, "order_value")[:3]
    return Step(
        "Without Oslo, then:",
        "calculate",
        {"expression": f"{berlin} + {lyon}"},
        question="Suppose that we give Oslo up. What is left?",
    )


def _without_oslo_off(history: Sequence[Message]) -> Step:
    left = _results(history, "calculate")[-1]
    return Step("10 % off that:", "calculate", {"expression": f"{left} * 0.10"})


def _without_oslo_answer(history: Sequence[Message]) -> Step:
    left, off = _results(history, "calculate")[-2:]
    return Step(f"{float(left):.2f} is left, and 10 % off would cost {float(off):.2f}.")


SCRIPT: tuple[Reply, ...] = (
    _list_files,
    _read("prices.csv"),
    _read("orders-berlin.csv"),
    _total("berlin"),
    _read("orders-lyon.csv"),
    _total("lyon"),
    _read("orders-oslo.csv"),
    _total("oslo"),
    _sum,
    _share,
    _read("notes.txt"),
    _discount,
    _answer,
)
FORK_TURN = 8
"""The fork takes another way once all totals are known."""
CONTINUED: tuple[Reply, ...] = (*SCRIPT, _freight, _freight_answer)
ALTERNATIVE: tuple[Reply, ...] = (
    *SCRIPT[:FORK_TURN],
    _without_oslo,
    _without_oslo_off,
    _without_oslo_answer,
)


def messages(step: Step, turn: int, branch: str, workspace: Path) -> list[Message]:
    """The entries of one turn: the tool is called here. ``branch`` tells ids apart."""
    made: list[Message] = []
    if step.question is not None:
        made.append(Message(role="user", content=step.question))
    reply = Message(role="assistant", content=step.text)
    made.append(reply)
    if step.tool is not None:
        reply["tool_calls"] = [{"name": step.tool, "arguments": dict(step.arguments)}]
        result = TOOLS[step.tool](workspace, **step.arguments)
        made.append(Message(role="tool", tool=step.tool, content=result))
    for part, message in enumerate(made, 1):
        message.update(id=f"{branch}{turn:02d}.{part}", turn=turn, part=part, parts=len(made))
    return made


# Tools


def list_files(workspace: Path) -> str:
    """The names of the files, one a line."""
    return "\n".join(sorted(path.name for path in workspace.iterdir()))


def read_file(workspace: Path, name: str) -> str:
    """What is in a file."""
    return (workspace / name).read_text(encoding="utf-8")


def order_value(workspace: Path, name: str) -> str:
    """What the orders in a file are worth at the prices in ``prices.csv``."""
    prices = {row["item"]: float(row["price"]) for row in _table(workspace, "prices.csv")}
    value = sum(int(row["quantity"]) * prices[row["item"]] for row in _table(workspace, name))
    return f"{value:.2f}"


def _table(workspace: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_file(workspace, name))))


_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
}


def calculate(workspace: Path, expression: str) -> str:
    """The value of an expression with numbers and ``+ - * /``. Raises ``ValueError``."""
    del workspace

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case _:
                raise ValueError(f"cannot calculate {expression!r}")

    return f"{value(ast.parse(expression, mode='eval').body):.2f}"


TOOLS: dict[str, Callable[..., str]] = {
    "list_files": list_files,
    "read_file": read_file,
    "order_value": order_value,
    "calculate": calculate,
}
