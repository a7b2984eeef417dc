"""The stand-ins for serverless databases start, survive what is done to them, and stop."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen
from uuid import uuid4

import pytest

from tests.services.addresses import addresses
from tests.services.dynamodb import Dynoxide, Ministack, client
from tests.services.server import ServerFailed, wait_until
from tests.services.worker import SOURCE
from tests.services.workerd import Workerd

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WORKER = """
export class Counter {
  constructor(state) {
    this.sql = state.storage.sql;
    this.sql.exec("CREATE TABLE IF NOT EXISTS counted (n INTEGER)");
  }
  async fetch() {
    this.sql.exec("INSERT INTO counted VALUES (1)");
    return new Response(this.sql.exec("SELECT count(*) AS n FROM counted").one().n);
  }
}
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/secret") return new Response(env.SECRET);
    return env.COUNTERS.get(env.COUNTERS.idFromName(pathname)).fetch(request);
  },
};
"""
SECRET = 'quotes " and \\ and plums 🍑'


@pytest.fixture
def workerd(tmp_path: Path) -> Iterator[Workerd]:
    """It counts what is asked of it, by path."""
    bundle = tmp_path / "counting.js"
    bundle.write_text(WORKER)
    variables = {"SECRET": SECRET}
    directory = tmp_path / "workerd"
    with Workerd.start(
        directory, bundle, objects={"COUNTERS": "Counter"}, variables=variables
    ) as server:
        yield server


def fetch(server: Workerd, path: str) -> str:
    with urlopen(f"{server.url}/{path}", timeout=10) as response:
        return response.read().decode()


def create_table(dynamodb: "DynamoDBClient", name: str) -> None:
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


def test_they_listen_on_loopback_alone(workerd: Workerd, tmp_path: Path) -> None:
    with Dynoxide.start(tmp_path / "dynoxide") as dynoxide, Ministack.start(tmp_path) as other:
        for server in (workerd, dynoxide, other):
            assert addresses(server) == {"127.0.0.1"}


def test_a_worker_is_given_its_variables(workerd: Workerd) -> None:
    assert fetch(workerd, "secret") == SECRET
    workerd.configure({"COUNTERS": "Counter"}, {"SECRET": "another"})
    workerd.restart()
    assert fetch(workerd, "secret") == "another"


def test_a_killed_workerd_restarts_on_its_port_with_its_data(workerd: Workerd) -> None:
    url, pid = workerd.url, workerd.pid
    for value in range(3):
        assert fetch(workerd, "plum") == str(value + 1)
        workerd.kill()
        assert not workerd.running
        with pytest.raises(URLError):
            fetch(workerd, "plum")
        workerd.restart()
    assert fetch(workerd, "pear") == "1"
    assert fetch(workerd, "plum") == "4"
    assert workerd.url == url
    assert workerd.pid != pid


def test_a_killed_dynoxide_keeps_its_tables_if_they_are_on_disk(
    tmp_path: Path, aws_credentials: None
) -> None:
    with Dynoxide.start(tmp_path / "disk", on_disk=True) as server:
        dynamodb = client(server.url)
        create_table(dynamodb, "plums")
        for value in range(3):
            dynamodb.put_item(TableName="plums", Item={"p": {"S": str(value)}})
            server.kill()
            server.restart()
            assert dynamodb.scan(TableName="plums")["Count"] == value + 1
    with Dynoxide.start(tmp_path / "memory") as server:
        dynamodb = client(server.url)
        create_table(dynamodb, "plums")
        server.restart()
        assert dynamodb.list_tables()["TableNames"] == []


def test_ministack_deletes_what_has_expired(ministack_endpoint: str) -> None:
    """What dynoxide never does."""
    dynamodb = client(ministack_endpoint)
    table = f"plums-{uuid4()}"
    create_table(dynamodb, table)
    dynamodb.update_time_to_live(
        TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "x"}
    )
    now = int(time.time())
    dynamodb.put_item(TableName=table, Item={"p": {"S": "old"}, "x": {"N": str(now - 60)}})
    dynamodb.put_item(TableName=table, Item={"p": {"S": "new"}, "x": {"N": str(now + 600)}})
    wait_until(lambda: dynamodb.scan(TableName=table)["Count"] == 1)
    (left,) = dynamodb.scan(TableName=table)["Items"]
    assert left["p"] == {"S": "new"}


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    bundle = tmp_path / "broken.js"
    bundle.write_text("export default {")
    with pytest.raises(ServerFailed, match="SyntaxError"):
        Workerd.start(tmp_path / "workerd", bundle, objects={})


def test_what_npm_brings_is_pinned() -> None:
    """Also to the versions that the Worker's own project names."""
    packages = Path(__file__).with_name("npm") / "package.json"
    wanted = json.loads(packages.read_text())
    pins: dict[str, str] = {**wanted["dependencies"], **wanted["optionalDependencies"]}
    for version in pins.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    project = json.loads((SOURCE.parent / "package.json").read_text())
    named = project["devDependencies"].items()
    assert {name: version for name, version in named if name in pins} == {
        name: pins[name] for name in ("@cloudflare/workers-types", "esbuild", "typescript")
    }
