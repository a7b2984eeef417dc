"""Spans and measurements of a store's operations, as OpenTelemetry's own SDK exports them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv import schemas
from opentelemetry.semconv.attributes import db_attributes, error_attributes
from opentelemetry.trace import SpanKind, StatusCode

from perdure import Conflict, Store
from perdure.backend import Backend
from perdure.testing.faults import Delay, LoseReplies

from perdure_memory.backend import MemoryBackend
from perdure_opentelemetry import Instrumentation, conventions

SECRET = "plums in the icebox"


class Exported:
    """What the SDK has exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    def instrumentation(self, *, conversation_id: bool = False) -> Instrumentation:
        return Instrumentation(
            conversation_id=conversation_id,
            tracer_provider=self.tracers,
            meter_provider=self.meters,
        )

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order in which they ended."""
        return self._exporter.get_finished_spans()

    def span(self, name: str) -> ReadableSpan:
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def points(self) -> dict[str, list[HistogramDataPoint | NumberDataPoint]]:
        """What was measured since this was asked last, by the names of the metrics."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[HistogramDataPoint | NumberDataPoint]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = found.setdefault(metric.name, [])
                    for point in metric.data.data_points:
                        assert isinstance(point, HistogramDataPoint | NumberDataPoint)
                        points.append(point)
        return found


@pytest.fixture
def exported() -> Exported:
    return Exported()


@pytest.fixture
async def store(exported: Exported) -> AsyncGenerator[Store]:
    made = Store("memory://", tenant="orchard", on_event=exported.instrumentation())
    yield made
    await made.aclose()


def attributes(of: ReadableSpan | HistogramDataPoint | NumberDataPoint) -> dict[str, object]:
    return dict(of.attributes or {})


