"""OpenTelemetry for perdure. Begin with :class:`Instrumentation`."""

from perdure_opentelemetry.instrumentation import Instrumentation

__version__ = "0.1.0"

__all__ = ["Instrumentation"]
