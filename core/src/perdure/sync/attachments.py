"""Twins of :mod:`perdure.attachments`, written by ``python -m tests.core.sync.generate``."""

from collections.abc import Generator

from perdure import attachments as asynchronous
from perdure.attachment_sources import Source
from perdure.attachments import Attachment
from perdure.background import Background


class Attachments:
    """A session's attachments: bytes of any length up to 3.9 GiB, each kept once.

    ``session.attachments``. They are part of the session: gone with it, copied by a fork. An
    entry, a cell or the document refers to one by having its digest in some string;
    ``sweep`` removes those that nothing refers to a day after they were put. Methods raise
    what those of :class:`perdure.Session` do.
    """

    __slots__ = ("_attachments", "_background")

    def __init__(self, of: asynchronous.Attachments, background: Background) -> None:
        self._attachments = of
        self._background = background

    def __repr__(self) -> str:
        return repr(self._attachments)

    def put(self, source: Source, *, media_type: str | None = None) -> Attachment:
        """Keep bytes, and return what to call them. Creates the session if it is absent.

        ``source``: bytes, a binary file (also one whose ``read`` is awaited), or a sync or
        async iterable of bytes, read 255 KiB at a time, of which a few are held. Content that
        is there already is not kept again: it counts as put now, under the media type given
        last.

        Nothing shows before the whole is there. Less than 510 KiB go in one commit, which is
        one round trip (two, on a store that has not asked its backend anything). More is
        staged, 510 KiB per round trip, after one round trip and before two. What an upload
        that ends in between has staged is removed by ``sweep`` a day later. Beyond 65 MiB,
        each 65 MiB take a further commit at the end; these do not show either, but for the
        session that the first may create.

        Raises ``InvalidValue`` for what is no source of bytes, ``TooLarge``,
        ``SessionDeleted``, and ``StageMissing`` if somebody else creates the session
        meanwhile, or a day passes, and the source cannot be read again. What the source itself
        raises goes through. In all these cases nothing was written.
        """
        return self._background.run(self._attachments.put(source, media_type=media_type))

    def open(
        self, digest: str, *, start: int = 0, stop: int | None = None
    ) -> Generator[bytes, None, None]:
        """The content in pieces of up to 255 KiB, or its bytes from ``start`` to ``stop``::

            for piece in session.attachments.open(digest): ...

        Reads only the parts that it needs, half a MiB per round trip, the next two while one is
        being used. No byte is given out before the part that it is in was checked and, before
        the last one, the digest of the whole, if all of it was read: raises ``Corrupt``.
        ``start`` and ``stop`` may be beyond the end. Raises ``AttachmentNotFound``, also if it
        is deleted meanwhile.
        """
        return self._background.iterate(self._attachments.open(digest, start=start, stop=stop))

    def read(self, digest: str) -> bytes:
        """The whole content, checked, in memory. Raises as :meth:`open` does."""
        return self._background.run(self._attachments.read(digest))

    def stat(self, digest: str) -> Attachment | None:
        """What is known of an attachment; ``None`` if there is none. One round trip."""
        return self._background.run(self._attachments.stat(digest))

    def list(self) -> list[Attachment]:
        """All attachments, the one put last at the end. One round trip, and one more for
        every so many thousand; contents are not read."""
        return self._background.run(self._attachments.list())

    def delete(self, digest: str) -> bool:
        """Remove an attachment; whether there was one. Two round trips.

        What refers to it stays as it is.
        """
        return self._background.run(self._attachments.delete(digest))
