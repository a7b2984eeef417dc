"""Exporting: nothing lost on the way to a file and back into another store."""

import asyncio
import json
import os
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import Store
from perdure.types import check_identifier

from perdure_cli.export import run_export
from perdure_cli.load import run_import
from perdure_cli.target import Target
from perdure_memory.backend import MemoryBackend
from tests.contrib.cli.command import Command, contents
from tests.contrib.cli.test_values import LOOKALIKES
from tests.core.codec.values import exact, nested, values

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)
stored = nested(values | LOOKALIKES)
sessions = st.fixed_dictionaries(
    {
        "entries": st.lists(stored, max_size=8),
        "cells": st.dictionaries(names, stored, max_size=3),
        "document": st.lists(stored, max_size=1),
        "labels": st.lists(names, max_size=4, unique=True),
        "meta": st.binary(max_size=40),
        "expires_at": st.none()
        | st.datetimes(datetime(2200, 1, 1), datetime(2300, 1, 1), timezones=st.just(UTC)),
    }
)


class Kept(Target, frozen=True, kw_only=True):
    """A target whose store is given, and outlives the command."""

    backend: MemoryBackend

    def store(self) -> Store:
        return Store(self.backend)


async def fill(backend: MemoryBackend, made: dict[str, dict[str, Any]]) -> None:
    store = Store(backend)
    for id, session in made.items():
        handle = store.session(id)
        await handle.set(
            labels=tuple(session["labels"]),
            meta=session["meta"],
            expires_at=session["expires_at"],
        )
        if session["entries"]:
            await handle.append(*session["entries"])
        for name, value in session["cells"].items():
            await handle.cells.put(name, value)
        for document in session["document"]:
            await store.save(id, document)


async def everything(backend: MemoryBackend) -> dict[str, Any]:
    store = Store(backend)
    return {
        entry.key.id: {
            name: exact(value)
            for name, value in (await contents(store.session(entry.key.id))).items()
        }
        async for entry in store.list()
    }
