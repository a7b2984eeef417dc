"""Encryption at rest: rows are sealed on their way to a backend, and opened on their way back.

``docs/format.md`` has the bytes, and what is and is not noticed when they are tampered with.
Nothing here needs the package ``cryptography`` before a row is sealed or opened.
"""

from perdure.encryption.keys import KeyRing

__all__ = ["KeyRing"]
