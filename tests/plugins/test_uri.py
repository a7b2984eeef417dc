"""Store URLs: taken apart, put together again, refused, and never giving away a password."""

import io
import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from perdure.errors import InvalidURL
from perdure.uri import URL, parse


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("memory://", URL(scheme="memory")),
        ("sqlite:///sessions.db", URL(scheme="sqlite", path="sessions.db")),
        ("sqlite:////var/lib/s.db", URL(scheme="sqlite", path="/var/lib/s.db")),
        ("sqlite:///C:/data/s.db", URL(scheme="sqlite", path="C:/data/s.db")),
        ("sqlite:///my file é.db", URL(scheme="sqlite", path="my file é.db")),
        ("sqlite:///50%25.db", URL(scheme="sqlite", path="50%.db")),
        (
            "sqlite:///s.db?synchronous=normal&setup=false",
            URL(
                scheme="sqlite", path="s.db", query={"synchronous": "normal", "setup": "false"}
            ),
        ),
        ("REDIS://localhost", URL(scheme="redis", host="localhost")),
        (
            "redis://localhost:6379/0",
            URL(scheme="redis", host="localhost", port=6379, path="0"),
        ),
        ("redis://:pw@h", URL(scheme="redis", host="h", password="pw")),
        ("redis://ann@h", URL(scheme="redis", host="h", username="ann")),
        ("redis://ann:@h", URL(scheme="redis", host="h", username="ann", password="")),
        ("redis://:6379", URL(scheme="redis", port=6379)),
        ("redis://[::1]:6379", URL(scheme="redis", host="::1", port=6379)),
        ("redis://[fe80::1%25eth0]", URL(scheme="redis", host="fe80::1%eth0")),
        (
            "postgresql://a%40b:p%2Fq%3A@h/db",
            URL(scheme="postgresql", host="h", username="a@b", password="p/q:", path="db"),
        ),
        (
            "postgresql://a:p@q@h",
            URL(scheme="postgresql", host="h", username="a", password="p@q"),
        ),
        ("postgresql://%2Frun%2Fpg/db", URL(scheme="postgresql", host="/run/pg", path="db")),
        ("x+y://h?a=1+1&b=", URL(scheme="x+y", host="h", query={"a": "1+1", "b": ""})),
    ],
)
def test_a_url_is_taken_apart(text: str, url: URL) -> None:
    assert parse(text) == url
    assert parse(url.render(hide_secrets=False)) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "starts with a scheme"),
        ("sessions.db", "starts with a scheme"),
        ("sqlite:sessions.db", "starts with a scheme"),
        ("://host", "the scheme"),
        ("1x://host", "the scheme"),
        ("a b://host", "the scheme"),
        ("sqlité:///x", "the scheme"),
        ("redis://h\n", "control characters"),
        ("redis://h/%00", "control character"),
        ("redis://h/\ud800", "lone surrogates"),
        ("redis://h/%ff", "not valid UTF-8"),
        ("redis://h/100%", "'%' must be written as %25"),
        ("redis://h/a#b", "'#' must be written as %23"),
        ("redis://h:port", "the port"),
        ("redis://h:", "the port"),
        ("redis://h:-1", "the port"),
        ("redis://h:65536", "the port"),
        ("redis://h:" + "9" * 5000, "the port"),
        ("redis://h:٣", "the port"),
        ("redis://[::1", "IPv6"),
        ("redis://[::1]6379", "IPv6"),
        ("redis://[host]", "IPv6"),
        ("redis://h?a", "options are written"),
        ("redis://h?=1", "options are written"),
        ("redis://h?a=1&&b=2", "options are written"),
        ("redis://h?a=1&a=2", "'a' is given twice"),
    ],
)
def test_what_is_no_url_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse(text)
    assert reason in str(caught.value)
    assert isinstance(caught.value, ValueError)


SCHEMES = st.from_regex(r"[a-z][a-z0-9+.-]{0,8}", fullmatch=True)
TEXT = st.text(
    st.characters(
        exclude_categories=("Cs",), exclude_characters=[*map(chr, range(32)), "\x7f"]
    ),
    max_size=12,
)
URLS = st.builds(
    URL,
    scheme=SCHEMES,
    host=st.none() | TEXT.filter(bool) | st.ip_addresses().map(str),
    port=st.none() | st.integers(0, 65535),
    username=st.none() | TEXT.filter(bool),
    password=st.none() | TEXT,
    path=TEXT,
    query=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3),
)


@given(URLS)
@example(URL(scheme="x", host="a:]b"))
@example(URL(scheme="x", host="::1%a]b"))
@example(URL(scheme="x", path="/"))
@example(URL(scheme="x", path="?a=b#c&d"))
def test_every_url_survives_being_written_and_read(url: URL) -> None:
    assert parse(url.render(hide_secrets=False)) == url


@given(st.text(max_size=40) | st.from_regex(r"[a-z]{1,3}://[^\n]{0,40}", fullmatch=True))
def test_any_text_is_a_url_or_invalid(text: str) -> None:
    try:
        url = parse(text)
    except InvalidURL:
        return
    assert parse(url.render(hide_secrets=False)) == url


PASSWORD = "hunter2-Swordfish"


def shown(value: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200)
    console.print(value)
    return f"{value} {value!r} {out.getvalue()}"


@pytest.mark.parametrize(
    "text",
    [
        f"redis://ann:{PASSWORD}@h:1/0?db=1",
        f"redis://:{PASSWORD}@h",
        f"https://h?token={PASSWORD}&region=x",
        f"https://h?Api-Key={PASSWORD}",
        f"https://h?client_secret={PASSWORD}",
        f"postgresql://h/app?listen_url=postgresql://ann:{PASSWORD}@direct/app",
        f"postgresql://h/app?listen_url=host%3Ddirect password %3D {PASSWORD}",
    ],
)
def test_a_secret_is_never_shown(text: str) -> None:
    url = parse(text)
    assert PASSWORD not in shown(url)
    assert "***" in str(url)
    assert PASSWORD in url.render(hide_secrets=False)
    with pytest.raises(InvalidURL) as caught:
        url.options(("nothing",)) if url.query else parse(text + ":x:")
    assert PASSWORD not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        f"redis://ann:{PASSWORD}/x@h:1",
        f"redis://ann:{PASSWORD}#@h:1",
        f"redis://ann:{PASSWORD}?@h:1",
        f"redis://ann:{PASSWORD}%@h:1",
        f"redis://ann:{PASSWORD}%ff@h:1",
        f"redis://ann:{PASSWORD}\n@h:1",
        f"redis://[ann:{PASSWORD}",
        f"redis:/ann:{PASSWORD}@h:1",
        f"ann:{PASSWORD}://h",
        f"redis://h?{PASSWORD}",
        f"redis://h?token={PASSWORD}&token={PASSWORD}",
        f"redis://h?token={PASSWORD}%",
    ],
)
def test_an_error_never_quotes_a_password(text: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse(text)
    assert PASSWORD not in "".join(traceback.format_exception_only(caught.value))


def test_unknown_options_are_refused_by_name() -> None:
    url = parse("sqlite:///s.db?synchronus=normal")
    with pytest.raises(InvalidURL) as caught:
        url.options({"synchronous", "setup"})
    assert str(caught.value) == (
        "sqlite:// has no option 'synchronus' (did you mean 'synchronous'?); "
        "it knows setup, synchronous"
    )
    with pytest.raises(InvalidURL, match="it has none"):
        url.options(())


def test_known_options_are_handed_over() -> None:
    url = parse("sqlite:///s.db?setup=false")
    assert url.options({"synchronous", "setup"}) == {"setup": "false"}
