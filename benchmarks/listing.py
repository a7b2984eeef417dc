"""What a page of a list costs, and that it does not matter how many sessions there are."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path

import msgspec

import perdure
from perdure.workers import for_each

from benchmarks import serverless, servers
from benchmarks.contenders import memory, sqlite
from benchmarks.effort import Effort, step
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.servers import Server
from benchmarks.table import Row, Table, Target
from tests.services.server import ServerMissing

PAGE = 100
LABELLED = 4
"""One session of so many carries the label."""

WRITERS = 64

LISTS: Mapping[str, Mapping[str, object]] = {
    "by id": {},
    "by label": {"label": "starred"},
    "by recency": {"order": perdure.Order.RECENCY},
}

LIMIT = Target(1.3)


class Sizes(msgspec.Struct, frozen=True):
    """How many sessions the two tenants of a store have."""

    few: int
    many: int
