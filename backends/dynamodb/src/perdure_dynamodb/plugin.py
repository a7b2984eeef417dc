"""What this distribution brings to perdure."""

from perdure.plugins import BackendSpec, hookimpl


@hookimpl
def perdure_backends() -> list[BackendSpec]:
    """The backend behind ``dynamodb://table``."""
    return [
        BackendSpec(
            schemes=("dynamodb",),
            summary="In one DynamoDB table; a turn is one conditional write",
            distribution="perdure-dynamodb",
            contract=1,
            factory="perdure_dynamodb.url:open_url",
        )
    ]
