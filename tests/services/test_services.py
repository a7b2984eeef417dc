"""The servers that other tests run against start, survive what is done to them, and stop."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hiredis
import psutil
import psycopg
import pytest

from tests.conftest import Servers
from tests.services.addresses import addresses
from tests.services.cluster import SLOTS, Cluster
from tests.services.dynamodb import client
from tests.services.node import program
from tests.services.postgres import NO_SYNC, Postgres
from tests.services.sentinel import Sentinels
from tests.services.server import (
    PortTaken,
    ServerFailed,
    ServerMissing,
    package,
    wait_until,
)
from tests.services.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres.start(tmp_path, *NO_SYNC) as server:
        yield server


PYTEST = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-rs",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:valkey",
]


def environment() -> dict[str, str]:
    """For a pytest of its own, that knows these modules and starts its own servers."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PERDURE_TEST_", "PYTEST_"))
    }
    return {**kept, "PYTHONPATH": str(ROOT)}


def test_the_shared_servers_answer(
    valkey_url: str, postgres_url: str, dynamodb_endpoint: str, ministack_endpoint: str
) -> None:
    assert valkey_url.startswith(("redis://", "rediss://", "valkey://"))
    with psycopg.connect(postgres_url) as connection:
        assert connection.info.server_version >= 140_000
    for endpoint in (dynamodb_endpoint, ministack_endpoint):
        assert isinstance(client(endpoint).list_tables()["TableNames"], list)


def test_valkey_listens_on_loopback_alone(tmp_path: Path) -> None:
    with Valkey.start(tmp_path) as server:
        assert server.call("PING") == b"PONG"
        assert addresses(server) == {"127.0.0.1"}


def test_postgres_listens_on_loopback_alone(postgres: Postgres) -> None:
    assert addresses(postgres) == {"127.0.0.1"}


def test_options_reach_the_server(tmp_path: Path) -> None:
    with (
        Valkey.start(tmp_path / "valkey", "--requirepass", "plum") as server,
        pytest.raises(hiredis.ReplyError, match="NOAUTH"),
    ):
        server.call("GET", "a")
    with (
        Postgres.start(tmp_path / "postgres", *NO_SYNC, "work_mem=7MB") as server,
        psycopg.connect(server.url) as connection,
    ):
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_postgres_keeps_its_own_settings_where_none_is_given(tmp_path: Path) -> None:
    with Postgres.start(tmp_path) as server, psycopg.connect(server.url) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            rows = connection.execute("SELECT current_setting(%s)", (setting,)).fetchall()
            assert rows == [("on",)]


def test_a_killed_valkey_restarts_on_its_port_with_its_data(tmp_path: Path) -> None:
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with Valkey.start(tmp_path, *durable) as server:
        url, pid = server.url, server.pid
        for value in range(3):
            server.call("RPUSH", "values", value)
            server.kill()
            assert not server.running
            with pytest.raises(ConnectionRefusedError):
                server.call("PING")
            server.restart()
        assert server.call("LRANGE", "values", 0, -1) == [b"0", b"1", b"2"]
        assert server.url == url
        assert server.pid != pid


def test_a_killed_postgres_restarts_on_its_port_with_its_data(postgres: Postgres) -> None:
    url, pid = postgres.url, postgres.pid
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE plums (n int)")
    for value in range(3):
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO plums VALUES (%s)", (value,))
            connection.commit()
            postgres.kill()
            assert not postgres.running
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        postgres.restart()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM plums ORDER BY n").fetchall() == [
            (0,),
            (1,),
            (2,),
        ]
    assert postgres.url == url
    assert postgres.pid != pid


def test_postgres_serves_run_by_an_ordinary_user(postgres: Postgres) -> None:
    """Postgres refuses root, so root's runs as another user."""
    assert psutil.Process(postgres.pid).uids().effective != 0
    owner = (postgres.directory / "data").stat().st_uid
    assert owner == psutil.Process(postgres.pid).uids().effective


def test_nothing_runs_after_stop(tmp_path: Path) -> None:
    valkey = Valkey.start(tmp_path / "valkey")
    postgres = Postgres.start(tmp_path / "postgres", *NO_SYNC)
    client = psycopg.connect(postgres.url, autocommit=True)  # a process of its own serves it
    processes = [psutil.Process(server.pid) for server in (valkey, postgres)]
    processes += processes[1].children()
    for server in (valkey, postgres):
        server.stop()
    client.close()
    assert len(processes) > 3
    assert not any(process.is_running() and runs(process) for process in processes)
    assert not valkey.running
    valkey.stop()  # nothing to do
    valkey.kill()
    with pytest.raises(ServerFailed, match="does not run"):
        _ = valkey.pid


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended. One that has, and whose parent has not looked, is a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no-such-option"):
        Valkey.start(tmp_path / "valkey", "--no-such-option", "1")
    with pytest.raises(ServerFailed, match="no_such_setting"):
        Postgres.start(tmp_path / "postgres", "no_such_setting=1")


def test_a_port_is_not_shared(tmp_path: Path) -> None:
    with Valkey.start(tmp_path / "first") as first, pytest.raises(PortTaken):
        Valkey.start(tmp_path / "second", port=first.port)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ServerMissing, match="pip install no-such-package"):
        package("no_such_package")
    with pytest.raises(ServerMissing, match=r"plum is missing: .*dev\.py"):
        program("@plums/*/plum")


