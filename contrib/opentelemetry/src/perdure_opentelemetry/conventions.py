"""The names that spans and metrics go by: OpenTelemetry's semantic conventions, and our own.

Sources, as of schema 1.44.0:

* "Semantic conventions for database client spans" (stable):
  https://opentelemetry.io/docs/specs/semconv/db/database-spans/
* "Semantic conventions for database client metrics" (the duration is stable):
  https://opentelemetry.io/docs/specs/semconv/db/database-metrics/
* "Recording errors": https://opentelemetry.io/docs/specs/semconv/general/recording-errors/
* ``gen_ai.conversation.id`` (in development), in the registry of the GenAI conventions:
  https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/registry/attributes/gen-ai.md

What begins with ``perdure.`` is ours: the conventions have no name for it.
"""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

DB_SYSTEM_NAME = "db.system.name"
DB_OPERATION_NAME = "db.operation.name"
DB_COLLECTION_NAME = "db.collection.name"
"""The kind of session: what the conventions call a collection, a container in a database."""

ERROR_TYPE = "error.type"
"""Set if and only if the operation failed. The name of the exception's class."""

GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
"""The id of the session: "the unique identifier for a conversation (session, thread)"."""

DB_CLIENT_OPERATION_DURATION = "db.client.operation.duration"
DURATION_BOUNDARIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Seconds; the bucket boundaries that the conventions advise."""

SYSTEMS = {
    "dynamodb": "aws.dynamodb",
    "durable_objects": "cloudflare.durable_objects",
    "memory": "perdure.memory",
    "postgres": "postgresql",
}
"""Where the well-known value of ``db.system.name`` is not the name of our backend, and what
is used for those that have none ("otherwise, a custom value MAY be used")."""

ROUND_TRIPS = "perdure.round_trips"
BYTES_SENT = "perdure.bytes_sent"
BYTES_RECEIVED = "perdure.bytes_received"
ITEMS_READ = "perdure.items_read"
ITEMS_WRITTEN = "perdure.items_written"
CONFLICTS = "perdure.conflicts"
UNANSWERED = "perdure.unanswered"
RESENDS = "perdure.resends"
REPLAYED = "perdure.replayed"
OUTCOME = "perdure.outcome"
"""Of spans: the fields of :class:`perdure.Event`; those that are 0 or false are left out."""

CLIENT_ROUND_TRIPS = "perdure.client.round_trips"
CLIENT_IO = "perdure.client.io"
CLIENT_CONFLICTS = "perdure.client.conflicts"
CLIENT_UNANSWERED = "perdure.client.unanswered"
IO_DIRECTION = "network.io.direction"
"""``transmit`` or ``receive``: https://opentelemetry.io/docs/specs/semconv/registry/attributes/network/"""
