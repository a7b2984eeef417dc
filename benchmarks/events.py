"""What events cost: nobody watches, somebody does who does nothing, or OpenTelemetry's SDK."""

from statistics import median
from time import process_time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import perdure
from perdure import Event
from perdure.client import Client
from perdure.events import OnEvent
from perdure.handle import Handle
from perdure.operations import OnSession
from perdure.types import SessionKey

from benchmarks.effort import Effort
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Target
from benchmarks.workload import Workload
from perdure_opentelemetry import Instrumentation

CALLS = 20
"""Calls of a method that does nothing, for each append of a block: they are short."""

LIMIT = 0.3
"""µs that an operation may cost more because somebody could watch it."""

NOBODY, NULL, SDK = "nobody", "null", "opentelemetry"


class Idle(OnSession):
    """Does nothing, as an operation and not."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def bare(self, *entries: object, key: str | None = None) -> None:
        """Called as ``Session.append`` is."""

    watchable = OnSession._operation("idle")(bare)


async def measure(effort: Effort, seed: int) -> list[Row]:
    """CPU time on the memory backend: medians over blocks, interleaved."""
    return [await _unwatched(effort), *await _watched(effort, seed)]


async def _unwatched(effort: Effort) -> Row:
    client = Client("memory://", deadline=30)
    idle = Idle(Handle(client, SessionKey.of("bench", "session", "idle")))
    calls = range(effort.block * CALLS)
    differences: list[float] = []
    settle()
    for _ in range(effort.blocks):
        started = process_time()
        for _ in calls:
            await idle.bare(1)
        bare = process_time()
        for _ in calls:
            await idle.watchable(1)
        done = process_time()
        differences.append(1e6 * ((done - bare) - (bare - started)) / len(calls))
    value = median(differences)
    return Row(
        measure="an operation that nobody watches, more",
        unit="µs",
        values={"memory": value},
        judged=value,
        target=Target(LIMIT),
    )


async def _watched(effort: Effort, seed: int) -> list[Row]:
    watching = {NOBODY: None, NULL: _ignore, SDK: _sdk()}
    stores = {
        name: perdure.Store("memory://", on_event=on_event)
        for name, on_event in watching.items()
    }
    workload = Workload(seed)
    samples = Samples[str]()
    settle()
    for block in range(effort.blocks + 1):
        turns = workload.turns(effort.block)
        for name in rotated(list(stores), block):
            session = stores[name].session("session")
            started = process_time()
            for turn in turns:
                await session.append(*turn)
            if block:  # the first warms up
                samples.add(name, 1e6 * (process_time() - started) / effort.block)
    for store in stores.values():
        await store.aclose()
    return [
        Row(
            measure=f"Session.append, watched by {who}, more",
            unit="µs",
            values={"memory": samples.median(name) - samples.median(NOBODY)},
        )
        for name, who in ((NULL, "a null observer"), (SDK, "OpenTelemetry"))
    ]


def _ignore(event: Event) -> None:
    del event


def _sdk() -> OnEvent:
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    return Instrumentation(
        tracer_provider=tracers, meter_provider=MeterProvider([InMemoryMetricReader()])
    )
