"""The Python examples in the distributions' READMEs run as they stand."""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

import perdure

from tests.quality.workspace import ROOT, members

EXAMPLES = [
    pytest.param(source, id=f"{member.name}-{number}")
    for member in members()
    for number, source in enumerate(
        re.findall(
            r"^```python\n(.*?)^```",
            (member.directory / "README.md").read_text(),
            re.MULTILINE | re.DOTALL,
        )
    )
]


@pytest.mark.parametrize("source", EXAMPLES)
def test_an_example_runs(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {"__name__": "example"}
    running = eval(code, names)

    async def finish() -> None:
        if inspect.isawaitable(running):
            await running
        if (store := names.get("store")) is not None:
            assert isinstance(store, perdure.Store)
            await store.aclose()

    asyncio.run(finish())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
    assert (ROOT / "core" / "README.md").exists()
