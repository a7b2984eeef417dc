"""Two servers that speak DynamoDB's protocol: dynoxide, and ministack as a second opinion."""

import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote
from uuid import uuid4

import boto3

from tests.services import node
from tests.services.server import PortTaken, Server, free_port, package

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REGION = "eu-central-1"

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "plum", "AWS_SECRET_ACCESS_KEY": "secret"}
"""For the environment of a client: these servers take any. The fixtures see to it."""


def client(endpoint: str) -> "DynamoDBClient":
    """boto3's, with the credentials of the environment, for tests that look at tables."""
    # Stubs of the other services are not installed.
    return boto3.client(  # pyright: ignore[reportUnknownMemberType]
        "dynamodb",
        endpoint_url=endpoint,
        region_name=REGION,
    )


@contextmanager
def new_table(endpoint: str) -> Generator[str]:
    """The name of an empty table like those that perdure makes, removed at the end."""
    name = f"perdure-{uuid4()}"
    dynamodb = client(endpoint)
    dynamodb.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "p", "KeyType": "HASH"},
            {"AttributeName": "s", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "p", "AttributeType": "B"},
            {"AttributeName": "s", "AttributeType": "B"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    try:
        yield name
    finally:
        dynamodb.delete_table(TableName=name)
        dynamodb.close()


def table_url(endpoint: str, table: str) -> str:
    """What a backend opens to reach a table there."""
    return f"dynamodb://{table}?region={REGION}&endpoint={quote(endpoint, safe=':/')}"


MINISTACK = """
import time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.5))
from ministack.app import main
main()
"""
"""It looks for what has expired once a minute, which is long for a test."""


class Dynoxide(Server):
    """One dynoxide, from the npm package ``@dynoxide/linux-x64``.

    By default its tables are in memory and gone when it ends. It keeps what would expire
    (TTL) for ever.
    """

    def __init__(self, directory: Path, port: int, *, on_disk: bool) -> None:
        super().__init__(directory, port)
        self._on_disk = on_disk

    @classmethod
    def start(cls, directory: Path, *, on_disk: bool = False) -> Self:
        """Start a server without tables and wait until it answers.

        ``on_disk``: they outlive its process. Raises ``ServerMissing`` or ``ServerFailed``.
        """
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            server = cls(directory, free_port(), on_disk=on_disk)
            try:
                server._launch()
            except PortTaken:
                continue
            return server

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        data = ("--db-path", str(self.directory / "tables.db")) if self._on_disk else ()
        listen = ("--host", "127.0.0.1", "--port", str(self.port))
        return [str(node.program(node.DYNOXIDE)), *listen, *data]

    def _ready(self, said: str) -> bool:
        return "Dynoxide listening on" in said


class Ministack(Server):
    """One ministack, from PyPI, with its DynamoDB alone. Its tables are in memory.

    It deletes what has expired (TTL), within a second.
    """

    @classmethod
    def start(cls, directory: Path) -> Self:
        """Start a server without tables and wait until it answers.

        Raises ``ServerMissing`` or ``ServerFailed``.
        """
        package("ministack")
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            server = cls(directory, free_port())
            try:
                server._launch()
            except PortTaken:
                continue
            return server

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        return [sys.executable, "-c", MINISTACK]

    def _environment(self) -> dict[str, str]:
        return {
            "BIND_HOST": "127.0.0.1",  # otherwise all addresses of the machine
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "dynamodb",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(self.directory),
            # Otherwise it would stop containers that other copies of it have left behind.
            "DOCKER_HOST": f"unix://{self.directory}/no-docker.sock",
        }

    def _ready(self, said: str) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
