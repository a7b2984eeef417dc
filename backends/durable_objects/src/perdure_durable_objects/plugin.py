"""What this distribution brings to perdure."""

from perdure.plugins import BackendSpec, hookimpl


@hookimpl
def perdure_backends() -> list[BackendSpec]:
    """The backend behind ``https://worker``."""
    return [
        BackendSpec(
            schemes=("https", "http"),
            summary="In Cloudflare Durable Objects, or on a server of the same protocol",
            distribution="perdure-durable-objects",
            contract=1,
            factory="perdure_durable_objects.url:open_url",
        )
    ]
