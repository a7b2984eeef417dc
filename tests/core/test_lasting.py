"""What no repetition can help is said at once."""

import threading
import time
from pathlib import Path

import pytest

from perdure import Store, Unavailable


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("perdure")]


@pytest.mark.parametrize("path", ["", "/a-file/sessions.db"], ids=["directory", "below a file"])
async def test_a_path_that_cannot_be_opened_is_refused_without_repeating(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "a-file").touch()
    store = Store(f"sqlite:///{tmp_path}{path}", deadline=30)
    begun = time.monotonic()
    for use in (store.load("s"), store.save("s", 1), store.delete("s"), store.describe()):
        with pytest.raises(Unavailable) as caught:
            await use
        assert caught.value.lasting
    assert time.monotonic() - begun < 10
    await store.aclose()


async def test_a_store_works_once_its_path_is_mended(tmp_path: Path) -> None:
    blocking = tmp_path / "below"
    blocking.touch()
    store = Store(f"sqlite:///{blocking}/sessions.db")
    with pytest.raises(Unavailable):
        await store.save("s", 1)
    blocking.unlink()
    await store.save("s", 2)
    assert await store.load("s") == 2
    await store.aclose()


async def test_a_store_that_could_not_be_entered_leaves_nothing_open(tmp_path: Path) -> None:
    before = own_threads()
    blocking = tmp_path / "below"
    blocking.touch()
    store = Store(f"sqlite:///{blocking}/sessions.db")
    with pytest.raises(Unavailable):
        async with store:
            pytest.fail("there is nothing to enter")
    assert own_threads() == before
    blocking.unlink()
    async with store:
        await store.save("s", 1)
    assert own_threads() == before
