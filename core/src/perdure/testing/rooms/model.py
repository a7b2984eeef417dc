"""Any sequence of operations has the results that a model made of dicts has."""

import asyncio

from perdure.testing.harness import Harness
from perdure.testing.machine import run_machine
from perdure.testing.rooms.room import Room


class LikeTheModel(Room):
    async def test_any_sequence_of_operations_does_what_the_model_does(
        self, harness: Harness
    ) -> None:
        await asyncio.to_thread(run_machine, harness)
