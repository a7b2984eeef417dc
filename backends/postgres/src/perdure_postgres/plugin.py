"""What this distribution brings to perdure."""

from perdure.plugins import BackendSpec, hookimpl


@hookimpl
def perdure_backends() -> list[BackendSpec]:
    """The backend behind ``postgresql://host/database``."""
    return [
        BackendSpec(
            schemes=("postgresql", "postgres"),
            summary="In a Postgres database, shared by many processes and hosts",
            distribution="perdure-postgres",
            contract=1,
            factory="perdure_postgres.url:open_url",
        )
    ]
