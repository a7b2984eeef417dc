"""The real PgBouncer, where it is installed. https://www.pgbouncer.org/config.html"""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from perdure.uri import parse

from tests.backends.postgres.pooler import moved
from tests.services.server import Server, free_port

SESSIONS = 3

CONFIGURATION = """\
[databases]
{database} = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
server_round_robin = 1
unix_socket_dir =
"""


def installed() -> bool:
    """Whether it is on the PATH."""
    return shutil.which("pgbouncer") is not None


class PgBouncer(Server):
    """One in transaction mode, in front of the server at ``target``."""

    def __init__(self, directory: Path, target: str) -> None:
        super().__init__(directory, free_port())
        self.target = target

    @property
    def url(self) -> str:
        return moved(self.target, self.port)

    def _command(self) -> list[str]:
        server = parse(self.target)
        configuration = CONFIGURATION.format(
            database=server.path,
            host=server.host,
            port=server.port,
            user=server.username,
            listen_port=self.port,
            sessions=SESSIONS,
        )
        file = self.directory / "pgbouncer.ini"
        file.write_text(configuration)
        as_root = os.name == "posix" and os.geteuid() == 0  # which it refuses to stay
        return ["pgbouncer", *(("-u", "nobody") if as_root else ()), str(file)]

    def _ready(self, said: str) -> bool:
        return "process up" in said


@contextmanager
def bouncing(target: str, directory: Path) -> Generator[str]:
    """The URL of a PgBouncer in front of the server at ``target``."""
    server = PgBouncer(directory, target)
    server.restart()
    with server:
        yield server.url
