"""A client that knows only what it is told: HTTP by the standard library, bytes as given."""

import socket
import time
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

import msgspec

from perdure.protocol.auth import bearer, sign
from perdure.protocol.paths import Operation, path_of

from tests.contrib.server.served import SECRET

ID = b"\x01" * 16


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: Any
    """Decoded."""
    response: HTTPResponse

    @property
    def code(self) -> str:
        """Of an answer that is an error."""
        assert self.status >= 400
        assert [type(part) for part in self.body[1:2]] == [str]
        assert "Traceback" not in self.body[1]
        return self.body[0]


class Speaker:
    """Sends requests to a port, with a key that has no tenants unless told otherwise."""

    def __init__(self, port: int, key: str | None = "app") -> None:
        self.port = port
        self.key = key

    def __call__(
        self,
        operation: Operation,
        *scope: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """An operation, with its body encoded."""
        encoded = b"" if operation.method == "GET" else msgspec.msgpack.encode(body)
        return self.send(operation.method, path_of(operation, *scope), encoded, headers)

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Any request."""
        sent = {"Authorization": bearer(self.key, SECRET)} if self.key else {}
        if self.key == "signer":
            now = time.time_ns() // 1_000_000
            sent["Authorization"] = sign(self.key, SECRET, method, path, now, body)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body or None, {**sent, **(headers or {})})
            response = connection.getresponse()
            assert response.headers["content-type"] == "application/msgpack"
            return Answer(response.status, msgspec.msgpack.decode(response.read()), response)
        finally:
            connection.close()


def commit(id: bytes = ID, *, puts: object = (), appends: object = ()) -> list[object]:
    """The body of a commit that asks for nothing special."""
    head: list[object] = [id, b"digest!!", id, None, 0, None, [], 0, False, None]
    return [*head, [], puts, appends, [], None, None, None, None, []]


def talk(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes as they are, and return all that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:  # it has hung up already
                break
            time.sleep(pause)
        said = b""
        try:
            while more := connection.recv(65536):
                said += more
        except ConnectionResetError:
            pass
        return said
