"""What this distribution brings to perdure."""

from perdure.plugins import BackendSpec, hookimpl


@hookimpl
def perdure_backends() -> list[BackendSpec]:
    """The backend behind ``redis://host`` and its relatives."""
    return [
        BackendSpec(
            schemes=(
                "redis",
                "rediss",
                "redis+sentinel",
                "rediss+sentinel",
                "redis+unix",
                "valkey",
                "valkeys",
            ),
            summary="On Redis or Valkey, alone, under Sentinel or as a Cluster",
            distribution="perdure-redis",
            contract=1,
            factory="perdure_redis.url:open_url",
        )
    ]
