"""What it costs to save a document again that has grown by a turn, whatever its length."""

import asyncio
import sqlite3
from itertools import chain
from pathlib import Path
from random import Random
from time import perf_counter, process_time

import perdure
from perdure.forwarding import Forwarding
from perdure.types import Commit, Committed, SessionKey

from benchmarks.contenders import encode
from benchmarks.effort import Effort, step
from benchmarks.sampling import Samples, settle
from benchmarks.table import Row, Table, Target, Values
from benchmarks.workload import Turn, Workload
from perdure_sqlite.backend import SqliteBackend

SIZES = {"10 KB": 10_000, "1 MB": 1_000_000, "10 MB": 10_000_000}
"""How long the document is at first: half of it messages, half text files."""

LONGEST = "10 MB"

SENT = 64
"""KiB that a save of the longest may send."""

CPU = 100
"""ms that it may take."""

BARE, OURS = "bare", "sqlite"

HOW = (
    "A document {messages, files} is saved again with a turn more. bare: sqlite3 and msgspec, "
    "the whole value in one UPDATE, in a thread. sent: bytes of keys and values. CPU: of the "
    "process, threads included."
)

Document = dict[str, list[Turn] | dict[str, str]]


class Sent(Forwarding):
    """Counts the bytes of keys and values that commits carry."""

    bytes = 0

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.bytes += sum(len(item_key) + len(value) for item_key, value in commit.puts)
        return await super().commit(key, commit)


class BareDocuments:
    """One row for each document, replaced as a whole. WAL and ``synchronous=FULL``."""

    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(
            directory / "bare.db", isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE documents (session TEXT PRIMARY KEY, body BLOB)")
        self.bytes = 0

    async def save(self, session: str, document: Document) -> None:
        """Write all of it."""
        body = encode(document)
        self.bytes += len(body)
        await asyncio.to_thread(
            self._db.execute, "INSERT OR REPLACE INTO documents VALUES (?, ?)", (session, body)
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def measure(effort: Effort, directory: Path, seed: int) -> Table:
    """The table. ``directory`` takes the databases."""
    folder = directory / "documents"
    folder.mkdir()
    with step("documents"):
        rows = asyncio.run(_measure(effort, folder, seed))
    return Table("documents", (BARE, OURS), rows, [HOW])


async def _measure(effort: Effort, directory: Path, seed: int) -> list[Row]:
    bare = BareDocuments(directory)
    sent = Sent(SqliteBackend(directory / "perdure.db"))
    store = perdure.Store(sent)
    workload = Workload(seed)
    rows: list[Row] = []
    for size, length in SIZES.items():
        document, messages = _document(workload, length)
        times, work = Samples[str](), Samples[str]()
        for save in (bare.save, store.save):
            await save(size, document)
        bare.bytes = sent.bytes = 0
        most = 0
        settle()
        for _ in range(effort.loads):
            messages.append(workload.turn())
            before = sent.bytes
            for name, save in ((BARE, bare.save), (OURS, store.save)):
                began, worked = perf_counter(), process_time()
                await save(size, document)
                work.add(name, process_time() - worked)
                times.add(name, perf_counter() - began)
            most = max(most, sent.bytes - before)
        await _check(store, size, document)
        longest = size == LONGEST
        carried = {BARE: bare.bytes / effort.loads / 1024, OURS: most / 1024}
        cpu = _medians(work)
        rows += [
            _row(f"{size} again: sent, at most", "KiB", carried, SENT if longest else None),
            _row(f"{size} again, p50", "ms", _medians(times)),
            _row(f"{size} again, CPU", "ms", cpu, CPU if longest else None),
        ]
    bare.close()
    await store.aclose()
    return rows


async def _check(store: perdure.Store, session: str, document: Document) -> None:
    """What was measured has done what it should."""
    if await store.load(session) != document:
        raise AssertionError("the document is not what was saved")


def _document(workload: Workload, length: int) -> tuple[Document, list[Turn]]:
    random = Random(length)
    turns: list[Turn] = []
    size = 0
    while size < length // 2:
        turns.append(workload.turn())
        size += len(encode(turns[-1]))
    files: dict[str, str] = {}
    each = 1 if length < 100_000 else 12
    while size < length:
        parts = [str(item).replace(". ", ".\n") for item in chain(*workload.turns(each))]
        files[f"src/{random.getrandbits(40):010x}.txt"] = "\n".join(parts)
        size += sum(map(len, parts))
    return {"messages": turns, "files": files}, turns


def _medians(samples: Samples[str]) -> Values:
    return {name: 1e3 * samples.median(name) for name in (BARE, OURS)}


def _row(measure: str, unit: str, values: Values, most: float | None = None) -> Row:
    target = None if most is None else Target(most)
    judged = values[OURS] if target else values[OURS] / values[BARE]
    return Row(measure=measure, unit=unit, values=values, judged=judged, target=target)
