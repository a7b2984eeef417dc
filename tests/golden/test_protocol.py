"""The test vectors of the protocol, for clients and servers in any language.

``protocol.json`` is never edited while the protocol's version stays, only added to. To see it
with new cases::

    python -m tests.golden.test_protocol

Bytes are in hexadecimal. In a ``value``, ``{"bin": "…"}`` stands for MessagePack's bin, and
``{"map": {…}}`` for a map; all else is as in JSON.
"""

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from perdure.errors import (
    PerdureError,
    Unavailable,
)
from perdure.protocol import requests
from perdure.protocol.auth import Keys, bearer, sign
from perdure.protocol.messages import Malformed
from perdure.protocol.paths import Operation, path_of, route
from perdure.protocol.refusals import Code, Refused, answer_to, read_refusal
from perdure.types import (
    Head,
    Rows,
)

from tests.golden.protocol_cases import (
    ANSWERS,
    BAD_PATHS,
    BAD_REQUESTS,
    DECODERS,
    ERRORS,
    NOW,
    PATHS,
    REQUESTS,
    SECRET,
    SIGNED,
    WAITS,
    Message,
)

FILE = Path(__file__).with_name("protocol.json")


def tagged(value: object) -> object:
    """A MessagePack value as the file has it."""
    match value:
        case bytes():
            return {"bin": value.hex()}
        case list():
            return [tagged(each) for each in cast("list[object]", value)]
        case dict():
            members = cast("dict[str, object]", value)
            return {"map": {name: tagged(each) for name, each in members.items()}}
        case _:
            return value


def _message(message: Message) -> dict[str, object]:
    return {
        "name": message.name,
        "operation": message.operation.value,
        "value": tagged(msgspec.msgpack.decode(message.body)),
        "body": message.body.hex(),
    }


def _error(error: PerdureError) -> dict[str, object]:
    answer = answer_to(error, NOW)
    return {
        "status": answer.status,
        "headers": answer.headers,
        "value": tagged(msgspec.msgpack.decode(answer.body)),
        "body": answer.body.hex(),
    }


def vectors() -> dict[str, object]:
    """What the file is to hold."""
    return {
        "version": 1,
        "paths": [
            {
                "operation": operation.value,
                "scope": scope,
                "method": operation.method,
                "path": path_of(operation, *scope),
            }
            for operation, scope in PATHS
        ],
        "bad_paths": [
            {"method": method, "path": path, "code": code.text}
            for method, path, code in BAD_PATHS
        ],
        "waits": [
            {
                "after": tagged(
                    [head.version, head.tip, head.incarnation] if head is not None else None
                ),
                "timeout": timeout,
                "query": requests.wait_query(head, timeout),
            }
            for head, timeout in WAITS
        ],
        "requests": [_message(message) for message in REQUESTS],
        "bad_requests": [
            {"operation": operation.value, "body": body.hex(), "why": why}
            for operation, body, why in BAD_REQUESTS
        ],
        "answers": [_message(message) for message in ANSWERS],
        "errors": [_error(error) for error in ERRORS],
        "bearers": [
            {"id": "key-1", "secret": SECRET, "authorization": bearer("key-1", SECRET)}
        ],
        "signatures": [
            {
                "id": "key-1",
                "secret": SECRET,
                "method": method,
                "target": target,
                "time": NOW,
                "body": body.hex(),
                "authorization": sign("key-1", SECRET, method, target, NOW, body),
            }
            for method, target, body in SIGNED
        ],
    }


def rendered() -> str:
    """The file."""
    parts = vectors()
    lines = ["{"]
    for number, (name, cases) in enumerate(parts.items()):
        comma = "," if number + 1 < len(parts) else ""
        if isinstance(cases, list):
            written = ",\n".join(
                "  " + json.dumps(case, ensure_ascii=False)
                for case in cast("list[object]", cases)
            )
            lines.append(f"{json.dumps(name)}: [\n{written}\n]{comma}")
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(cases)}{comma}")
    return "\n".join([*lines, "}", ""])


def test_the_messages_have_not_changed() -> None:
    assert rendered() == FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "message", [*REQUESTS, *ANSWERS], ids=lambda m: f"{m.operation.value}: {m.name}"
)
def test_a_message_means_what_was_written(message: Message) -> None:
    assert message.decode(message.body) == message.meaning


@pytest.mark.parametrize(("operation", "body", "why"), BAD_REQUESTS)
def test_a_malformed_request_is_refused(operation: Operation, body: bytes, why: str) -> None:
    with pytest.raises(Malformed):
        DECODERS[operation](body)


@pytest.mark.parametrize(("operation", "scope"), PATHS)
def test_a_path_is_found_again(operation: Operation, scope: tuple[str, ...]) -> None:
    found = route(operation.method, path_of(operation, *scope))
    assert (found.operation, found.scope) == (operation, scope)


@pytest.mark.parametrize(("method", "path", "code"), BAD_PATHS)
def test_a_bad_path_is_refused(method: str, path: str, code: Code) -> None:
    with pytest.raises(Refused) as raised:
        route(method, path)
    assert raised.value.code is code


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__}: {e}")
def test_an_error_is_raised_again(error: PerdureError) -> None:
    answer = answer_to(error, NOW)
    retry_after = answer.headers.get("Retry-After")
    told = read_refusal(answer.status, answer.body, writes=True, retry_after=retry_after)
    again = told.error
    assert str(again) == str(error)
    if isinstance(error, Refused):
        assert isinstance(again, Unavailable)
        assert again.lasting
    else:
        assert type(again) is type(error)
        assert _facts(again) == _facts(error)


def _facts(error: PerdureError) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(error).items()}


def _plain(value: object) -> object:
    return tuple(cast("tuple[Rows, ...]", value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("head", "timeout"), WAITS)
def test_a_position_to_wait_from_is_found_again(head: Head | None, timeout: int) -> None:
    position, milliseconds = requests.wait_of(requests.wait_query(head, timeout))
    assert milliseconds == timeout
    if head is None:
        assert position is None
    else:
        assert position == requests.Position(head.version, head.tip, head.incarnation)


@pytest.mark.parametrize(("method", "target", "body"), SIGNED)
def test_a_signature_is_accepted(method: str, target: str, body: bytes) -> None:
    keys = Keys.parse(json.dumps([{"id": "key-1", "secret": SECRET, "mode": "hmac"}]))
    header = sign("key-1", SECRET, method, target, NOW, body)
    assert keys.check(header, NOW + 1, method, target, body).id == "key-1"


if __name__ == "__main__":
    print(rendered(), end="")
