"""The end of a life in one transaction: its seal, and what goes at once or has to go."""

from msgspec.structs import replace

from perdure.types import SessionKey

from perdure_dynamodb import due, index, keys, rows
from perdure_dynamodb.actions import Action, TransactionRefused
from perdure_dynamodb.due import Due
from perdure_dynamodb.state import Kind, State, marked
from perdure_dynamodb.table import Table


def sealed(before: State, id: bytes, now: int) -> State:
    """The state that ends the life of which ``before`` is the last.

    ``id`` is that of the delete; empty if the session has expired.
    """
    return replace(
        before,
        kind=Kind.SEAL,
        slot=before.slot + 1,
        tip=id,
        digest=b"",
        made_at=max(now, before.made_at),
        meta=b"",
        meta_slot=0,
        labels=(),
        due_at=0,
        recent=marked(before.recent, id),
        log=None,
        tombs=(),
    )


def actions(key: SessionKey, before: State, seal: State) -> list[Action]:
    """The transaction that ends a life: the first action takes the slot of the seal."""
    slot = rows.put_slot(keys.session(key), seal, (), None)
    return [slot, *index.sealing(key, before, seal)]


async def expire(table: Table, key: SessionKey, before: State) -> Due | None:
    """Seal a session that has expired: what is to be purged then.

    ``None`` if ``before`` is not its newest state any more; a commit that extended its life,
    say, was first.
    """
    seal = sealed(before, b"", table.now())
    try:
        await table.transact(actions(key, before, seal))
    except TransactionRefused:
        return None
    return due.life(key, before, seal)
