"""The protocol's version, and how large its messages may be."""

VERSION = 1
"""The first part of every path, as ``/v1``."""

CONTENT_TYPE = "application/msgpack"

MAX_BODY_BYTES = 32 << 20
"""Longest body of a request."""

MAX_INTEGER = (1 << 53) - 1
"""Largest integer of a message: the largest that a JavaScript number holds exactly."""

MAX_MADE = 1 << 52
"""Most of what a head is computed from: ``expires_in``, and a version that is restored. So what
comes of them is an integer of a message too."""

MAX_READS = 1000
"""Most reads of one request."""

MAX_ELEMENTS = 10_000
"""Most of anything else that one request lists."""

MAX_BOUND_BYTES = 1024
"""Longest bound of a scan or of a range to delete."""

MAX_CURSOR_BYTES = 4096

MAX_WAIT_MS = 3600 * 1000
"""Longest ``timeout`` of one request to wait."""

SIGNATURE_WINDOW_MS = 300 * 1000
"""By how much the time of a signed request may differ from the server's clock."""

MIN_SECRET_CHARACTERS = 32
