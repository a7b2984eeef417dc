"""What this distribution brings to perdure."""

from perdure.plugins import BackendSpec, hookimpl


@hookimpl
def perdure_backends() -> list[BackendSpec]:
    """The backend behind ``memory://``."""
    return [
        BackendSpec(
            schemes=("memory",),
            summary="In this process's memory, gone with it; for tests and experiments",
            distribution="perdure-memory",
            contract=1,
            factory="perdure_memory.url:open_url",
        )
    ]
