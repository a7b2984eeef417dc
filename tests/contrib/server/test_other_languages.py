"""An agent in another language shares a session with one in Python."""

import asyncio
import json
import shutil
from pathlib import Path

from perdure import Store

from tests.contrib.server.served import SECRET, Thread
from tests.services.server import ServerMissing

AGENT = Path(__file__).with_name("agent.mjs")


async def test_an_agent_that_has_only_read_the_documents(thread: Thread) -> None:
    node = shutil.which("node")
    if node is None:
        raise ServerMissing("node is not installed")
    async with Store(thread.url, tenant="Früchte/Obst") as store:
        session = store.session("with node 👋")
        said = [{"role": "user", "content": "Hello"}, {"role": "user", "content": [1, -5, 2.5]}]
        await session.append(*said)
        asked = await session.append({"role": "user", "content": "Are you there"})
        watching = asyncio.create_task(anext(session.watch(after=asked)))
        process = await asyncio.create_subprocess_exec(
            node,
            str(AGENT),
            f"http://127.0.0.1:{thread.port}",
            *("signer", SECRET, "Früchte/Obst", "with node 👋"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0
        assert json.loads(out) == {
            "read": [*said, {"role": "user", "content": "Are you there"}],
            "statuses": [200, 200, 409],
            "version": 3,
            "refused": "conflict",
            "refusedAt": 3,
        }
        answer = {"role": "assistant", "content": "Are you there? Schöne Grüße 👋", "n": 300}
        assert (await asyncio.wait_for(watching, 10)).value == answer
        assert (await session.entries())[-1] == answer
        assert await session.cells.get("spoken") == "node"
        await session.append({"role": "user", "content": "Good"})
        head = await session.head()
        assert head is not None
        assert head.version == 4
