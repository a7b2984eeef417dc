"""What keeps connections from being open while the process forks.

Locks are the process's, and SQLite keeps its own account of them, which a forked process
inherits with whatever connections are open then. New connections of that process to the same
file would be taken to share those locks, and hold none: the log is then reset under them as
soon as the parent closes its own, and with it go acknowledged commits. So all are closed before
a fork, and opened anew when they are next needed.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Gate:
    """Knows who uses connections, and can keep everybody out."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._shut = False
        self._inside = 0

    def enter(self, *, wait: bool) -> bool:
        """Begin to use a connection, now or, with ``wait``, as soon as it is allowed."""
        with self._changed:
            while self._shut:
                if not wait:
                    return False
                self._changed.wait()
            self._inside += 1
        return True

    def leave(self) -> None:
        """Have used it."""
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    @contextmanager
    def entered(self) -> Generator[None, None, None]:
        """Use connections in a block."""
        self.enter(wait=True)
        try:
            yield
        finally:
            self.leave()

    def shut(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._shut = True

    def emptied(self, timeout: float) -> bool:
        """Whether all have left within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._inside, timeout)

    def open(self) -> None:
        """The opposite of :meth:`shut`."""
        with self._changed:
            self._shut = False
            self._changed.notify_all()
