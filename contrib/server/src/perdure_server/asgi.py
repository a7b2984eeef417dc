"""The part of ASGI 3 that a server and an application say to one another.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from perdure.protocol.limits import CONTENT_TYPE
from perdure.protocol.refusals import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def target_of(scope: Scope) -> tuple[str, str]:
    """Path and query as they were sent, the path without the prefix that the application is
    mounted below."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    prefix: str = scope.get("root_path", "")
    query: bytes = scope["query_string"]
    return path.decode("latin-1").removeprefix(prefix), query.decode("latin-1")


def header_of(scope: Scope, name: bytes) -> str | None:
    """The only value of a header; ``None`` if it is absent, or there are several."""
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


def start_of(answer: Answer) -> Message:
    """Status and headers of an answer, without its ``type``."""
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    headers += [(name.lower().encode(), text.encode()) for name, text in answer.headers.items()]
    return {"status": answer.status, "headers": headers}
