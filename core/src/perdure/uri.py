"""Store URLs: which backend, where, and with which options.

The form is RFC 3986's ``scheme://user:password@host:port/path?option=value``. As with
SQLAlchemy, the slash that ends the authority is not part of the path, so a file's URL has
three slashes if the file is relative and four if it is absolute.
"""

import re
from collections.abc import Collection

import msgspec

from perdure.errors import InvalidURL

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE | re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_IPV6 = re.compile(r"[0-9a-f.]*:[0-9a-f:.]*(%[^%\]]+)?", re.IGNORECASE | re.ASCII)
_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|auth|signature", re.IGNORECASE)
_LOGIN = re.compile(r"://[^/?#]*:[^/?#]*@|\bpassword\s*=", re.IGNORECASE)

_HIDDEN = "***"


class URL(msgspec.Struct, frozen=True, kw_only=True):
    """A store URL, taken apart and decoded. ``str`` and ``repr`` never show a secret."""

    scheme: str
    """In lower case; chooses the backend."""
    host: str | None = None
    """An IPv6 address comes without its brackets."""
    port: int | None = None
    username: str | None = None
    password: str | None = None
    path: str = ""
    """Without the slash that ends the authority: ``sqlite:///a.db`` has the path ``a.db``,
    ``sqlite:////a.db`` the path ``/a.db``, ``redis://localhost/0`` the path ``0``."""
    query: dict[str, str] = {}
    """Options in the order given. Decoded by RFC 3986: ``+`` is a plus sign."""

    def options(self, allowed: Collection[str]) -> dict[str, str]:
        """The query, if it holds no other options than ``allowed``.

        Raises ``InvalidURL`` that names the unknown option and the known ones.
        """
        for name in self.query:
            if name not in allowed:
                known = f"it knows {', '.join(sorted(allowed))}" if allowed else "it has none"
                raise InvalidURL(
                    f"{self.scheme}:// has no option {name!r}"
                    f"{did_you_mean(name, allowed)}; {known}"
                )
        return dict(self.query)

    def render(self, *, hide_secrets: bool = True) -> str:
        """The URL as text, which :func:`parse` turns into an equal one.

        With ``hide_secrets`` the password, and the value of any option whose name suggests a
        secret or whose value is a URL with a password, is ``***``.
        """
        parts = [self.scheme, "://"]
        if self.username is not None or self.password is not None:
            parts.append(_quote(self.username or ""))
            if self.password is not None:
                parts += ":", _HIDDEN if hide_secrets else _quote(self.password)
            parts.append("@")
        if self.host is not None:
            bracket = _IPV6.fullmatch(self.host)
            parts.append(f"[{_quote(self.host, ':')}]" if bracket else _quote(self.host))
        if self.port is not None:
            parts.append(f":{self.port}")
        if self.path:
            parts += "/", _quote(self.path, safe="/:@")
        for position, (name, value) in enumerate(self.query.items()):
            hidden = hide_secrets and (_SECRET.search(name) or _LOGIN.search(value))
            parts += "&" if position else "?", _quote(name), "="
            parts.append(_HIDDEN if hidden else _quote(value, safe="/:@"))
        return "".join(parts)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"URL({self.render()!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("", self.render())]


def parse(text: str) -> URL:
    """Take a store URL apart.

    Raises ``InvalidURL``. Its message names the part at fault but never quotes text that might
    belong to a password, as in ``redis://user:pa/ss@host``.
    """
    if _CONTROL.search(text):
        raise InvalidURL("a store URL must not contain control characters or lone surrogates")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise InvalidURL(
            "a store URL starts with a scheme and '://', as in sqlite:///sessions.db "
            "(a relative file), sqlite:////var/lib/sessions.db (an absolute one) or memory://"
        )
    if not _SCHEME.fullmatch(scheme):
        raise InvalidURL(
            "the scheme of a store URL is a letter followed by letters, digits, '+', '-' or '.'"
        )
    scheme = scheme.lower()
    if "#" in rest:
        raise InvalidURL(f"{scheme}:// URL: '#' must be written as %23")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, _, hostport = authority.rpartition("@")
    username, colon, password = userinfo.partition(":")
    host, port = _host_and_port(hostport, scheme)
    return URL(
        scheme=scheme,
        host=host,
        port=port,
        username=_decode(username, "user name", scheme) or None,
        password=_decode(password, "password", scheme) if colon else None,
        path=_decode(path, "path", scheme),
        query=_options(query, scheme),
    )


def did_you_mean(name: str, known: Collection[str]) -> str:
    """``" (did you mean 'x'?)"`` if one of ``known`` is close to ``name``, else nothing."""
    import difflib  # only needed to word an error

    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _host_and_port(text: str, scheme: str) -> tuple[str | None, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        host = _decode(host, "host", scheme)
        before, colon, port = rest.partition(":")
        if not bracket or before or not _IPV6.fullmatch(host):
            raise InvalidURL(f"{scheme}:// URL: '[' opens an IPv6 address, as in [::1]:6379")
    else:
        host, colon, port = text.partition(":")
        host = _decode(host, "host", scheme)
    if not colon:
        return host or None, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise InvalidURL(
            f"{scheme}:// URL: the port is not a number up to 65535 (in a user name or "
            "password write '/' as %2F, '?' as %3F, ':' as %3A, '@' as %40)"
        )
    return host or None, int(port)


def _options(text: str, scheme: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InvalidURL(f"{scheme}:// URL: options are written ?name=value&name=value")
        name = _decode(name, "name of an option", scheme)
        if name in options:
            raise InvalidURL(f"{scheme}:// URL: the option {name!r} is given twice")
        options[name] = _decode(value, "value of an option", scheme)
    return options


def _decode(text: str, part: str, scheme: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote_to_bytes  # few URLs need it, and importing it takes 1 ms

    if _BAD_ESCAPE.search(text):
        raise InvalidURL(f"{scheme}:// URL: in the {part}, '%' must be written as %25")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        raise InvalidURL(f"{scheme}:// URL: the {part} is not valid UTF-8") from None
    if _CONTROL.search(decoded):
        raise InvalidURL(f"{scheme}:// URL: the {part} contains a control character")
    return decoded


def _quote(text: str, safe: str = "") -> str:
    from urllib.parse import quote

    return quote(text, safe=safe)
