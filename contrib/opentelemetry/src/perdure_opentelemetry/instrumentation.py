"""What becomes of an event: a span, and measurements."""

from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer

from perdure import Event

from perdure_opentelemetry import conventions as names

NAME = "perdure"
VERSION = "0.1.0"


class Instrumentation:
    """Tells OpenTelemetry of a store's operations: ``Store(url, on_event=Instrumentation())``.

    Every operation is a span, a child of the span that was current when it began, and is
    measured in ``db.client.operation.duration`` and four counters. One may serve any number of
    stores. Costs some 60 µs per operation with the SDK, less where the span is not sampled.

    ``conversation_id``: have spans carry the id of the session, ``gen_ai.conversation.id``,
    by which they are found with those of the model's calls. Ids may be personal data, so it
    is off unless asked for; metrics never carry it, nor does anything else of a session's
    key but its kind. ``tracer_provider``, ``meter_provider``: not the global ones.
    """

    def __init__(
        self,
        *,
        conversation_id: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._conversation_id = conversation_id
        self._tracer = get_tracer(NAME, VERSION, tracer_provider, names.SCHEMA_URL)
        meter = get_meter(NAME, VERSION, meter_provider, names.SCHEMA_URL)
        self._duration = meter.create_histogram(
            names.DB_CLIENT_OPERATION_DURATION,
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=names.DURATION_BOUNDARIES,
        )
        self._round_trips = meter.create_counter(
            names.CLIENT_ROUND_TRIPS, "{request}", "Requests to the backend."
        )
        self._io = meter.create_counter(
            names.CLIENT_IO, "By", "Bytes of values written and read, as stored."
        )
        self._conflicts = meter.create_counter(
            names.CLIENT_CONFLICTS, "{conflict}", "Commits that another writer forestalled."
        )
        self._unanswered = meter.create_counter(
            names.CLIENT_UNANSWERED, "{request}", "Requests that the backend did not answer."
        )

    def __call__(self, event: Event) -> None:
        """Take in one event, in the context that its operation began in."""
        attributes: dict[str, str] = {
            names.DB_SYSTEM_NAME: names.SYSTEMS.get(event.backend, event.backend),
            names.DB_OPERATION_NAME: event.operation,
        }
        if event.key is not None:
            attributes[names.DB_COLLECTION_NAME] = event.key.kind
        if event.error is not None:
            attributes[names.ERROR_TYPE] = event.error
        self._measure(event, attributes)
        self._trace(event, attributes)

    def _measure(self, event: Event, attributes: dict[str, str]) -> None:
        self._duration.record(event.duration, attributes)
        self._round_trips.add(event.round_trips, attributes)
        for count, direction in (
            (event.bytes_sent, "transmit"),
            (event.bytes_received, "receive"),
        ):
            if count:
                self._io.add(count, attributes | {names.IO_DIRECTION: direction})
        if event.conflicts:
            self._conflicts.add(event.conflicts, attributes)
        if event.unanswered:
            self._unanswered.add(event.unanswered, attributes)

    def _trace(self, event: Event, attributes: dict[str, str]) -> None:
        """A span from the operation's start to its end. It is made when both are known, so
        that nothing else can be its child."""
        target = attributes.get(names.DB_COLLECTION_NAME)
        span = self._tracer.start_span(
            event.operation if target is None else f"{event.operation} {target}",
            kind=SpanKind.INTERNAL if event.backend == "memory" else SpanKind.CLIENT,
            attributes=attributes,
            start_time=event.started_at,
        )
        if span.is_recording():
            if self._conversation_id and event.key is not None:
                span.set_attribute(names.GEN_AI_CONVERSATION_ID, event.key.id)
            span.set_attributes(
                {
                    name: value
                    for name, value in (
                        (names.ROUND_TRIPS, event.round_trips),
                        (names.BYTES_SENT, event.bytes_sent),
                        (names.BYTES_RECEIVED, event.bytes_received),
                        (names.ITEMS_WRITTEN, event.items_written),
                        (names.ITEMS_READ, event.items_read),
                        (names.CONFLICTS, event.conflicts),
                        (names.UNANSWERED, event.unanswered),
                        (names.RESENDS, event.resends),
                        (names.REPLAYED, event.replayed),
                    )
                    if value
                }
            )
            if event.outcome is not None:
                span.set_attribute(names.OUTCOME, event.outcome.value)
            if event.error is not None:
                span.set_status(Status(StatusCode.ERROR))
        span.end(event.started_at + round(event.elapsed * 1e9))
