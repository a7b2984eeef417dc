"""A second server that follows the first, asynchronously, and may take its place."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

from tests.services import postgres
from tests.services.postgres import Postgres
from tests.services.server import free_port, wait_until

RECEIVING = "SELECT FROM pg_stat_wal_receiver"


class Standby(Postgres):
    """A hot standby, by streaming replication."""

    @classmethod
    def of(cls, primary: Postgres, directory: Path) -> Self:
        """Copy ``primary``, start, and follow it from then on."""
        if postgres._as_root():
            directory = Path(tempfile.mkdtemp(dir=postgres._public_directory()))
            shutil.chown(directory, "nobody")
        standby = cls(directory, free_port(), ("fsync=off",))
        identity = standby._identity()
        subprocess.run(
            [
                *(postgres._programs() / "pg_basebackup", "--pgdata", standby._data),
                *("--host", "127.0.0.1", "--port", str(primary.port), "--username", "perdure"),
                *("--write-recovery-conf", "--checkpoint", "fast", "--no-sync"),
            ],
            cwd=directory,
            check=True,
            capture_output=True,
            user=identity.user,
            group=identity.group,
            extra_groups=identity.extra_groups,
        )
        standby.restart()
        return standby

    def promote(self) -> None:
        """Take writes from now on; wait until it does."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def stop_following(self) -> None:
        """What the primary commits from now on never arrives here."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(lambda: not connection.execute(RECEIVING).fetchall())
