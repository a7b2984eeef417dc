"""Running the ``perdure`` command: in this process where many small cases are tested, and as
a process of its own, with pipes or a terminal, where that makes the difference."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

import perdure
from perdure import Cells, Document, Store

from perdure_cli import main

T = TypeVar("T")

COMMAND = (sys.executable, "-m", "perdure_cli")

ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Result:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"Result({self.code}, {self.out!r}, {self.err!r})"

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def rows(self) -> list[list[str]]:
        """The columns of plain output."""
        return [line.split("\t") for line in self.out.split("\n")[:-1]]

    @property
    def json(self) -> list[Any]:
        """The values of JSON Lines."""
        return [json.loads(line) for line in self.out.split("\n")[:-1]]

    def error(self, code: int = 1) -> str:
        """The one line that says what went wrong."""
        assert self.code == code, self
        assert self.err.startswith("perdure: "), self
        assert self.err.endswith("\n"), self
        assert self.err.count("\n") == 1, self
        assert "Traceback" not in self.err
        return self.err.removeprefix("perdure: ").rstrip("\n")


class Command:
    """The command on one store, run in this process."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self.capsys = capsys

    def __call__(self, name: str, *arguments: str | Path) -> Result:
        self.capsys.readouterr()
        code = main.run([name, "--url", self.url, *map(str, arguments)])
        captured = self.capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def bare(self, *arguments: str) -> Result:
        """Without a ``--url``."""
        self.capsys.readouterr()
        code = main.run(list(arguments))
        captured = self.capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def do(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Use the store itself, and close it."""

        async def run() -> T:
            async with Store(self.url) as store:
                return await work(store)

        return asyncio.run(run())

    def put(self, id: str, *entries: Any) -> None:
        """Append entries to a session."""

        async def append(store: Store) -> None:
            await store.session(id).append(*entries)

        self.do(append)

    def log(self, id: str) -> list[Any]:
        """The entries of a session."""

        async def entries(store: Store) -> list[Any]:
            return list(await store.session(id).entries())

        return self.do(entries)

    def cells(self, id: str) -> dict[str, Any]:
        """The cells of a session."""
        return self.do(lambda store: store.session(id).cells.scan())

    def ids(self) -> list[str]:
        """All sessions of the usual tenant and kind."""

        async def listed(store: Store) -> list[str]:
            return [entry.key.id async for entry in store.list()]

        return self.do(listed)


async def contents(session: perdure.Session) -> dict[str, Any]:
    """All of a session that an export promises to keep."""
    entries, cells, document = await session.read(perdure.Log(), Cells(), Document())
    head = entries.head
    assert head is not None
    attachments = sorted(
        await session.attachments.list(), key=lambda attachment: attachment.digest
    )
    return {
        "entries": list(entries),
        "streams": {
            name: list(await session.stream(name).entries()) for name in await session.streams()
        },
        "attachments": [
            [attachment.media_type, await session.attachments.read(attachment.digest)]
            for attachment in attachments
        ],
        "cells": cells,
        "document": None if document is None else [document.value],
        "labels": list(head.labels),
        "meta": head.meta,
        "expires_at": head.expires_at,
    }


def environment(**variables: str) -> dict[str, str]:
    """A process's environment, clear of what the tests' own says about stores."""
    kept = {name: value for name, value in os.environ.items() if name != "PERDURE_URL"}
    path = os.pathsep.join(filter(None, sys.path))
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "", **variables}


def run_process(
    *arguments: str | Path, cwd: Path, stdin: bytes = b"", **variables: str
) -> Result:
    """Run the command as a process of its own, in pipes."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_in_terminal(
    *arguments: str | Path,
    cwd: Path,
    typed: str = "",
    width: int = 100,
    command: tuple[str, ...] = COMMAND,
) -> Result:
    """Run the command in a terminal of its own, so wide, with ``typed`` at its keyboard."""
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS=str(width)),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(keyboard, typed.encode())
    shown = b""
    while True:
        try:
            part = os.read(keyboard, 65_536)
        except OSError:  # Linux's end of file
            break
        if not part:
            break
        shown += part
    os.close(keyboard)
    code = process.wait(timeout=60)
    return Result(code, shown.decode().replace("\r\n", "\n"), "")


def plain(text: str) -> str:
    """Terminal output without its colours, and without the blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in ESCAPE_SEQUENCE.sub("", text).split("\n"))
