"""Deletes the demo's sessions from a store that has others too.

``python -m perdure_cli.demo.clean`` runs it, with its job on standard input.
"""

from perdure_cli.demo.messages import Job, perform


async def main(job: Job) -> None:
    """Delete what is there of the demo's sessions."""
    async with job.store() as store:
        for id in (job.session, job.fork, job.long):
            await store.delete(id)


if __name__ == "__main__":
    perform(main)
