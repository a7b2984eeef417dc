"""What this distribution brings to perdure."""

from perdure.plugins import BackendSpec, hookimpl


@hookimpl
def perdure_backends() -> list[BackendSpec]:
    """The backend behind ``sqlite:///file``."""
    return [
        BackendSpec(
            schemes=("sqlite",),
            summary="In one local file, durable, shared by the processes of one host",
            distribution="perdure-sqlite",
            contract=1,
            factory="perdure_sqlite.url:open_url",
        )
    ]
