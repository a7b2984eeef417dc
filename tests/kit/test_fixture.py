"""The fixtures for users of perdure."""

import subprocess
import sys
from pathlib import Path

from perdure import Store
from perdure.testing import TestClock


async def test_a_store_to_use_at_once(perdure_store: Store) -> None:
    session = perdure_store.session("chat-7")
    await session.append("hello")
    assert await session.entries() == ["hello"]


async def test_every_test_has_a_store_of_its_own(perdure_store: Store) -> None:
    assert await perdure_store.session("chat-7").entries() == []


async def test_the_store_runs_by_the_clock(
    perdure_store: Store, perdure_clock: TestClock
) -> None:
    session = perdure_store.session("chat-7")
    await session.cells.put("lease", 1, expires_in=10)
    before = await session.head()
    perdure_clock.advance(9_999)
    assert await session.cells.get("lease") == 1
    perdure_clock.advance(60_000)
    assert await session.cells.get("lease") is None
    await session.append("later")
    after = await session.head()
    assert before is not None
    assert after is not None
    assert after.updated_at - before.updated_at == 69_999


def test_the_plugin_imports_neither_hypothesis_nor_a_backend() -> None:
    code = (
        "import sys, pytest, perdure.testing.fixture\n"
        "heavy = {'hypothesis', 'perdure_memory', 'perdure_sqlite', 'sqlite3'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_sync_and_async_tests_of_a_user_find_the_fixtures(tmp_path: Path) -> None:
    test = tmp_path / "test_agent.py"
    test.write_text(
        "import asyncio\n"
        "def test_remembers(perdure_store, perdure_clock):\n"
        "    async def run():\n"
        "        await perdure_store.session('s').append('hello')\n"
        "        return await perdure_store.session('s').entries()\n"
        "    assert asyncio.run(run()) == ['hello']\n"
        "    assert (perdure_clock() - 1_700_000_000_000) == 0\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    command += ["-p", "no:perdure", "-p", "perdure.testing.fixture", str(test)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