def begin(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def end(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


async def test_an_operation_is_a_span_by_the_conventions(
    store: Store, exported: Exported
) -> None:
    before = time.time_ns()
    await store.session("plum").append(SECRET)
    after = time.time_ns()
    span = exported.span("append session")
    assert span.kind is SpanKind.INTERNAL  # nothing leaves the process
    assert before <= begin(span) < end(span) <= after + 1_000_000  # by another clock
    found = attributes(span)
    assert found.pop("perdure.bytes_sent")
    assert found == {
        "db.system.name": "perdure.memory",
        "db.operation.name": "append",
        "db.collection.name": "session",
        "perdure.round_trips": 1,
        "perdure.items_written": 1,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.schema_url == conventions.SCHEMA_URL


@pytest.mark.parametrize(
    ("url", "system", "kind"),
    [
        ("memory://", "perdure.memory", SpanKind.INTERNAL),
        ("sqlite:///sessions.db", "sqlite", SpanKind.CLIENT),
        ("valkey_url", "redis", SpanKind.CLIENT),
        ("postgres_url", "postgresql", SpanKind.CLIENT),
        ("dynamodb_url", "aws.dynamodb", SpanKind.CLIENT),
        ("durable_objects_url", "cloudflare.durable_objects", SpanKind.CLIENT),
    ],
)
async def test_a_database_goes_by_its_well_known_name(
    url: str,
    system: str,
    kind: SpanKind,
    exported: Exported,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    if url.endswith("_url"):
        url = request.getfixturevalue(url)
    async with Store(url, tenant="telemetry", on_event=exported.instrumentation()) as store:
        await store.session("plum").head()
    span = exported.span("head session")
    assert span.attributes is not None
    assert span.attributes["db.system.name"] == system
    assert span.kind is kind


async def test_an_operation_on_several_sessions_names_no_collection(
    store: Store, exported: Exported
) -> None:
    async for _ in store.list():
        pass
    assert "db.collection.name" not in attributes(exported.span("list"))


async def test_spans_are_children_of_what_was_current_at_their_start(
    store: Store, exported: Exported
) -> None:
    tracer = exported.tracers.get_tracer("agent")
    session = store.session("plum")
    with tracer.start_as_current_span("run"):
        async with session.turn() as turn:
            with tracer.start_as_current_span("model"):
                await store.session("other").append("inside")
            turn.append("a")
    await session.append("b")
    run, model = exported.span("run"), exported.span("model")
    turn_span = exported.span("turn session")
    inside, outside = (span for span in exported.spans if span.name == "append session")
    assert turn_span.parent == run.context
    assert inside.parent == model.context
    assert outside.parent is None
    millisecond = 1_000_000  # between two clocks
    assert begin(run) - millisecond <= begin(turn_span) <= begin(model) + millisecond
    assert end(model) - millisecond <= end(turn_span) <= end(run) + millisecond


async def test_a_failure_is_told_by_its_class_alone(exported: Exported) -> None:
    store = Store(Delay(MemoryBackend(), on={2}, before=9), on_event=exported.instrumentation())
    session = store.session("plum")
    await session.cells.put("step", 1)
    with pytest.raises(Conflict):
        await session.cells.put("step", SECRET, expect=0)
    task = asyncio.create_task(session.append(SECRET))
    await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    failed = [span for span in exported.spans if span.status.status_code is StatusCode.ERROR]
    assert [attributes(span)["error.type"] for span in failed] == [
        "Conflict",
        "CancelledError",
    ]
    assert all(span.status.description is None for span in failed)
    assert [attributes(span)["perdure.outcome"] for span in failed] == [
        "not applied",
        "unknown",
    ]
    assert all(not span.events for span in failed)


async def test_what_went_wrong_on_the_way_is_in_the_span(exported: Exported) -> None:
    store = Store(LoseReplies(MemoryBackend(), on={0}), on_event=exported.instrumentation())
    await store.session("plum").append(SECRET)
    found = attributes(exported.span("append session"))
    assert found["perdure.round_trips"] == 2
    assert found["perdure.unanswered"] == found["perdure.resends"] == 1
    assert found["perdure.replayed"] is True


async def test_a_conversation_is_named_if_that_is_asked_for(exported: Exported) -> None:
    store = Store("memory://", on_event=exported.instrumentation(conversation_id=True))
    await store.session("plum-7").append("a")
    found = attributes(exported.span("append session"))
    assert found["gen_ai.conversation.id"] == "plum-7"
    points = exported.points()
    assert points
    assert "plum-7" not in repr(points)


async def test_nothing_of_a_key_or_a_session_is_told_otherwise(
    store: Store, exported: Exported
) -> None:
    session = store.session("plum-7")
    await session.append(SECRET)
    await session.cells.put("name of a cell", SECRET)
    await store.save("plum-7", {"text": SECRET})
    async for _ in store.list(prefix="plum"):
        pass
    told = "".join(span.to_json() for span in exported.spans) + repr(exported.points())
    assert "append" in told
    for word in (SECRET, "plum-7", "orchard", "name of a cell"):
        assert word not in told


async def test_the_duration_is_measured_by_the_conventions(
    store: Store, exported: Exported
) -> None:
    session = store.session("plum")
    for _ in range(3):
        await session.append(SECRET)
    (point,) = exported.points()["db.client.operation.duration"]
    assert isinstance(point, HistogramDataPoint)
    assert point.count == 3
    assert attributes(point) == {
        "db.system.name": "perdure.memory",
        "db.operation.name": "append",
        "db.collection.name": "session",
    }
    assert tuple(point.explicit_bounds) == conventions.DURATION_BOUNDARIES
    spans = [span for span in exported.spans if span.name == "append session"]
    seconds = sum(end(span) - begin(span) for span in spans) / 1e9
    assert point.sum == pytest.approx(seconds, rel=0.5)


async def test_a_turn_is_measured_without_its_block(store: Store, exported: Exported) -> None:
    async with store.session("plum").turn() as turn:
        turn.append("a")
        await asyncio.sleep(0.2)
    (point,) = exported.points()["db.client.operation.duration"]
    assert isinstance(point, HistogramDataPoint)
    assert point.sum < 0.1
    span = exported.span("turn session")
    assert end(span) - begin(span) >= 0.2e9


async def test_counters_add_up(exported: Exported) -> None:
    backend: Backend = LoseReplies(MemoryBackend(), on={0})
    store = Store(backend, on_event=exported.instrumentation())
    session = store.session("plum")
    await session.append(SECRET)
    with pytest.raises(Conflict):
        await session.cells.put("step", 1, expect=9)
    await store.session("plum").entries()
    points = exported.points()
    sums = {
        name: sum(point.value for point in points[name] if isinstance(point, NumberDataPoint))
        for name in points
        if name.startswith("perdure.")
    }
    assert sums["perdure.client.round_trips"] == 4
    assert sums["perdure.client.conflicts"] == 1
    assert sums["perdure.client.unanswered"] == 1
    io = {attributes(point)["network.io.direction"] for point in points["perdure.client.io"]}
    assert io == {"transmit", "receive"}


async def test_a_span_that_is_not_sampled_is_measured(exported: Exported) -> None:
    telemetry = Instrumentation(
        tracer_provider=TracerProvider(sampler=ALWAYS_OFF), meter_provider=exported.meters
    )
    store = Store("memory://", on_event=telemetry)
    await store.session("plum").append("a")
    assert exported.points()["db.client.operation.duration"]


async def test_without_an_sdk_it_does_nothing() -> None:
    store = Store("memory://", on_event=Instrumentation())
    await store.session("plum").append("a")
    assert await store.session("plum").entries() == ["a"]


def test_the_names_are_those_of_the_conventions() -> None:
    assert conventions.DB_SYSTEM_NAME == db_attributes.DB_SYSTEM_NAME
    assert conventions.DB_OPERATION_NAME == db_attributes.DB_OPERATION_NAME
    assert conventions.DB_COLLECTION_NAME == db_attributes.DB_COLLECTION_NAME
    assert conventions.ERROR_TYPE == error_attributes.ERROR_TYPE
    assert conventions.SYSTEMS["postgres"] == db_attributes.DbSystemNameValues.POSTGRESQL.value
    assert conventions.SCHEMA_URL in {schema.value for schema in schemas.Schemas}
