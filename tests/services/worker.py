"""perdure's Worker, built from this checkout, under workerd."""

import json
import subprocess
from pathlib import Path
from typing import Self

from tests.services.node import ESBUILD, MODULES, program
from tests.services.workerd import Workerd

SOURCE = (
    Path(__file__).resolve().parents[2]
    / "backends/durable_objects/src/perdure_durable_objects/worker/src"
)
MAIN = SOURCE / "index.ts"

KEY = ("tests", "plums-are-ripe-in-september-and-pears-a-month-later")
"""The one key that the Worker knows: its id and its secret."""


OBJECTS = {"SESSIONS": "Session", "DIRECTORIES": "Directory"}
"""The classes that it exports, behind their bindings."""


class Worker(Workerd):
    """The Worker with one key. Data of its own, which is on disk."""

    @classmethod
    def serve(cls, directory: Path, main: Path = MAIN) -> Self:
        """Build it, start it, wait until it answers.

        ``main`` is a module that exports what the Worker's own does. Raises ``ServerMissing``
        or ``ServerFailed``.
        """
        bundle = directory / "built.js"
        build(main, bundle)
        id, secret = KEY
        keys = json.dumps([{"id": id, "secret": secret}])
        return cls.start(directory, bundle, objects=OBJECTS, variables={"PERDURE_KEYS": keys})

    @property
    def url(self) -> str:
        """With the key."""
        id, secret = KEY
        return f"http://{id}:{secret}@127.0.0.1:{self.port}"


def build(main: Path, bundle: Path) -> None:
    """Make one module of a Worker's modules. Raises ``ServerMissing``."""
    command = [
        str(program(ESBUILD)),
        str(main),
        "--bundle",
        "--format=esm",
        "--target=es2022",
        "--external:cloudflare:*",
        "--log-level=warning",
        f"--outfile={bundle}",
    ]
    subprocess.run(command, env={"NODE_PATH": str(MODULES)}, check=True)
