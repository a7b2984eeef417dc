"""The time by DynamoDB's clock, from the ``Date`` of its replies."""

from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perdure_dynamodb import clock
from perdure_dynamodb.clock import ERROR_MS, Clock

START = 1_800_000_000_000

AHEAD = st.integers(-2_000, 2_000) | st.integers(-10_000_000, 10_000_000)


class Hosts:
    """Ours and the server's, whose clock is ``ahead`` of ours by so many ms."""

    def __init__(self, environment: pytest.MonkeyPatch, ahead: int) -> None:
        self.here = START
        self.ahead = ahead
        self.clock = Clock()
        environment.setattr(clock, "local_now", lambda: self.here)

    def ask(self, there: int = 10, back: int = 10) -> None:
        """A request takes so many ms on its way there, and its reply on its way back."""
        sent = self.here
        self.here += there
        date = formatdate((self.here + self.ahead) // 1000, usegmt=True)
        self.here += back
        self.clock.observe(sent, self.here, date)

    @property
    def error(self) -> int:
        return self.clock.now() - (self.here + self.ahead)


@given(
    ahead=AHEAD,
    trips=st.lists(
        st.tuples(st.integers(0, 90_000), st.integers(0, 450), st.integers(0, 450)), min_size=1
    ),
)
@example(-1050, [(620, 450, 0)])
@example(1050, [(930, 0, 450)])
def test_it_is_never_off_by_more_than_it_says(
    ahead: int, trips: list[tuple[int, int, int]]
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        hosts = Hosts(environment, ahead)
        for pause, there, back in trips:
            hosts.here += pause
            hosts.ask(there, back)
            assert abs(hosts.error) <= ERROR_MS


@given(ahead=AHEAD)
def test_it_is_known_to_milliseconds_after_some_traffic(ahead: int) -> None:
    with pytest.MonkeyPatch.context() as environment:
        hosts = Hosts(environment, ahead)
        for _ in range(100):
            hosts.here += 7
            hosts.ask(5, 5)
        low, high = hosts.clock.bounds
        assert low <= ahead <= high
        assert high - low <= 40


def test_a_clock_that_is_right_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, 0)
    for _ in range(50):
        hosts.here += 313
        hosts.ask(40, 5)
        assert hosts.error == 0


def test_a_slow_reply_teaches_something_only_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, 50_000)
    assert hosts.clock.vague
    hosts.ask(there=4000, back=500)
    assert hosts.clock.vague
    assert abs(hosts.error) <= 3000
    hosts.ask()
    assert not hosts.clock.vague
    assert abs(hosts.error) <= ERROR_MS
    before = hosts.clock.bounds
    hosts.ask(there=4000, back=500)
    assert hosts.clock.bounds == before


def test_a_clock_that_was_set_is_learnt_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, 0)
    hosts.ask()
    for step in (3_600_000, -7_200_000, 1_500):
        hosts.here += step
        hosts.ahead -= step
        hosts.ask()
        assert abs(hosts.error) <= ERROR_MS


def test_a_date_that_cannot_be_read_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, 0)
    for date in ("", "yesterday", "Tue, 99 Foo 2026 99:99:99 GMT"):
        hosts.clock.observe(START, START, date)
    assert hosts.error == 0
