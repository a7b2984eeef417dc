"""``dynamodb://table``, of which :mod:`perdure_dynamodb.settings` tells."""

from perdure.uri import URL

from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.settings import OPTIONS, settings_from


def open_url(url: URL) -> DynamoDBBackend:
    """The backend on the table that the URL names. Does no I/O. Raises ``InvalidURL``."""
    url.options(OPTIONS)
    return DynamoDBBackend(settings_from(url))
