"""``https://id:secret@host``: :mod:`perdure_durable_objects.settings` tells the options."""

from perdure.uri import URL

from perdure_durable_objects.backend import HttpBackend
from perdure_durable_objects.settings import settings_from


def open_url(url: URL) -> HttpBackend:
    """The backend on the server that the URL names. Does no I/O. Raises ``InvalidURL``."""
    return HttpBackend(settings_from(url))
