"""``postgresql://`` URLs."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from perdure.backend import Wait
from perdure.errors import InvalidURL
from perdure.plugins import discover
from perdure.uri import parse

from perdure_postgres.backend import PostgresBackend
from perdure_postgres.settings import DEFAULT_POOL, DEFAULT_TIMEOUT, Settings
from perdure_postgres.url import open_url, settings_of


def settings(url: str) -> Settings:
    return settings_of(parse(url))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://", {}),
        ("postgres://db.example.org", {"host": "db.example.org"}),
        (
            "postgresql://me:p%40ss%20w@h:6432/my%20db",
            {
                "host": "h",
                "port": "6432",
                "user": "me",
                "password": "p@ss w",
                "dbname": "my db",
            },
        ),
        ("postgresql://[::1]/d", {"host": "::1", "dbname": "d"}),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "d"}),
        (
            "postgresql:///d?host=a,b&port=1,2&sslmode=verify-full&options=-c%20a%3Db",
            {
                "host": "a,b",
                "port": "1,2",
                "dbname": "d",
                "sslmode": "verify-full",
                "options": "-c a=b",
            },
        ),
        ("postgresql://h/d?password=it's", {"host": "h", "dbname": "d", "password": "it's"}),
    ],
)
def test_what_libpq_is_told(url: str, expected: dict[str, str]) -> None:
    assert conninfo_to_dict(settings(url).conninfo) == expected


def test_defaults() -> None:
    plain = settings("postgresql://h/d")
    assert (plain.schema, plain.setup, plain.prepare) == ("perdure", True, True)
    assert (plain.pool, plain.timeout) == (DEFAULT_POOL, DEFAULT_TIMEOUT)
    assert plain.listen_conninfo is None


def test_options() -> None:
    chosen = settings(
        "postgresql://h/d?schema=My%20%22own%22&setup=false&prepare=false&pool=3&timeout=2.5"
        "&listen_url=postgresql%3A%2F%2Fdirect%3A5433%2Fd"
    )
    assert (chosen.schema, chosen.setup, chosen.prepare) == ('My "own"', False, False)
    assert (chosen.pool, chosen.timeout) == (3, 2.5)
    assert chosen.listen_conninfo is not None
    assert conninfo_to_dict(chosen.listen_conninfo)["host"] == "direct"


def test_waiting_is_pushed_where_there_is_a_direct_connection() -> None:
    listen = "&listen_url=postgresql%3A%2F%2Fdirect%2Fd"
    for options, wait in (("", Wait.PUSH), ("?prepare=false", Wait.POLL)):
        assert open_url(parse(f"postgresql://h/d{options}")).capabilities.wait is wait
    pooled = open_url(parse(f"postgresql://h/d?prepare=false{listen}"))
    assert pooled.capabilities.wait is Wait.PUSH


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_schemes_are_found(scheme: str) -> None:
    assert isinstance(discover().open(parse(f"{scheme}://h/d")), PostgresBackend)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresql://h/d?schema=" + "x" * 64, "63"),
        ("postgresql://h/d?schema=" + "%C3%A9" * 32, "63"),
        ("postgresql://h/d?setup=no", "true"),
        ("postgresql://h/d?prepare=0", "true"),
        ("postgresql://h/d?pool=0", "connections"),
        ("postgresql://h/d?pool=many", "connections"),
        ("postgresql://h/d?pool=%C2%B2", "connections"),
        ("postgresql://h/d?timeout=0", "seconds"),
        ("postgresql://h/d?timeout=inf", "seconds"),
        ("postgresql://h/d?timeout=soon", "seconds"),
        ("postgresql://h/d?shcema=x", "schema"),
        ("postgresql://h/d?ssl_mode=require", "sslmode"),
        ("postgresql://h/d?dbname=e", "dbname is given twice"),
        ("postgresql://me:hunter2@h/d?password=other", "password is given twice"),
        ("postgresql://h/d?listen_url=postgresql%3A%2F%2Fme%3Ahunter2%40%5B%2F", "libpq"),
        ("postgresql://h/d?listen_url=sqlite:hunter2", "libpq"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(url: str, hint: str) -> None:
    with pytest.raises(InvalidURL, match=hint) as caught:
        open_url(parse(url))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None, "what it was made of might quote a password"


def test_no_secret_is_shown() -> None:
    shown = repr(settings("postgresql://me:hunter2@h/d?sslpassword=hunter2&timeout=3"))
    assert "hunter2" not in shown
    assert "h:5432/d" in shown
