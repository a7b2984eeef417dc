"""The agent's tools, and the files that they work on."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import cast

CITIES = ("athens", "bergen", "cadiz", "dublin", "evora", "faro", "gdansk", "haarlem")
GOODS = (
    "atlas",
    "comic",
    "cookbook",
    "dictionary",
    "novel",
    "poems",
    "postcards",
    "travelogue",
)

Arguments = Mapping[str, str | list[str]]


def make_files(directory: Path) -> None:
    """Write what each shop sold, a file per shop. The same every time."""
    directory.mkdir()
    random = Random(20)
    for city in CITIES:
        rows = [
            f"{item},{random.randint(100, 99_999) / 100:.2f}"
            for item in random.sample(GOODS, 5)
        ]
        text = "\n".join(["item,sold", *rows])
        (directory / f"{city}.csv").write_text(f"{text}\n", encoding="utf-8")


def sales_of(directory: Path) -> dict[str, Decimal]:
    """What each file adds up to, computed without any agent."""
    return {
        path.name: sum(map(Decimal, amounts(path.read_text(encoding="utf-8"))), Decimal(0))
        for path in sorted(directory.glob("*.csv"))
    }


def amounts(table: str) -> list[str]:
    """The second column of a table, without its title."""
    return [line.split(",")[1] for line in table.split()[1:]]


def _list_files(directory: Path, arguments: Arguments) -> str:
    del arguments
    return "\n".join(sorted(path.name for path in directory.glob("*.csv")))


def _read_file(directory: Path, arguments: Arguments) -> str:
    return (directory / cast("str", arguments["name"])).read_text(encoding="utf-8")


def _add(directory: Path, arguments: Arguments) -> str:
    del directory
    return str(sum(map(Decimal, arguments["numbers"]), Decimal(0)))


def _largest(directory: Path, arguments: Arguments) -> str:
    del directory
    return str(max(map(Decimal, arguments["numbers"])))


def _divide(directory: Path, arguments: Arguments) -> str:
    del directory
    dividend, divisor = cast("str", arguments["dividend"]), cast("str", arguments["divisor"])
    return str((Decimal(dividend) / Decimal(divisor)).quantize(Decimal("0.01")))


TOOLS: dict[str, Callable[[Path, Arguments], str]] = {
    "list_files": _list_files,
    "read_file": _read_file,
    "add": _add,
    "largest": _largest,
    "divide": _divide,
}
"""By name; each takes the directory and the arguments of the call, and returns text."""
