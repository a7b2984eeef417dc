"""URLs of shared servers, for one test alone."""

import secrets
from urllib.parse import urlencode

from perdure.uri import parse


def own_url(url: str) -> str:
    """A URL of the same server, where nobody else has sessions."""
    option = "prefix" if parse(url).scheme.startswith("redis") else "schema"
    query = urlencode({option: f"docs{secrets.token_hex(4)}"})
    return f"{url}{'&' if '?' in url else '?'}{query}"
