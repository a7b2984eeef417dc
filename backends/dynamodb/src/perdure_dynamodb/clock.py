"""The time by DynamoDB's clock, which it tells in the ``Date`` of every reply, to a second.

A reply that says second D was made while the server's clock was in [D, D + 1 s), at some moment
between the request and its arrival. So each bounds how far the local clock is off; what all of
them say together is known to a few milliseconds after some seconds of traffic.
"""

import time
from email.utils import parsedate_to_datetime

ERROR_MS = 1000
"""By how much :meth:`Clock.now` may be off, unless it is ``vague``."""

_WORST_ROUND_TRIP_MS = 900
"""Replies that took longer bound less than ``ERROR_MS`` asks for."""


def local_now() -> int:
    """The local clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


class Clock:
    """The local clock, corrected as little as the replies allow."""

    def __init__(self) -> None:
        self._offset = 0
        # What has to be added to the local clock lies between these.
        self._low: float = float("-inf")
        self._high: float = float("inf")
        self._text: str | None = None
        self._date = 0

    def now(self) -> int:
        """ms since the epoch. May go back by up to ``ERROR_MS`` when more is learnt."""
        return local_now() + self._offset

    @property
    def bounds(self) -> tuple[float, float]:
        """What replies leave possible for the server's clock minus the local one, in ms."""
        return self._low, self._high

    @property
    def vague(self) -> bool:
        """Whether no reply came soon enough to tell the time by it."""
        return self._high - self._low > 2 * ERROR_MS

    def observe(self, sent: int, received: int, date: str) -> None:
        """Learn from a reply: the local times of its request and arrival, and its ``Date``.

        One that cannot be read is ignored.
        """
        if sent + _WORST_ROUND_TRIP_MS < received and not self.vague:
            return  # it would teach nothing
        if date != self._text:
            try:
                self._date = round(parsedate_to_datetime(date).timestamp() * 1000)
            except ValueError:
                return
            self._text = date
        low, high = self._date - max(sent, received), self._date + 1000 - sent
        known = max(self._low, low), min(self._high, high)
        # Where they contradict one another, a clock has drifted or was set: begin anew.
        self._low, self._high = known if known[0] <= known[1] else (low, high)
        # The correction nearest to none that is off by no more than ERROR_MS.
        least = max(self._low, self._high - ERROR_MS)
        most = min(self._high, self._low + ERROR_MS)
        if self.vague:
            least = most = (self._low + self._high) / 2
        self._offset = round(min(max(0, least), most))
