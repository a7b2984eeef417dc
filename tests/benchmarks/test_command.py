"""The benchmark command runs to its end, and its tables say what they promise to say."""

import subprocess
import sys

import msgspec
import pytest
from psycopg import AsyncConnection

from benchmarks.bare_redis import connect
from benchmarks.table import Target
from tests.quality.workspace import ROOT
from tests.services.node import DYNOXIDE, ESBUILD, WORKERD, program

FLAT = {
    "append, p50: 6 / 3 turns": Target(1.15),
    "last 20 items, cold: 6 / 3 turns": Target(1.15),
}
LONGER = {
    **FLAT,
    "warm turn / append": Target(1.5),
    "full load, cold": Target(1.3),
}
TRIPS = {
    "append: round trips": Target(1),
    "warm turn: round trips": Target(2),
    "full load, warm: round trips": Target(1),
    "full load, cold: round trips": Target(1),
    "last 20 items, cold: round trips": Target(1),
}
WIRE = {"append: sent besides payload, ids": Target(250), **TRIPS}
TARGETS = {
    "sqlite": {
        "append, p50": Target(1.5),
        **LONGER,
        "written per turn: 6 / 3 turns": Target(1.15),
        "32 sessions": Target(2.5, at_least=True),
        "32 sessions, fsync +2 ms": Target(5, at_least=True),
    },
    "redis": {
        "append, p50": Target(1.4),
        **LONGER,
        "32 sessions": Target(1.5, at_least=True),
        "append, CPU of the client": Target(100),
        **WIRE,
    },
    "postgres": {
        "append, p50": Target(1.6),
        **LONGER,
        "32 sessions": Target(1.2, at_least=True),
        "append, CPU of the client": Target(250),
        **WIRE,
    },
    "dynamodb": {
        "append, p50": Target(1.4),
        **FLAT,
        "full load, cold": Target(1.4),
        "append, CPU of the client": Target(1.4),
        **TRIPS,
        "append: write units": Target(1),
        "turn with cells: write units": Target(2),
    },
    "durable-objects": {
        "append, p50": Target(1.4),
        **FLAT,
        "full load, cold": Target(1.4),
        "32 sessions": Target(0.8, at_least=True),
        **TRIPS,
    },
    "core": {
        "backend commit, CPU": Target(30),
        "Session.append, CPU": Target(80),
        "an operation that nobody watches, more": Target(0.3),
        "import perdure over bare start": Target(60),
        "discovery of plugins, on top": Target(10),
        "drivers that both import": Target(0),
    },
    "loops": {
        "append, memory: sync over native": Target(150),
        "append, sqlite: sync over native": Target(150),
        "append, redis: sync over native": Target(150),
        "append, redis: foreign over native": Target(200),
        "append, postgres: sync over native": Target(150),
        "append, postgres: foreign over native": Target(200),
    },
    "merging": {
        "50 at once, sqlite": Target(1.1),
        "50 at once, redis": Target(1.1),
        "50 at once, postgres": Target(1.1),
        "an append alone, memory": Target(1),
    },
    "listing": {
        "page by id, of many": Target(1.3),
        "page by label, of many": Target(1.3),
        "page by recency, of many": Target(1.3),
    },
    "documents": {
        "10 MB again: sent, at most": Target(64),
        "10 MB again, CPU": Target(100),
    },
    "attachments": {
        f"{what}, {backend}": Target(0.5, at_least=True)
        for what in ("put", "open")
        for backend in ("sqlite", "redis", "postgres")
    },
    "encryption": {
        f"{backend}: {what}": Target(limit)
        for backend in ("memory", "sqlite", "redis", "postgres", "dynamodb")
        for what, limit in (
            ("append, p50", 60),
            ("full load, cold", 1.3),
            ("stored per turn", 0.7),
        )
    },
}
"""The speed to be reached, by table and measure."""