WITHOUT = """
import pytest
from tests.services.server import package

@pytest.fixture
def plum():
    return package("no_such_plum")

def test_that_is_given_one(plum):
    pass

def test_that_starts_one():
    package("no_such_pear")
"""


@pytest.mark.parametrize(("ci", "outcome"), [("", "2 skipped"), ("true", "1 failed, 1 error")])
def test_without_its_package_a_test_is_skipped_loudly_but_fails_under_ci(
    ci: str, outcome: str, tmp_path: Path
) -> None:
    (tmp_path / "test_without.py").write_text(WITHOUT)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    done = subprocess.run(
        [*PYTEST, "--rootdir", str(tmp_path), "test_without.py"],
        cwd=tmp_path,
        env=environment() | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout, done.stdout + done.stderr
    for fruit in ("plum", "pear"):
        needed = f"the server needs: pip install no-such-{fruit}"
        assert needed in done.stdout
        assert (f"[servers] skipping tests: {needed}" in done.stdout) is not bool(ci)


def test_a_url_of_the_environment_takes_precedence(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = Servers(pytestconfig)
    monkeypatch.setenv("PERDURE_TEST_REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("PERDURE_TEST_POSTGRES_URL", "postgresql://elsewhere")
    monkeypatch.setenv("PERDURE_TEST_DYNAMODB_ENDPOINT", "http://elsewhere")
    servers.prepare("valkey_url", "postgres_url", "dynamodb_endpoint")
    assert servers.url("dynamodb_endpoint") == "http://elsewhere"
    assert servers.url("valkey_url") == "redis://elsewhere"
    assert servers.url("postgres_url") == "postgresql://elsewhere"
    servers.stop()


def test_a_cluster_serves_all_slots_from_three_nodes(valkey_cluster: Cluster) -> None:
    assert len({node.port for node in valkey_cluster.nodes}) == 3
    owners = [
        node.call("CLUSTER", "COUNTKEYSINSLOT", SLOTS - 1) for node in valkey_cluster.nodes
    ]
    assert len(owners) == 3
    refusals = 0
    for node in valkey_cluster.nodes:
        assert node.fields("CLUSTER", "INFO")["cluster_slots_ok"] == str(SLOTS)
        try:
            assert node.call("GET", "services:plum") is None
        except hiredis.ReplyError as error:
            assert str(error).startswith("MOVED ")
            refusals += 1
    assert refusals == 2


def test_the_replica_of_a_cluster_follows_its_primary(tmp_path: Path) -> None:
    with Cluster.start(tmp_path, replicas=1) as cluster:
        *primaries, replica = cluster.nodes
        assert [node.fields("INFO")["role"] for node in primaries] == ["master"] * 3
        assert replica.fields("INFO")["master_port"] == str(primaries[0].port)
        primaries[0].kill()
        wait_until(lambda: replica.fields("INFO")["role"] == "master")
        cluster.wait_until_whole()


def test_sentinels_know_the_primary(tmp_path: Path) -> None:
    with Sentinels.start(tmp_path) as sentinels:
        for sentinel in sentinels.sentinels:
            assert sentinel.call("SENTINEL", "get-master-addr-by-name", "perdure") == [
                b"127.0.0.1",
                b"%d" % sentinels.primary.port,
            ]
            assert str(sentinel.port) in sentinels.url
        assert sentinels.replica.fields("INFO")["master_port"] == str(sentinels.primary.port)


START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from tests.services.node import program
from tests.services.postgres import Postgres
from tests.services.valkey import Valkey

servers = [Valkey.start(Path("valkey")), Postgres.start(Path("postgres"), "fsync=off")]
print(*(server.pid for server in servers), servers[1].directory, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_process_that_stops_no_server_leaves_none(how: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START_AND_DIE, how],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if how == "killed" else 0)
    *pids, directory = done.stdout.split()
    wait_until(lambda: not any(map(still_runs, map(int, pids))))
    if not Path(directory).is_relative_to(tmp_path.resolve()):  # root's copy of Postgres
        wait_until(lambda: not Path(directory).exists())


def still_runs(pid: int) -> bool:
    try:
        return runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="this is one")
def test_an_ordinary_user_can_start_them() -> None:
    def run(program: str, directory: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", program, "ended"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            user="nobody",
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        reachable = run("import psycopg, tests.services.valkey", "/").returncode == 0
    except PermissionError:
        reachable = False
    if not reachable:
        pytest.skip("this Python or this checkout is root's alone")
    with tempfile.TemporaryDirectory() as directory:
        shutil.chown(directory, "nobody")
        done = run(START_AND_DIE, directory)
        assert done.returncode == 0, done.stderr
        *pids, data = done.stdout.split()
        assert data == f"{directory}/postgres"
        wait_until(lambda: not any(map(still_runs, map(int, pids))))


INTERRUPTED = """
import time

def test_that_is_interrupted(valkey_url, postgres_url):
    print("up", flush=True)
    time.sleep(60)
"""


def test_interrupted_tests_leave_no_server(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(INTERRUPTED)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    tests = subprocess.Popen(
        [*PYTEST, "-s", "--rootdir", str(tmp_path), "test_slow.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with tests:
        assert tests.stdout is not None
        assert any("up" in line for line in tests.stdout)
        started = psutil.Process(tests.pid).children(recursive=True)
        tests.send_signal(signal.SIGINT)
        said = tests.stdout.read()
    assert "KeyboardInterrupt" in said
    names = {process.name() for process in started if process.is_running()}
    assert names == set()
