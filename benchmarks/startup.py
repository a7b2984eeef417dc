"""What ``import perdure`` and finding the plugins add to the start of an interpreter.

Judged by CPU time where the system tells it (not on Windows): an import does nothing but
compute, so that this is how long it takes, whoever else uses the machine.
"""

import json
import subprocess
import sys
from time import perf_counter

try:
    import resource
except ImportError:  # Windows
    resource = None

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
    wall, cpu = Samples[str](), Samples[str]()
    for run in range(runs + 1):
        for name in rotated(list(PROGRAMS), run):
            used, started = _cpu_of_children(), perf_counter()
            subprocess.run([sys.executable, "-c", PROGRAMS[name]], check=True)
            if run:  # the first may have to compile
                wall.add(name, 1e3 * (perf_counter() - started))
                cpu.add(name, 1e3 * (_cpu_of_children() - used))
    bare, imported, found = (cpu.median(name) for name in PROGRAMS)
    report = subprocess.run(
        [sys.executable, "-c", REPORT], check=True, capture_output=True, text=True
    ).stdout
    after_import, after_discovery, working, broken = json.loads(report)
    drivers = _drivers(after_import)
    rows = [
        Row(
            measure="import perdure over bare start",
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
            measure="both, elapsed",
            unit="ms",
            values={"bare": wall.median("bare")},
            judged=wall.median("discover") - wall.median("bare"),
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


def _cpu_of_children() -> float:
    """Seconds of CPU that ended child processes have used, or where that is not known, a
    clock."""
    if resource is None:
        return perf_counter()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _drivers(modules: list[str]) -> list[str]:
    """The drivers among modules: known ones, and whatever backends have besides plugins."""
    return [
        module
        for module in modules
        if module.partition(".")[0] in DRIVERS
        or (module.startswith("perdure_") and module.endswith(".backend"))
    ]
