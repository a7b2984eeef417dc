"""The Worker on this machine, under workerd, the runtime that Cloudflare itself uses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from perdure.errors import Unsupported

from perdure_durable_objects.project import MODULE, OBJECTS, compatibility_date, read_keys

STATE = ".perdure"
"""Directory of a project for workerd's configuration, and in it ``data``."""

_CONFIGURATION = """\
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "worker", worker = (
      modules = [(name = "{module}", esModule = embed "../{module}")],
      compatibilityDate = "{date}",
      bindings = [
        {bindings},
        (name = "PERDURE_KEYS", fromEnvironment = "PERDURE_KEYS"),
        (name = "PERDURE_LOCAL", fromEnvironment = "PERDURE_LOCAL"),
      ],
      durableObjectNamespaces = [
        {namespaces},
      ],
      durableObjectStorage = (localDisk = "data"),
    )),
    (name = "data", disk = (path = "data", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "worker")],
);
"""


class WorkerdMissing(Unsupported):
    """There is no workerd to run the Worker with."""


class AlreadyRunning(Unsupported):
    """The objects of a project belong to one workerd at a time."""


def find_workerd(directory: Path) -> Path:
    """The project's own workerd, or the one on ``PATH``. Raises :class:`WorkerdMissing`."""
    modules = directory / "node_modules"
    name = "workerd.exe" if sys.platform == "win32" else "workerd"
    # Not .bin/workerd, which would need Node.
    own = sorted(modules.glob(f"@cloudflare/workerd-*/bin/{name}"))
    if own:
        return own[0].resolve()
    found = shutil.which("workerd")
    if found is None:
        raise WorkerdMissing(
            f"workerd is neither in {modules} nor on PATH: run 'npm install' in {directory}, "
            "or 'npm install -g workerd'"
        )
    return Path(found)


def prepare(directory: Path, port: int) -> dict[str, str]:
    """Write the configuration; returns what workerd must find in its environment.

    Raises ``InvalidKeys``, :class:`AlreadyRunning`, or ``Unsupported`` if there is no project
    in ``directory``.
    """
    if not (directory / MODULE).exists():
        raise Unsupported(
            f"{directory / MODULE}: no such file; 'perdure durable-objects init {directory}' "
            "writes a project"
        )
    date, keys = compatibility_date(directory), read_keys(directory)
    state = directory / STATE
    (state / "data").mkdir(parents=True, exist_ok=True)
    lock(directory)
    configuration = _CONFIGURATION.format(
        module=MODULE,
        date=date,
        bindings=",\n        ".join(
            f'(name = "{binding}", durableObjectNamespace = "{kind}")'
            for binding, kind in OBJECTS.items()
        ),
        namespaces=",\n        ".join(
            f'(className = "{kind}", uniqueKey = "{kind}", enableSql = true)'
            for kind in OBJECTS.values()
        ),
        port=port,
    )
    (state / "workerd.capnp").write_text(configuration, encoding="utf-8")
    return {"PERDURE_KEYS": keys, "PERDURE_LOCAL": f"workerd, {(state / 'data').resolve()}"}


def lock(directory: Path) -> None:
    """Keep others from running the same project as long as this process lives, and what it
    becomes. Raises :class:`AlreadyRunning`."""
    if sys.platform == "win32":  # where workerd's own files are locked
        return
    import fcntl

    file = os.open(directory / STATE / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise AlreadyRunning(f"{directory} is being run by another process") from None
    os.set_inheritable(file, True)


def run(workerd: Path, directory: Path, environment: dict[str, str]) -> NoReturn:
    """Become workerd, until somebody ends it. Raises ``OSError``."""
    command = [str(workerd), "serve", "workerd.capnp"]
    variables = {**os.environ, **environment}
    os.chdir(directory / STATE)
    if sys.platform == "win32":  # where exec leaves the console to both
        sys.exit(subprocess.call(command, env=variables))  # noqa: S603
    os.execve(workerd, command, variables)  # noqa: S606
