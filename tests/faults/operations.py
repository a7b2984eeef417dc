"""Every operation of a backend, and how to tell that it left everything whole."""

from abc import ABC, abstractmethod

from perdure.backend import Backend
from perdure.errors import SessionDeleted
from perdure.testing.shorthand import (
    new_commit,
    new_id,
    read_head,
    read_values,
    resent,
    write,
)
from perdure.types import (
    Append,
    Commit,
    Condition,
    Get,
    Head,
    KeyRange,
    ListQuery,
    Scan,
    SessionKey,
    append_key,
)

TENANT = "faults"
FRUITS = ((b"a", b"apple"), (b"b", b"banana"), (b"c", b"cherry"))
LOG = b"log"


class Operation(ABC):
    """One call, made once. Each instance belongs to one attempt, on a session of its own."""

    def __init__(self, backend: Backend, key: SessionKey) -> None:
        self.backend = backend
        self.key = key

    async def prepare(self) -> None:
        """Make what the call needs."""
        self.made = await write(self.backend, self.key, puts=FRUITS)

    @abstractmethod
    async def run(self) -> None:
        """The call that may be cancelled, and what must hold if it is not."""

    @abstractmethod
    async def check(self, *, ran: bool) -> None:
        """After the call, which ``ran`` to its end or was cancelled: it was done whole or not
        at all, and the backend does the next thing right."""


class Reading(Operation):
    async def run(self) -> None:
        snapshot = await self.backend.read(self.key, Get(b"a"), Scan(b"b"))
        assert snapshot.head == self.made.head
        found = [[(item.key, item.value) for item in rows.items] for rows in snapshot.rows]
        assert found == [[FRUITS[0]], list(FRUITS[1:])]

    async def check(self, *, ran: bool) -> None:
        await self.run()


class Committing(Operation):
    """A commit of some kind: ``before`` and ``after`` are the items that it may leave."""

    commit: Commit
    before = dict(FRUITS)
    after: dict[bytes, bytes]
    base = 1

    async def run(self) -> None:
        result = await self.backend.commit(self.key, self.commit)
        assert result.version == self.base + 1
        assert not result.replayed

    async def check(self, *, ran: bool) -> None:
        snapshot = await self.backend.read(self.key, Scan())
        version = snapshot.head.version if snapshot.head else 0
        applied = version == self.base + 1
        assert applied or version == self.base
        assert applied or not ran
        values = {item.key: item.value for item in snapshot.rows[0].items}
        assert values == (self.after if applied else self.before)
        # The sender does not know, and sends it again. What was on its way when the task was
        # cancelled may have arrived only now.
        settled = await self.backend.commit(self.key, resent(self.commit))
        assert settled.version == self.base + 1
        assert settled.replayed or not applied
        assert await read_values(self.backend, self.key) == self.after
        head = await read_head(self.backend, self.key)
        assert (head.version, head.tip) == (self.base + 1, self.commit.id)


class Creating(Committing):
    before = {}
    after = dict(FRUITS)
    base = 0

    async def prepare(self) -> None:
        self.commit = new_commit(puts=FRUITS, labels=("red",), meta=b"m", expires_in=60_000)


class Appending(Committing):
    after = {**dict(FRUITS), append_key(LOG, 2, 0): b"one", append_key(LOG, 2, 1): b"two"}

    async def prepare(self) -> None:
        await super().prepare()
        self.commit = new_commit(
            appends=(Append(LOG, (b"one", b"two")),), incarnation=self.made.incarnation, base=1
        )


class Replacing(Committing):
    """Conditions, a range and a key deleted, a put, and the rows read with it."""

    after = {b"a": b"avocado", b"d": b"date"}

    async def prepare(self) -> None:
        await super().prepare()
        self.commit = new_commit(
            incarnation=self.made.incarnation,
            base=1,
            conditions=(Condition(b"a", 1), Condition(b"d", 0)),
            deletes=(b"c", KeyRange(b"b", b"c")),
            puts=((b"a", b"avocado"), (b"d", b"date")),
            returning=(Scan(),),
        )


class Unstaging(Committing):
    """A commit that names a stage."""

    after = {**dict(FRUITS), b"s": b"staged"}

    async def prepare(self) -> None:
        await super().prepare()
        stage, incarnation = new_id(), self.made.incarnation
        await self.backend.stage(self.key, incarnation, stage, ((b"s", b"staged"),))
        self.commit = new_commit(stages=(stage,), incarnation=incarnation, base=1)


