"""Encryption at rest: rows are sealed on their way to a backend, and opened on their way back.

``docs/format.md`` has the bytes, and what is and is not noticed when they are tampered with.
The package ``cryptography`` is loaded by what seals and opens rows, and by nothing else.
"""

from perdure.backend import Backend
from perdure.encryption.keys import KeyRing
from perdure.forwarding import Forwarding

__all__ = ["KeyRing", "Sealing", "as_stored"]


class Sealing(Forwarding):
    """A backend that keeps its rows sealed in another one, whatever they are sealed with."""


def as_stored(backend: Backend) -> Backend:
    """The backend that has the rows as they are stored: where a store has keys, the one behind
    that which seals them."""
    return backend.backend if isinstance(backend, Sealing) else backend
