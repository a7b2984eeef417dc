"""Third-party distributions as pip leaves them on disk, and processes that see them."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

PLUGIN = """
from perdure.plugins import BackendSpec, hookimpl

@hookimpl
def perdure_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            schemes=({scheme!r},),
            summary="A jar",
            distribution={distribution!r},
            contract={contract},
            factory={factory!r},
        )
    ]
"""

BACKEND = """
from perdure_memory.backend import MemoryBackend

class JarBackend(MemoryBackend):
    pass

def open_url(url):
    backend = JarBackend()
    backend.url = url
    return backend

def open_text(url):
    return str(url)
"""


def install(
    site: Path,
    name: str,
    version: str,
    modules: dict[str, str],
    entry_points: str,
) -> None:
    """Lay down one distribution: its package, named after it, and its metadata."""
    package = name.replace("-", "_")
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").touch()
    for module, source in modules.items():
        (site / package / f"{module}.py").write_text(textwrap.dedent(source))
    metadata = site / f"{package}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n\nName: not this one\n"
    )
    (metadata / "INSTALLER").write_text("pip\n")
    (metadata / "RECORD").write_text("")
    (metadata / "entry_points.txt").write_text(entry_points)


def install_plugin(
    site: Path,
    name: str,
    scheme: str,
    *,
    version: str = "1.2",
    contract: int = 1,
    factory: str = "{package}.backend:open_url",
    plugin: str | None = None,
) -> None:
    """Lay down a distribution that serves ``scheme``, or whose plugin module is ``plugin``."""
    package = name.replace("-", "_")
    if plugin is None:
        plugin = PLUGIN.format(
            scheme=scheme,
            distribution=name,
            contract=contract,
            factory=factory.format(package=package),
        )
    install(
        site,
        name,
        version,
        {"plugin": plugin, "backend": BACKEND},
        "# Written by hand\n[console_scripts]\nperdure = nothing:main\n\n"
        f"[perdure]\n{scheme} = {package}.plugin\n[other]\nperdure = nothing\n",
    )


def run(site: Path, program: str) -> Any:
    """Run a program in a fresh interpreter that also has ``site``.

    The program leaves a JSON value in ``result``, which is returned. Warnings are errors, and
    nothing may be written to standard error.
    """
    source = f"import json\n{textwrap.dedent(program)}\nprint(json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site), *paths()))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def paths() -> list[str]:
    """What PYTHONPATH holds already."""
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
