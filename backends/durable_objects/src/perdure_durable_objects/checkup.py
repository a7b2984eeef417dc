"""Is a server well, as far as a client can see?"""

import time

import msgspec

from perdure.errors import PerdureError
from perdure.protocol.limits import SIGNATURE_WINDOW_MS
from perdure.protocol.refusals import Code, printable

from perdure_durable_objects.backend import HttpBackend
from perdure_durable_objects.failures import Rejected
from perdure_durable_objects.settings import Settings

_BLAMED = {
    Code.UNSUPPORTED_VERSION.text: "protocol",
    Code.UNAUTHORIZED.text: "key",
    Code.FORBIDDEN.text: "key",
    Code.CLOCK_SKEW.text: "clock",
}
"""Which check fails when a server refuses with this code."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


async def examine(settings: Settings) -> list[Check]:
    """What was found, in this order: reachable, protocol, key, clock; no further than the
    first that is not well. Writes nothing on the server."""
    backend = HttpBackend(settings)
    try:
        await backend.open()  # so that connecting is not in the time below
        begun = time.monotonic()
        hello = await backend.hello()
        took = (time.monotonic() - begun) * 1000
    except Rejected as error:
        blamed = _BLAMED.get(error.code, "service")
        return [Check("reachable", True, settings.origin), Check(blamed, False, str(error))]
    except PerdureError as error:
        return [Check("reachable", False, str(error))]
    finally:
        await backend.aclose()
    ahead = hello.now + took / 2 - time.time() * 1000
    return [
        Check("reachable", True, f"{settings.origin}, in {took:.0f} ms"),
        Check("protocol", True, f"version {hello.protocol}, {printable(hello.software)}"),
        Check("key", True, f"{settings.key.id}, {settings.key.mode.value}"),
        Check(
            "clock",
            abs(ahead) <= SIGNATURE_WINDOW_MS,
            f"{abs(ahead) / 1000:.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's",
        ),
        Check("durability", True, printable(hello.capabilities.durability_note)),
    ]
