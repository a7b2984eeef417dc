"""A Valkey primary, its replica, and three sentinels that watch over them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from tests.services.server import wait_until
from tests.services.valkey import Valkey

NAME = "perdure"
"""What the sentinels call the primary."""


class Sentinels:
    """Sentinels, and the servers they watch. As a context manager it stops at the end."""

    primary: Valkey
    """The one it began with: it need not stay so."""
    replica: Valkey
    sentinels: Sequence[Valkey]

    def __init__(self, primary: Valkey, replica: Valkey, sentinels: Sequence[Valkey]) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinels = sentinels

    @classmethod
    def start(cls, directory: Path, *options: str) -> Self:
        """Start all five, and wait until the sentinels know one another and the replica.

        ``options`` are those of the servers' command lines.
        """
        with ThreadPoolExecutor() as executor:
            quick = ("--repl-diskless-sync-delay", "0", *options)
            servers = [
                executor.submit(Valkey.start, directory / name, *quick)
                for name in ("primary", "replica")
            ]
            primary, replica = (server.result() for server in servers)
            replica.call("REPLICAOF", "127.0.0.1", primary.port)
            replica.wait_until_synchronized()
            watching = [
                executor.submit(Sentinel.watch, directory / f"sentinel-{number}", primary)
                for number in range(3)
            ]
            sentinels = [sentinel.result() for sentinel in watching]
        started = cls(primary, replica, sentinels)
        wait_until(lambda: all(map(_knows_all, sentinels)))
        return started

    @property
    def url(self) -> str:
        """``redis+sentinel://``: the first sentinel, what they watch, the other sentinels."""
        first, *others = (f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{first}/{NAME}?hosts={','.join(others)}"

    def stop(self) -> None:
        """Stop all and wait; the sentinels first, so that they do not fail over."""
        for server in (*self.sentinels, self.replica, self.primary):
            server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Sentinel(Valkey):
    """One sentinel. It keeps what it learns in its configuration file."""

    @classmethod
    def watch(cls, directory: Path, primary: Valkey) -> Self:
        """Start one that watches ``primary``."""
        directory.mkdir(parents=True)
        (directory / "sentinel.conf").write_text(
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} 2\n"
            f"sentinel down-after-milliseconds {NAME} 1000\n"
            f"sentinel failover-timeout {NAME} 3000\n"
        )
        return cls.start(directory)

    def _command(self) -> list[str]:
        program, *options = super()._command()
        return [program, str(self.directory / "sentinel.conf"), "--sentinel", *options]

    def _ready(self, said: str) -> bool:
        return "Sentinel ID is" in said


def _knows_all(sentinel: Valkey) -> bool:
    known = sentinel.fields("INFO", "sentinel")["master0"]
    return known.endswith("slaves=1,sentinels=3") and "status=ok" in known
