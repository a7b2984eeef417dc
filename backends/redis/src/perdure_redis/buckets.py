"""Writes, which may need the index of the session's bucket; it is made when first needed."""

from typing import cast

from perdure.errors import Corrupt, FormatTooNew, OutcomeUnknown, Unavailable

from perdure_redis.encoding import NO_INDEX
from perdure_redis.keys import Names
from perdure_redis.router import Reply, Router
from perdure_redis.scripts import SETUP, Script


class Buckets:
    """The buckets under the prefix of ``names``.

    ``setup=False`` never begins to use a prefix: it does not make the first bucket's index.
    """

    def __init__(self, router: Router, names: Names, *, setup: bool) -> None:
        self._router = router
        self._names = names
        self._setup = setup

    async def write(self, bucket: int, script: Script, key: bytes, *args: bytes) -> Reply:
        """What a script that writes answers. Raises as :meth:`prepare` does."""
        reply = await self._router.call(bucket, script, key, *args)
        if cast("list[int]", reply.value)[0] != NO_INDEX:
            return reply
        await self.prepare(bucket)
        reply = await self._router.call(bucket, script, key, *args)
        if cast("list[int]", reply.value)[0] != NO_INDEX:
            return reply
        raise Unavailable(
            "redis: the session and the index of its bucket are on two nodes while their slot "
            "is being moved; nothing was applied"
        )

    async def prepare(self, bucket: int) -> None:
        """Make a bucket's index if it is not there, and check its format.

        Raises ``Unavailable``, lasting if this user may not do what perdure does, or if the
        prefix is not in use and must not be; ``FormatTooNew``; ``Corrupt`` if a key in its
        place is not perdure's.
        """
        index, prefix = self._names.indexes[bucket], self._names.prefix
        make = self._setup or bucket > 0
        try:
            reply = await self._router.call(bucket, SETUP, index, b"1" if make else b"0")
        except OutcomeUnknown as error:  # an index made is no change that anybody sees
            raise Unavailable(str(error)) from error
        forbidden, kind, formats = cast("tuple[list[bytes], bytes, list[bytes]]", reply.value)
        if forbidden:
            commands = ", ".join(command.decode() for command in dict.fromkeys(forbidden))
            raise Unavailable(
                f"redis: this user may not run what perdure needs on the keys {prefix}:*: "
                f"{commands}",
                lasting=True,
            )
        if kind == b"none" and not make:
            raise Unavailable(
                f"redis: there are no sessions under the prefix {prefix!r}, and setup is "
                "switched off",
                lasting=True,
            )
        if kind not in (b"none", b"zset") or not formats:
            raise Corrupt(
                f"redis: the key {index.decode()!r} is not perdure's; choose another ?prefix="
            )
        if formats != [b"f1"]:
            raise FormatTooNew(
                f"redis: the sessions under the prefix {prefix!r} were written by a newer "
                "perdure; upgrade perdure-redis"
            )
