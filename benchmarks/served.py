"""``perdure serve`` in a process of its own, on SQLite."""

import sys
from pathlib import Path
from secrets import token_hex
from typing import Self

import msgspec

from tests.services.server import PortTaken, Server, free_port

KEY_ID = "benchmark"


class Served(Server):
    """Serves a database in its directory to whoever has its URL."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory, port)
        self._secret = token_hex(32)

    @classmethod
    def start(cls, directory: Path) -> Self:
        """Start it and wait until it answers. Raises ``ServerFailed``."""
        directory.mkdir(parents=True)
        while True:
            server = cls(directory, free_port())
            try:
                server._launch()
            except PortTaken:
                continue
            return server

    @property
    def url(self) -> str:
        return f"http://{KEY_ID}:{self._secret}@127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        store = f"sqlite:///{self.directory}/perdure.db"
        command = [sys.executable, "-m", "perdure_cli", "serve"]
        return [*command, "--url", store, "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        return {"PERDURE_KEYS": keys(KEY_ID, self._secret)}

    def _ready(self, said: str) -> bool:
        return "serving on" in said


def keys(id: str, secret: str) -> str:
    """A server's list of keys, with one that may do everything."""
    return msgspec.json.encode([{"id": id, "secret": secret}]).decode()