class Staging(Operation):
    async def prepare(self) -> None:
        await super().prepare()
        self.stage = new_id()

    async def run(self) -> None:
        parts = ((b"s", b"staged"), (b"t", b"too"))
        await self.backend.stage(self.key, self.made.incarnation, self.stage, parts)

    async def check(self, *, ran: bool) -> None:
        assert await read_values(self.backend, self.key) == dict(FRUITS)
        await self.run()
        incarnation = self.made.incarnation
        await write(self.backend, self.key, stages=(self.stage,), incarnation=incarnation)
        staged = {b"s": b"staged", b"t": b"too"}
        assert await read_values(self.backend, self.key) == {**dict(FRUITS), **staged}


class Deleting(Operation):
    async def prepare(self) -> None:
        await super().prepare()
        self.id = new_id()

    async def run(self) -> None:
        assert await self.backend.delete(self.key, id=self.id)

    async def check(self, *, ran: bool) -> None:
        snapshot = await self.backend.read(self.key, Scan())
        values = {item.key: item.value for item in snapshot.rows[0].items}
        if snapshot.head is None:
            assert values == {}
        else:
            assert not ran
            assert (snapshot.head, values) == (self.made.head, dict(FRUITS))
        await self.run()  # again under the same id
        late = new_commit(puts=FRUITS, incarnation=self.made.incarnation)
        try:
            await self.backend.commit(self.key, late)
        except SessionDeleted:
            pass
        else:
            raise AssertionError("a late write brought back a deleted session")
        again = await write(self.backend, self.key, puts=FRUITS)
        assert again.version == 1


class Listing(Operation):
    async def run(self) -> None:
        query = ListQuery(prefix=self.key.id, limit=10)
        page = await self.backend.list(self.key.tenant, self.key.kind, query)
        assert [(entry.key, entry.head) for entry in page.items] == [(self.key, self.made.head)]

    async def check(self, *, ran: bool) -> None:
        await self.run()


class Enumerating(Operation):
    """Tenants and kinds."""

    async def run(self) -> None:
        page = await self.backend.tenants(limit=1000)
        assert self.key.tenant in page.items
        kinds = await self.backend.kinds(self.key.tenant, limit=1000)
        assert self.key.kind in kinds.items

    async def check(self, *, ran: bool) -> None:
        await self.run()


class Sweeping(Operation):
    async def prepare(self) -> None:
        await super().prepare()
        gone = SessionKey(self.key.tenant, self.key.kind, f"{self.key.id} gone")
        await write(self.backend, gone, puts=FRUITS, expires_in=1)

    async def run(self) -> None:
        assert await self.backend.sweep() >= 0

    async def check(self, *, ran: bool) -> None:
        for _ in range(100):
            if not await self.backend.sweep():
                break
        else:
            raise AssertionError("sweeping does not come to an end")
        assert await read_values(self.backend, self.key) == dict(FRUITS)


class Describing(Operation):
    async def run(self) -> None:
        assert (await self.backend.describe()).location

    async def check(self, *, ran: bool) -> None:
        await self.run()


class Waiting(Operation):
    async def run(self) -> None:
        head = await self.backend.wait(self.key, after=self.made.head, timeout=0.05)
        assert head == self.made.head

    async def check(self, *, ran: bool) -> None:
        changed: Head | None = (await write(self.backend, self.key, puts=FRUITS)).head
        assert await self.backend.wait(self.key, after=self.made.head, timeout=20) == changed


class Opening(Operation):
    """The first thing that a backend is asked."""

    async def prepare(self) -> None:
        """Nothing: that would open it."""

    async def run(self) -> None:
        await self.backend.open()

    async def check(self, *, ran: bool) -> None:
        await self.run()
        await write(self.backend, self.key, puts=FRUITS)
        assert await read_values(self.backend, self.key) == dict(FRUITS)


class FirstCommitting(Creating):
    """A commit that finds the backend not yet open."""


ALL: tuple[type[Operation], ...] = (
    Reading,
    Creating,
    Appending,
    Replacing,
    Unstaging,
    Staging,
    Deleting,
    Listing,
    Enumerating,
    Sweeping,
    Describing,
    Waiting,
)
"""On a backend that is open."""

FIRST: tuple[type[Operation], ...] = (Opening, FirstCommitting)
"""On a new backend."""
