"""What npm brought: servers and tools, each a program of its own that needs no Node.

``dev.py`` installs ``npm/package.json`` into the environment that runs the tests.
"""

import sys
from pathlib import Path

from tests.services.server import ServerMissing

MODULES = Path(sys.prefix) / "node" / "node_modules"
"""Where it is installed."""

DYNOXIDE = "@dynoxide/*/dynoxide"
ESBUILD = "@esbuild/*/bin/esbuild"
TSC = "@typescript/*/lib/tsc"
WORKERD = "@cloudflare/workerd-*/bin/workerd"


def program(name: str) -> Path:
    """Where one of these programs lies. Raises ``ServerMissing``."""
    found = sorted(MODULES.glob(name))
    if not found:
        name = name.rpartition("/")[2]
        raise ServerMissing(f"{name} is missing: python3 dev.py test brings it, with npm")
    return found[0]
