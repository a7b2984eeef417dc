"""The command: measures what is asked for, prints a table for each."""

import argparse
import asyncio
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks import (
    attachments,
    documents,
    encryption,
    events,
    listing,
    local,
    loops,
    merging,
    network,
    processor,
    serverless,
    servers,
    startup,
)
from benchmarks.effort import FULL, QUICK, Effort, step
from benchmarks.table import Table, show
from tests.services.server import ServerMissing

SEED = 20261122


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    effort: Effort
    directory: Path
    """Empty; takes the databases."""
    redis_url: str | None = None
    postgres_url: str | None = None


def main() -> None:
    """Run the command with the arguments of the process."""
    arguments = _parser().parse_args()
    effort = QUICK if arguments.quick else FULL
    if arguments.turns:
        effort = msgspec.structs.replace(effort, lengths=arguments.turns)
    load = _load()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-", dir=arguments.dir) as directory:
        options = Options(
            effort=effort,
            directory=Path(directory),
            redis_url=arguments.redis_url,
            postgres_url=arguments.postgres_url,
        )
        tables, missing = _measure(arguments.only, options)
    for table in tables:
        show(table)
    notes = [*missing, *_notes(tables, load)]
    print("\n".join(notes))
    if arguments.json is not None:
        written = {"tables": [_with_verdicts(table) for table in tables], "notes": notes}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(written)))


def _measure(sections: Sequence[str], options: Options) -> tuple[list[Table], list[str]]:
    """The tables, and which are missing for want of a server."""
    tables: list[Table] = []
    missing: list[str] = []
    for name in sections:
        try:
            tables.append(SECTIONS[name](options))
        except ServerMissing as error:
            missing.append(f"{name} is not measured: {error}")
    return tables, missing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures perdure against bare drivers and msgspec doing the same writes, "
        "interleaved, and prints a table for each backend and one for perdure itself.",
    )
    parser.add_argument(
        "--only",
        type=_sections,
        default=tuple(SECTIONS),
        metavar="SECTION,...",
        help=f"what to measure (default: {','.join(SECTIONS)})",
    )
    parser.add_argument(
        "--turns",
        type=_lengths,
        metavar="N,N,...",
        help="lengths of sessions to measure at (default: 10,1000,5000)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="too few measurements to mean anything"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="DIRECTORY",
        help="put the databases there (default: the system's temporary directory)",
    )
    for name, variable in (("redis", REDIS_VARIABLE), ("postgres", POSTGRES_VARIABLE)):
        parser.add_argument(
            f"--{name}-url",
            default=os.environ.get(variable),
            metavar="URL",
            help=f"measure on that server (default: ${variable}, else one started for it); "
            "what is stored there goes when the run ends",
        )
    return parser


REDIS_VARIABLE = "PERDURE_TEST_REDIS_URL"
POSTGRES_VARIABLE = "PERDURE_TEST_POSTGRES_URL"


def _sqlite(options: Options) -> Table:
    return local.measure(options.effort, options.directory, SEED)


def _redis(options: Options) -> Table:
    with servers.redis(options.directory / "redis", options.redis_url) as server:
        return asyncio.run(network.measure(server, network.REDIS, options.effort, SEED))


def _postgres(options: Options) -> Table:
    with servers.postgres(options.directory / "postgres", options.postgres_url) as server:
        return asyncio.run(network.measure(server, network.POSTGRES, options.effort, SEED))


def _dynamodb(options: Options) -> Table:
    with serverless.dynamodb(options.directory / "dynamodb") as server:
        return asyncio.run(network.measure(server, network.DYNAMODB, options.effort, SEED))


def _durable_objects(options: Options) -> Table:
    with serverless.durable_objects(options.directory / "durable-objects") as server:
        return asyncio.run(
            network.measure(server, network.DURABLE_OBJECTS, options.effort, SEED)
        )


def _core(options: Options) -> Table:
    with step("core: CPU time"):
        rows = asyncio.run(processor.measure(options.effort, SEED))
    with step("core: events"):
        rows += asyncio.run(events.measure(options.effort, SEED))
    with step("core: start-up"):
        started, plugins = startup.measure(options.effort.runs)
    return Table("core", ("bare", "memory"), rows + started, [plugins])


def _merging(options: Options) -> Table:
    urls = {"redis": options.redis_url, "postgres": options.postgres_url}
    return merging.measure(options.effort, options.directory, SEED, urls)


def _loops(options: Options) -> Table:
    urls = {"redis": options.redis_url, "postgres": options.postgres_url}
    return loops.measure(options.effort, options.directory, SEED, urls)


def _listing(options: Options) -> Table:
    urls = {"redis": options.redis_url, "postgres": options.postgres_url}
    return listing.measure(options.effort, options.directory, urls)


def _documents(options: Options) -> Table:
    return documents.measure(options.effort, options.directory, SEED)


def _attachments(options: Options) -> Table:
    urls = {"redis": options.redis_url, "postgres": options.postgres_url}
    return attachments.measure(options.effort, options.directory, SEED, urls)


def _encryption(options: Options) -> Table:
    urls = {"redis": options.redis_url, "postgres": options.postgres_url}
    return encryption.measure(options.effort, options.directory, SEED, urls)


SECTIONS: Mapping[str, Callable[[Options], Table]] = {
    "sqlite": _sqlite,
    "redis": _redis,
    "postgres": _postgres,
    "dynamodb": _dynamodb,
    "durable-objects": _durable_objects,
    "core": _core,
    "loops": _loops,
    "merging": _merging,
    "listing": _listing,
    "documents": _documents,
    "attachments": _attachments,
    "encryption": _encryption,
}


def _notes(tables: list[Table], load: float | None) -> list[str]:
    """What to know about all of it. ``load``: before the start."""
    judged = [row for table in tables for row in table.rows if row.verdict]
    met = sum(row.verdict == "ok" for row in judged)
    notes = [
        f"{met} of {len(judged)} targets met.",
        "judged: the first of ours / bare; of 'turn / append' and of long to short sessions "
        "the worst of ours; else the value itself. All in a table is interleaved.",
        f"Python {platform.python_version()}, msgspec {msgspec.__version__}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs.",
    ]
    if load is not None and load > 0.5:
        notes.append(
            f"Others were using this machine ({load:.1f} processes ready to run per CPU before "
            "the start): waits for a CPU or the disk are in these figures."
        )
    return notes


def _load() -> float | None:
    """How busy the machine is: the load average of a minute per CPU."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (OSError, AttributeError):  # not on Windows
        return None


def _with_verdicts(table: Table) -> dict[str, object]:
    rows = [{**msgspec.structs.asdict(row), "verdict": row.verdict} for row in table.rows]
    return {**msgspec.structs.asdict(table), "rows": rows}


def _sections(text: str) -> tuple[str, ...]:
    """Names of sections, in their order."""
    names = set(text.split(","))
    if unknown := names - SECTIONS.keys():
        raise argparse.ArgumentTypeError(f"no section is called {', '.join(sorted(unknown))}")
    return tuple(name for name in SECTIONS if name in names)


def _lengths(text: str) -> tuple[int, ...]:
    """Lengths of sessions, ascending."""
    values = sorted({int(part) for part in text.split(",")})
    if values[0] < 1:
        raise argparse.ArgumentTypeError("a session has at least one turn")
    return tuple(values)
