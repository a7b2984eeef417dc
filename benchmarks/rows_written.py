"""How many rows an append writes in Durable Objects, which bill them: as the engine counts."""

from pathlib import Path

import aiohttp

from benchmarks.bare_worker import BareWorker
from benchmarks.contenders import Perdure
from benchmarks.table import Row
from benchmarks.workload import Workload
from tests.services.worker import Worker

EACH = 20
"""How many appends."""

SESSION = "rows"

_COUNTING = Path(__file__).with_name("rows_written.js")


async def measure(bare: BareWorker, name: str, directory: Path, seed: int) -> Row:
    """The row. ``name`` is ours; a server of it gets ``directory``."""
    workload = Workload(seed)
    await bare.open()
    floor = [await bare.append_counted(SESSION, turn) for turn in workload.turns(EACH)]
    await bare.close()
    with Worker.serve(directory, _COUNTING) as server:
        ours = Perdure(name, server.url)
        await ours.open()
        (first, *rest) = workload.turns(1 + EACH)
        await ours.append(SESSION, first)
        before = await _written(server)
        for turn in rest:
            await ours.append(SESSION, turn)
        after = await _written(server)
        await ours.close()
    values = {bare.name: sum(floor) / EACH, name: (after - before) / EACH}
    return Row(measure="append: rows written", unit="", values=values, judged=values[name])


async def _written(server: Worker) -> int:
    """By all objects so far."""
    url = f"http://127.0.0.1:{server.port}/rows-written"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return int(await response.text())
