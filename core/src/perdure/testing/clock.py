"""A clock that moves when it is told to."""


class TestClock:
    """Milliseconds since the epoch, as a backend's ``clock``. Stands still but for ``advance``.

    It starts in November 2023, so that a backend which asks the real clock behind its back
    disagrees by years rather than by nothing.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, ms: int) -> None:
        """Let ``ms`` milliseconds pass at once. Raises ``ValueError`` if negative."""
        if ms < 0:
            raise ValueError("time does not run backwards")
        self.now += ms
