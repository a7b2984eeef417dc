"""Ids of commits and deletes are found however many lives and commits lie behind."""

import pytest

from perdure.backend import REMEMBERED_COMMITS
from perdure.errors import CommitIdReused
from perdure.testing.shorthand import new_commit, new_id, read_head
from perdure.types import Append, Commit, SessionKey

from perdure_dynamodb.backend import DynamoDBBackend
from tests.backends.dynamodb.conftest import Fresh

KEY = SessionKey.of("acme", "session", "chat-7")

LIVES = (70, 1, 1, 64, 3, 65, 2, 130, 1)
"""Commits in each."""


@pytest.mark.parametrize("present", [True, False])
async def test_the_last_ids_of_every_life_are_remembered(
    backend: DynamoDBBackend, fresh: Fresh, present: bool
) -> None:
    remembered: list[Commit] = []
    deletes: list[bytes] = []
    for length in LIVES:
        commits = [new_commit(appends=(Append(b"l\0", (b"x",)),)) for _ in range(length)]
        for commit in commits:
            await backend.commit(KEY, commit)
        remembered += commits[-REMEMBERED_COMMITS:]
        deletes.append(new_id())
        assert await backend.delete(KEY, id=deletes[-1])
    if present:
        await backend.commit(KEY, new_commit())
    head = await read_head(await fresh(), KEY) if present else None
    other = await fresh()
    for commit in remembered:
        assert (await other.commit(KEY, commit)).replayed
    for id in deletes:
        assert await other.delete(KEY, id=id)
        with pytest.raises(CommitIdReused):
            await other.commit(KEY, new_commit(id=id))
    assert (await other.read(KEY)).head == head