FLOORS = {
    "sqlite": {"bare"},
    "redis": {"bare", "pipelined"},
    "postgres": {"bare"},
    "dynamodb": {"bare"},
    "durable-objects": {"bare"},
}
OURS = {
    "sqlite": {"sqlite", "memory"},
    "redis": {"redis"},
    "postgres": {"postgres"},
    "dynamodb": {"dynamodb", "serve"},
    "durable-objects": {"durable-objects", "serve"},
}
NETWORK = [title for title in FLOORS if title != "sqlite"]


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A row as ``--json`` writes it."""

    measure: str
    unit: str
    turns: int | None
    values: dict[str, float]
    judged: float | None
    target: Target | None
    verdict: str


class Written(msgspec.Struct, forbid_unknown_fields=True):
    """A table as ``--json`` writes it."""

    title: str
    contenders: list[str]
    rows: list[Line]
    notes: list[str]


class Result(msgspec.Struct):
    """What the command printed and wrote."""

    text: str
    tables: list[Written]
    notes: list[str]

    def table(self, title: str) -> Written:
        return next(table for table in self.tables if table.title == title)


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory, valkey_url: str, postgres_url: str
) -> Result:
    for name in (DYNOXIDE, ESBUILD, WORKERD):
        program(name)  # or these tests are skipped
    directory = tmp_path_factory.mktemp("benchmarks")
    file = directory / "tables.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--turns", "6,3"]
    command += ["--redis-url", valkey_url, "--postgres-url", postgres_url]
    done = subprocess.run(
        [*command, "--dir", str(directory), "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(directory.iterdir()) == [file]
    written = msgspec.json.decode(file.read_bytes())
    return msgspec.convert({"text": done.stdout, **written}, Result)


def test_all_sections_are_measured_by_default(result: Result) -> None:
    assert [table.title for table in result.tables] == list(TARGETS)


@pytest.mark.parametrize("title", TARGETS)
def test_every_target_is_a_judged_row(result: Result, title: str) -> None:
    rows = result.table(title).rows
    judged = {row.measure: row for row in rows if row.target is not None}
    assert {measure: row.target for measure, row in judged.items()} == TARGETS[title]
    assert {row.verdict for row in judged.values()} <= {"ok", "missed"}
    assert all(row.judged is not None for row in judged.values())


@pytest.mark.parametrize("title", FLOORS)
def test_each_length_has_its_rows_with_the_figures_of_every_contender(
    result: Result, title: str
) -> None:
    ours = OURS[title]
    everyone = FLOORS[title] | ours
    expected = {
        "append, p50": everyone,
        "append, p99": everyone,
        "warm turn, p50": ours,
        "warm turn / append": ours,
        "full load, cold": everyone,
        "last 20 items, cold": everyone,
    }
    if title == "sqlite":
        expected |= {"written per turn": {"bare", "sqlite"}}
        expected |= {"stored per turn": {"bare", "sqlite"}}
    else:
        expected |= {"append: sent besides payload, ids": {title}}
    for turns in (3, 6):
        rows = {row.measure: row for row in result.table(title).rows if row.turns == turns}
        assert {measure: set(row.values) for measure, row in rows.items()} == expected
        assert all(value > 0 for row in rows.values() for value in row.values.values())


def test_a_turn_writes_at_least_itself(result: Result) -> None:
    for row in result.table("sqlite").rows:
        if row.measure in ("written per turn", "stored per turn"):
            assert min(row.values.values()) > 2


@pytest.mark.parametrize("title", NETWORK)
def test_an_operation_is_one_round_trip_of_few_bytes(result: Result, title: str) -> None:
    judged = {
        row.measure: row
        for row in result.table(title).rows
        if row.measure in TARGETS[title] and row.measure in WIRE
    }
    assert all(row.judged is not None and row.judged >= 1 for row in judged.values())
    del judged["full load, cold: round trips"]  # a long one may take more
    assert {row.verdict for row in judged.values()} == {"ok"}


def test_a_write_costs_at_most_a_unit_more_than_its_payload(result: Result) -> None:
    rows = {row.measure: row for row in result.table("dynamodb").rows}
    for measure in ("append: write units", "turn with cells: write units"):
        assert rows[measure].values["bare"] > 3
        assert rows[measure].verdict == "ok"


def test_an_append_writes_its_row_and_the_heads_in_durable_objects(result: Result) -> None:
    rows = {row.measure: row for row in result.table("durable-objects").rows}
    assert rows["append: rows written"].values == {"bare": 1, "durable-objects": 2}


@pytest.mark.usefixtures("result")
async def test_nothing_is_left_on_the_servers(valkey_url: str, postgres_url: str) -> None:
    redis = connect(valkey_url)
    assert await redis.execute_command("KEYS", "bench*") == []
    await redis.aclose()
    async with await AsyncConnection.connect(postgres_url) as connection:
        left = await connection.execute(
            "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'bench')"
        )
        assert await left.fetchall() == []


def test_the_slow_fsync_slows_down_the_one_that_waits_for_each(result: Result) -> None:
    rows = result.table("sqlite").rows
    (slow,) = [row for row in rows if row.measure.endswith("fsync +2 ms")]
    assert slow.values["bare"] < 500


def test_finding_the_plugins_imports_no_driver(result: Result) -> None:
    rows = result.table("core").rows
    (row,) = [row for row in rows if row.measure == "drivers that both import"]
    assert row.verdict == "ok"


def test_what_is_printed_to_a_pipe_is_plain_tables_and_notes(result: Result) -> None:
    parts = iter(result.text.removesuffix("\n").split("\n\n"))
    for table in result.tables:
        assert next(parts) == table.title
        header, *lines = next(parts).splitlines()
        assert header.split()[3:-3] == table.contenders
        assert [line.split("  ")[0] for line in lines] == [row.measure for row in table.rows]
        assert next(parts).splitlines() == table.notes
    assert next(parts).splitlines() == result.notes
    assert "\x1b" not in result.text


@pytest.mark.parametrize(
    ("option", "bad"),
    [("--turns", "0"), ("--turns", "ten"), ("--turns", ""), ("--only", "mysql")],
)
def test_what_cannot_be_measured_is_refused(option: str, bad: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", option, bad],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert option in done.stderr
