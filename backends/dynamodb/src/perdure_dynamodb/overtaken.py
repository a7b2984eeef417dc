"""How long a writer that others overtake tries again."""

import asyncio
import random

from perdure.errors import Unavailable

PATIENCE = 15.0
"""Seconds after which a writer gives up whom others have always overtaken."""

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.5


class Overtaken:
    """How often and for how long one writer has been overtaken by others."""

    def __init__(self) -> None:
        self._deadline = asyncio.get_running_loop().time() + PATIENCE
        self._longest = FIRST_PAUSE
        self._times = 0

    async def pause(self) -> bool:
        """Wait a while, longer each time; whether to read anew what is the newest slot.

        Raises ``Unavailable`` if it has taken too long.
        """
        self._times += 1
        if self._times == 1:
            return False  # the slot after the one that was taken may well be free
        if asyncio.get_running_loop().time() > self._deadline:
            raise Unavailable("others write to this session all the time; nothing was written")
        await asyncio.sleep(random.uniform(0, self._longest))
        self._longest = min(2 * self._longest, LONGEST_PAUSE)
        return True
