"""The state machine's rules about lists."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from perdure.testing.lockstep import Lockstep
from perdure.testing.shorthand import list_pages
from perdure.types import Expect, Order

keys = st.sampled_from(["s", "s2", "\U0001f600", "\uffff"])


class Lists(Lockstep):
    """Lists show what the model holds, also if it changes between two pages."""

    @rule(
        order=st.sampled_from(Order),
        prefix=st.sampled_from(["", "s", "s2", "\U0001f600"]),
        label=st.none() | st.sampled_from(["red", "blue", "r", "é"]),
        limit=st.integers(1, 4),
    )
    def list(self, order: Order, prefix: str, label: str | None, limit: int) -> None:
        if self.backend.capabilities.list_lag:
            return
        prefix = prefix if order is Order.ID else ""
        pages = self.run_one(
            list_pages(
                self.backend,
                self.key("any"),
                order=order,
                prefix=prefix,
                label=label,
                limit=limit,
            )
        )
        found = [entry for page in pages for entry in page]
        expected = self.listed(prefix, label)
        if order is Order.RECENCY:
            times = [entry.head.updated_at for entry in found]
            if not self.backend.capabilities.recency_lag:
                assert times == sorted(times, reverse=True), "last committed first"
            found.sort(key=lambda entry: entry.key.id.encode())
        assert [entry.key for entry in found] == [entry.key for entry in expected]
        for entry, other in zip(found, expected, strict=True):
            self.same_head(entry.head, other.head)

    @rule(
        id=keys,
        change=st.sampled_from(["delete", "label", "unlabel", "write"]),
        label=st.none() | st.just("red"),
        limit=st.integers(1, 3),
    )
    def list_around_a_change(self, id: str, change: str, label: str | None, limit: int) -> None:
        if self.backend.capabilities.list_lag:
            return
        key = self.key(id)
        before = self.listed("", label)
        found, cursor = self.list_page(label, limit, None)
        if change == "delete":
            self.send_deletion(key, self.new_id(), Expect.PRESENT, None)
        elif change == "write":
            self.write(key, puts=((b"a", b"changed"),))
        else:
            self.write(key, labels=("red",) if change == "label" else ())
        while cursor is not None:
            page, cursor = self.list_page(label, limit, cursor)
            found += page
        after = {entry.key for entry in self.listed("", label)}
        ids = [entry.key.id.encode() for entry in found]
        assert ids == sorted(set(ids)), "in order, nothing twice"
        keys = {entry.key for entry in found}
        staying = {entry.key for entry in before} & after
        assert staying <= keys <= {entry.key for entry in before} | after
