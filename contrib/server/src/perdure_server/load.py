"""How much is under way, and what is turned away because of it."""

from collections.abc import Generator
from contextlib import contextmanager

from perdure.protocol.refusals import Code, Refused


class Load:
    """Requests, waits and bytes that a server holds. More than it takes is refused at once,
    with ``overloaded``, so that what it has taken is done in time."""

    def __init__(self, *, requests: int, waits: int, held: int) -> None:
        self.max_requests = requests
        self.max_waits = waits
        self.max_held = held
        self.requests = 0
        self.waits = 0
        self.held = 0
        """Bytes of the bodies of all requests under way."""

    @contextmanager
    def request(self) -> Generator[None]:
        """While one request is under way. Raises ``Refused``."""
        _check(self.requests < self.max_requests)
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def wait(self) -> Generator[None]:
        """While somebody waits for a change. Raises ``Refused``."""
        _check(self.waits < self.max_waits)
        self.waits += 1
        try:
            yield
        finally:
            self.waits -= 1

    def hold(self, size: int, *, proven: bool) -> None:
        """Count a part of a body. Raises ``Refused``.

        Who has not proven yet to have a key takes only of the first half.
        """
        most = self.max_held if proven else self.max_held // 2
        _check(self.held + size <= most)
        self.held += size

    def release(self, size: int) -> None:
        """The inverse of :meth:`hold`."""
        self.held -= size


def _check(room: bool) -> None:
    if not room:
        raise Refused(Code.OVERLOADED, "too much is under way on this server; try again later")
