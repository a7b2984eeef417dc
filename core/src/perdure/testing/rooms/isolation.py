"""Names are arbitrary, and sessions whose names differ in one byte never touch one another."""

from itertools import product

from perdure.backend import Backend
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Room, let_pass
from perdure.testing.shorthand import list_ids, new_id, read_values, write
from perdure.types import Append, Condition, SessionKey

SEPARATORS = (":", "/", "|", ".", "-", "#", "\x01", "\x1f", "\t", "::", "\\")

HOSTILE = (
    *("a", "A", "a ", " a", "  ", "aa", "b"),
    *("a:b", "a/b", "../a", "a/../b", ".", "..", "a\\b", "a|b", "a#b", "a.b", "a,b"),
    *("'", "''", '"', "`", "' OR 1=1 --", '"; DROP TABLE items; --', "a'b", "$1", "?", ":1"),
    *("%", "_", "a%", "a_", "%%", "*", "a*", "[a]", "a?", "{a}", "{}", "}{", "{a", "%s", "{0}"),
    *("\n", "a\n", "\r\n", "\t", "\x01", "\x1f", "\x7f", "\u2028"),
    *("null", "None", "0", "00", "1", "1.0", "-1", "true", "nan"),
    *("\u00e9", "e\u0301", "\u212b", "\u00c5", "\ufb01", "fi"),  # alike once normalized
    *("\u00df", "ss", "SS", "I", "i", "\u0130", "\u0131", "\u03c3", "\u03c2"),  # when folded
    *("\u202eabc", "\u200b", "\u200d", "\ufeff", "\ufeffa", "\u00a0"),
    *("\ue000", "\uffff", "\ufffd", "\U00010000", "\U0001f600", "\U0010ffff"),
    *("x" * 512, "x" * 511, "\u20ac" * 170, "\U0001f600" * 128),
)
"""Names that some database, separator, pattern, collation or normalization confuses."""


async def tell_apart(backend: Backend, keys: list[SessionKey]) -> None:
    """Assert that what is done to one of these sessions does not show in any other."""
    assert len(set(keys)) == len(keys)
    for n, key in enumerate(keys):
        made = await write(
            backend,
            key,
            conditions=(Condition(b"who", 0),),
            puts=((b"who", b"%d" % n),),
            appends=(Append(b"log", (b"%d" % n,)),),
        )
        assert made.version == 1, f"{key!r} was there before it was made"
    for n, key in enumerate(keys):
        values = list((await read_values(backend, key)).values())
        assert values == [b"%d" % n] * 2, f"{key!r} holds another's items"
    for key in keys[::2]:
        assert await backend.delete(key, id=new_id())
    for n, key in enumerate(keys):
        head = (await backend.read(key)).head
        if n % 2:
            assert head is not None, f"{key!r} went with another"
            assert (await write(backend, key)).version == 2
        else:
            assert head is None, f"{key!r} is still there"


class Isolation(Room):
    async def test_hostile_session_ids(self, backend: Backend, key: SessionKey) -> None:
        await tell_apart(backend, [SessionKey(key.tenant, "session", id) for id in HOSTILE])

    async def test_hostile_kinds(self, backend: Backend, key: SessionKey) -> None:
        await tell_apart(backend, [SessionKey(key.tenant, kind, "s") for kind in HOSTILE])

    async def test_hostile_tenants(self, backend: Backend, key: SessionKey) -> None:
        # An id of the test's own, since names of 512 bytes leave no room to make one unique.
        id = key.tenant
        await tell_apart(backend, [SessionKey(tenant, "session", id) for tenant in HOSTILE])

    async def test_parts_do_not_run_into_one_another(
        self, backend: Backend, key: SessionKey
    ) -> None:
        keys: dict[SessionKey, None] = {}
        for sep in SEPARATORS:
            for tenant, kind, id in (
                (f"a{sep}b", "c", "d"),
                ("a", f"b{sep}c", "d"),
                ("a", "b", f"c{sep}d"),
                (f"a{sep}b{sep}c", "d", "d"),
                ("a", f"b{sep}c{sep}d", "d"),
                (f"a{sep}", f"b{sep}", f"c{sep}"),
                ("a", f"{sep}b{sep}", f"{sep}c{sep}"),
                (f"a{sep}{sep}b", "c", f"{sep}"),
                (f"a{sep}", f"{sep}b", f"c{sep}{sep}"),
            ):
                keys[SessionKey(f"{key.tenant}{sep}{tenant}", kind, id)] = None
        for tenant, kind, id in product(("t", "tt", "ttt"), repeat=3):
            keys[SessionKey(key.tenant + tenant, kind, id)] = None
        await tell_apart(backend, list(keys))

    async def test_hostile_ids_are_listed_as_they_are(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        for id in HOSTILE:
            await write(backend, SessionKey(key.tenant, "session", id), labels=("l",))
        await let_pass(harness, backend.capabilities.list_lag)
        expected = sorted(HOSTILE, key=str.encode)
        assert await list_ids(backend, key, limit=7) == expected
        assert await list_ids(backend, key, limit=7, label="l") == expected
        for id in HOSTILE:
            found = await list_ids(backend, key, prefix=id)
            assert found == [other for other in expected if other.startswith(id)]

    async def test_hostile_tenants_and_kinds_are_listed_apart(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        keys = [SessionKey(key.tenant, kind, key.tenant) for kind in HOSTILE]
        keys += [SessionKey(tenant, key.tenant, "s") for tenant in HOSTILE]
        for named in keys:
            await write(backend, named)
        await let_pass(harness, backend.capabilities.list_lag)
        for named in keys:
            assert await list_ids(backend, named) == [named.id]

    async def test_hostile_labels(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        labels = [label for label in HOSTILE if len(label.encode()) <= 128]
        for n, label in enumerate(labels):
            await write(backend, SessionKey(key.tenant, "session", f"{n:03}"), labels=(label,))
        await let_pass(harness, backend.capabilities.list_lag)
        for n, label in enumerate(labels):
            assert await list_ids(backend, key, label=label) == [f"{n:03}"], repr(label)

    async def test_hostile_item_keys(self, backend: Backend, key: SessionKey) -> None:
        keys = sorted({name.encode() for name in HOSTILE} | {b"\xff", b"\xed\xa0\x80", b"\x80"})
        for item_key in keys:
            await write(backend, key, puts=((item_key, b"first"),))
        for item_key in keys[::2]:
            await write(backend, key, deletes=(item_key,))
        assert list(await read_values(backend, key)) == keys[1::2]
