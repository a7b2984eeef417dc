"""A backend's author, elsewhere, with nothing configured: the quick start as it is written."""

import subprocess
import sys
from pathlib import Path

import perdure.testing

BACKEND = """
from perdure_memory.backend import MemoryBackend

FILES = {}

class MyBackend(MemoryBackend):
    # Stands for one that keeps its data at a path.
    def __init__(self, path, clock):
        super().__init__(clock=clock)
        first = FILES.setdefault(path, self)
        for part in ("_lock", "_sessions", "_stages", "_index", "_waiters"):
            setattr(self, part, getattr(first, part))
"""


def quick_start() -> str:
    """The code that the module's docstring begins with."""
    lines = (perdure.testing.__doc__ or "").splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("    "))
    after = next(n for n, line in enumerate(lines) if n > first and line[:1].strip())
    return "\n".join(line[4:] for line in lines[first:after])


def test_the_quick_start_runs_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(BACKEND + quick_start())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    command += ["-k", "not sequence_of_operations", "test_mine.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    passed = int(run.stdout.split(" passed")[0].split()[-1])
    assert passed > 150
