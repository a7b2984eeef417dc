"""Every Python example in every document runs as it stands and prints what is shown."""

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import perdure

from tests.docs.markdown import DOCUMENTS, Block, blocks
from tests.docs.urls import own_url
from tests.quality.workspace import ROOT


def runs(block: Block) -> bool:
    return block.language == "python" and not block.info


GUIDE_URL = "sqlite:///sessions.db"


def relative(document: Path) -> str:
    return str(document.relative_to(ROOT))


WITH_EXAMPLES = [path for path in DOCUMENTS if any(runs(block) for block in blocks(path))]


def shown_outputs(document: Path) -> Iterator[tuple[Block, str | None]]:
    """Each block that runs, with the output shown behind it."""
    for block, following in pairwise([*blocks(document), None]):
        if block is not None and runs(block):
            shown = following is not None and following.info == "output"
            yield block, following.source if following is not None and shown else None


def replaced(source: str, url: str | None) -> str:
    return source if url is None else source.replace(f'"{GUIDE_URL}"', repr(url))


async def run(
    document: Path, capsys: pytest.CaptureFixture[str], url: str | None = None
) -> None:
    """Run a document's examples; with ``url`` in place of the one that they use."""
    names: dict[str, object] = {"__name__": "example"}
    try:
        for block, output in shown_outputs(document):
            code = compile(
                "\n" * block.line + replaced(block.source, url),  # errors name the right line
                str(document),
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            )
            running = eval(code, names)
            if inspect.isawaitable(running):
                await running
            printed = capsys.readouterr().out
            if output is not None:
                assert printed == output, f"{document.name}, line {block.line + 1}"
    finally:
        if isinstance(store := names.get("store"), perdure.Store):
            await store.aclose()


@pytest.mark.parametrize("document", WITH_EXAMPLES, ids=relative)
def test_the_examples_of_a_document_run_in_order(
    document: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_URL", raising=False)
    asyncio.run(run(document, capsys))


@pytest.mark.parametrize("server", ["valkey_url", "postgres_url"])
def test_the_guide_runs_on_a_server_with_only_the_url_changed(
    server: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    for page in ("quick-start.md", "turns.md", "long-sessions.md"):
        url = own_url(request.getfixturevalue(server))
        asyncio.run(run(ROOT / "docs" / "guide" / page, capsys, url))


def test_a_python_block_runs_or_says_why_not() -> None:
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == "python":
                assert re.fullmatch(r'|file=\S+|skip=".+"', block.info), (
                    f"{relative(document)}, line {block.line}: {block.info}"
                )


def test_outputs_stand_behind_what_prints_them() -> None:
    for document in DOCUMENTS:
        shown = [output for _, output in shown_outputs(document) if output is not None]
        assert len(shown) == sum(block.info == "output" for block in blocks(document))


def test_the_guide_and_the_packages_have_examples() -> None:
    assert {relative(document) for document in WITH_EXAMPLES} >= {
        "core/README.md",
        "backends/memory/README.md",
        "backends/sqlite/README.md",
        "docs/guide/quick-start.md",
    }
