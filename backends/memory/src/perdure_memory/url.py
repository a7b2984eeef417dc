"""``memory://``: every opening is a fresh, empty store of its own."""

from perdure.errors import InvalidURL
from perdure.uri import URL

from perdure_memory.backend import MemoryBackend


def open_url(url: URL) -> MemoryBackend:
    """A new store, shared with nobody. Raises ``InvalidURL`` unless the URL is ``memory://``.

    A name in the URL is refused because it suggests that another ``Store`` could share it.
    """
    url.options(())
    if url != URL(scheme="memory"):
        raise InvalidURL(
            "memory:// takes no host, path or password: every store opened by it is a new one "
            "(to share one, pass the same backend or Store around)"
        )
    return MemoryBackend()
