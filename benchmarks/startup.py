"""What ``import perdure`` and finding the plugins add to the start of an interpreter."""

import json
import subprocess
import sys
from time import perf_counter

from benchmarks.sampling import Samples, rotated
from benchmarks.table import Row, Target

PROGRAMS = {
    "bare": "pass",
    "import": "import perdure",
    "discover": "import perdure; from perdure.plugins import discover; discover()",
}

REPORT = """
import json, sys
import perdure
from perdure.plugins import discover
imported = sorted(sys.modules)
found = discover()
print(json.dumps([imported, sorted(sys.modules), len(found.providers), len(found.broken)]))
"""

DRIVERS = frozenset(
    ("sqlite3", "redis", "psycopg", "asyncpg", "boto3", "botocore", "aiohttp", "httpx")
)
"""Modules that only an opened backend may bring along, besides backends' own."""


def measure(runs: int) -> tuple[list[Row], str]:
    """The rows on start-up, from ``runs`` interpreters of each kind, and a note on plugins."""
    samples = Samples[str]()
    for run in range(runs + 1):
        for name in rotated(list(PROGRAMS), run):
            started = perf_counter()
            subprocess.run([sys.executable, "-c", PROGRAMS[name]], check=True)
            if run:  # the first may have to compile
                samples.add(name, 1e3 * (perf_counter() - started))
    bare, imported, found = (samples.median(name) for name in PROGRAMS)
    report = subprocess.run(
        [sys.executable, "-c", REPORT], check=True, capture_output=True, text=True
    ).stdout
    after_import, after_discovery, working, broken = json.loads(report)
    drivers = _drivers(after_import)
    rows = [
        Row(
            measure="import perdure, over bare start",
            unit="ms",
            values={"bare": bare},
            judged=imported - bare,
            target=Target(60),
        ),
        Row(
            measure="discovery of plugins, on top",
            unit="ms",
            values={},
            judged=found - imported,
            target=Target(10),
        ),
        Row(
            measure="drivers that both import",
            unit="",
            values={},
            judged=len(drivers) + len(_drivers(after_discovery)),
            target=Target(0),
        ),
    ]
    return rows, f"Plugins found: {working}; broken: {broken}."


def _drivers(modules: list[str]) -> list[str]:
    """The drivers among modules: known ones, and whatever backends have besides plugins."""
    return [
        module
        for module in modules
        if module.partition(".")[0] in DRIVERS
        or (module.startswith("perdure_") and module.endswith(".backend"))
    ]
