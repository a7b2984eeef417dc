"""``python -m tests.store.repeating FACTORY ARGUMENT TENANT TASKS``: append the same under the
same key from so many tasks at once, and say as JSON which positions they were told."""

import asyncio
import json
import sys

from perdure import Store
from perdure.testing import Process
from perdure.testing.writer import open_backend


async def repeat(factory: str, argument: str, tenant: str, tasks: str) -> None:
    """Say ``ready``, wait for a line, and append."""
    backend = open_backend(Process(factory, argument))
    async with Store(backend, tenant=tenant, deadline=30) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        positions = await asyncio.gather(
            *(
                store.session("s").append(["hook", {"n": 1}], "done", key="webhook")
                for _ in range(int(tasks))
            )
        )
    print(json.dumps(positions))


if __name__ == "__main__":
    asyncio.run(repeat(*sys.argv[1:]))
