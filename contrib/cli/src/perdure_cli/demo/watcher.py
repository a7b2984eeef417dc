"""The watcher: reports each entry of a session as it comes, until it is ended.

``python -m perdure_cli.demo.watcher`` runs it, with its job on standard input.
"""

import time

from perdure import START

from perdure_cli.demo.messages import Job, Seen, Sighting, Watching, perform, send


async def main(job: Job) -> None:
    """Watch, from before the session exists."""
    async with job.store() as store:
        found = await store.describe()
        send(
            Watching(
                backend=found.backend, location=found.location, durability=found.durability
            )
        )
        async for entry in store.session(job.session).watch(after=START):
            send(Seen(Sighting(entry.position, entry.value), time.time()))


if __name__ == "__main__":
    perform(main)
