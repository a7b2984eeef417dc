"""Reading the same of several sessions."""

from collections.abc import Sequence
from typing import Any

from perdure.client import Client
from perdure.handle import Handle
from perdure.request import Request, check_requests
from perdure.types import SessionKey
from perdure.workers import for_each

AT_ONCE = 16
"""Sessions read at the same time."""


async def read_sessions(
    client: Client, keys: Sequence[SessionKey], requests: tuple[Request[Any], ...]
) -> list[tuple[Any, ...]]:
    """The answers for each session, in the order of ``keys``."""
    check_requests(requests)
    answers: list[tuple[Any, ...]] = [()] * len(keys)

    async def read(numbered_key: tuple[int, SessionKey]) -> None:
        number, key = numbered_key
        _, found = await Handle(client, key).read(requests)
        answers[number] = tuple(found)

    await for_each(enumerate(keys), read, at_once=min(AT_ONCE, len(keys)))
    return answers
