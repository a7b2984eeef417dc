"""A child process that saves for ever: ``python -m tests.core.saver PATH SEED``.

Prints the number of each save that was acknowledged.
"""

import asyncio
import random
import sys
from itertools import count
from pathlib import Path
from typing import Any

from perdure import Store

from perdure_sqlite.backend import SqliteBackend
from tests.core.documents import chat, message


def grown(seed: int) -> dict[str, Any]:
    """What the document of a seed begins as."""
    return {"n": 0, **chat(1_000_000, seed)}


def grow(document: dict[str, Any], rng: random.Random) -> None:
    """One change of the document: it grows and shrinks and is edited."""
    document["n"] += 1
    messages = document["messages"]
    messages.append(message(rng))
    messages.insert(rng.randrange(len(messages)), message(rng))
    if document["n"] % 5 == 0:
        del messages[rng.randrange(len(messages)) :][:20]
        document["files"]["new"] = messages[0]["content"][0]["text"] * rng.randrange(1, 200)
    if document["n"] % 7 == 0:
        del messages[len(messages) // 3 :]


async def main(path: Path, seed: int) -> None:
    """Save until killed."""
    store = Store(SqliteBackend(path))
    rng = random.Random(seed)
    document = grown(seed)
    for n in count(1):
        grow(document, rng)
        assert document["n"] == n
        await store.save("s", document)
        print(n, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
