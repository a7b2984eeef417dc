"""workerd, Cloudflare's runtime of Workers, from the npm package of that name."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.services import node
from tests.services.server import PortTaken, Server, free_port

COMPATIBILITY_DATE = "2026-11-01"

CONFIGURATION = """\
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "worker", worker = (
      modules = [(name = "worker.js", esModule = embed "worker.js")],
      compatibilityDate = {date},
      bindings = [{bindings}],
      durableObjectNamespaces = [{namespaces}],
      durableObjectStorage = (localDisk = "disk"),
    )),
    (name = "disk", disk = (path = "disk", writable = true)),
  ],
  sockets = [(name = "http", address = {address}, http = (), service = "worker")],
);
"""
"""Its schema: workerd.capnp in workerd's repository."""


class Workerd(Server):
    """One workerd that serves one Worker, whose objects have SQLite on disk."""

    patience = 1.0
    """It waits ten seconds for WebSockets. What it has answered is on disk long since."""

    @classmethod
    def start(
        cls,
        directory: Path,
        bundle: Path,
        *,
        objects: Mapping[str, str],
        variables: Mapping[str, str] | None = None,
    ) -> Self:
        """Start a server without objects and wait until it answers.

        ``bundle`` is the Worker as one JavaScript module, ``objects`` the class of the Durable
        Objects behind each binding, ``variables`` its other bindings: text, secrets too.
        Raises ``ServerMissing`` or ``ServerFailed``.
        """
        (directory / "disk").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle, directory / "worker.js")
        while True:
            server = cls(directory, free_port())
            server.configure(objects, variables or {})
            try:
                server._launch()
            except PortTaken:
                continue
            return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def configure(self, objects: Mapping[str, str], variables: Mapping[str, str]) -> None:
        """Bind these from its next start on."""
        bindings = [
            f"(name = {_text(name)}, durableObjectNamespace = {_text(kind)})"
            for name, kind in objects.items()
        ]
        bindings += [
            f"(name = {_text(name)}, text = {_text(value)})"
            for name, value in variables.items()
        ]
        namespaces = [
            f"(className = {_text(kind)}, uniqueKey = {_text(kind)}, enableSql = true)"
            for kind in objects.values()
        ]
        text = CONFIGURATION.format(
            date=_text(COMPATIBILITY_DATE),
            address=_text(f"127.0.0.1:{self.port}"),
            bindings=", ".join(bindings),
            namespaces=", ".join(namespaces),
        )
        (self.directory / "config.capnp").write_text(text)

    def _command(self) -> list[str]:
        # Standard output is where it says that it listens.
        return [str(node.program(node.WORKERD)), "serve", "--control-fd=1", "config.capnp"]

    def _ready(self, said: str) -> bool:
        return '"event":"listen"' in said


def _text(value: str) -> str:
    """A literal of Cap'n Proto, whose escapes are those of C."""
    return json.dumps(value, ensure_ascii=False)
