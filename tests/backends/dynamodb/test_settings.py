"""What a URL says about the table and how to reach it."""

import pytest

from perdure.errors import InvalidURL
from perdure.uri import parse

from perdure_dynamodb.settings import OPTIONS, Settings, settings_from


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dynamodb://sessions", Settings(table="sessions")),
        (
            "dynamodb://Team_1.agents-x?region=eu-west-1&profile=ops",
            Settings(table="Team_1.agents-x", region="eu-west-1", profile="ops"),
        ),
        (
            "dynamodb://sessions?endpoint=http://127.0.0.1:8000/",
            Settings(table="sessions", endpoint="http://127.0.0.1:8000"),
        ),
        (
            "dynamodb://sessions?endpoint=https://[::1]:8000&insecure=true&ca=a.pem",
            Settings(
                table="sessions", endpoint="https://[::1]:8000", insecure=True, ca="a.pem"
            ),
        ),
        (
            "dynamodb://sessions?timeout=30&request_timeout=2.5&connect_timeout=1&connections=7",
            Settings(
                table="sessions",
                timeout=30,
                request_timeout=2.5,
                connect_timeout=1,
                connections=7,
            ),
        ),
    ],
)
def test_urls(url: str, expected: Settings) -> None:
    assert settings_from(parse(url)) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("dynamodb://", "names a table"),
        ("dynamodb://ab", "names a table"),
        ("dynamodb://a%20b%20c", "names a table"),
        ("dynamodb://" + "a" * 256, "names a table"),
        ("dynamodb://sessions/eu-west-1", "names a table and no more"),
        ("dynamodb://sessions:8000", "names a table and no more"),
        ("dynamodb://AKIA:secret@sessions", "takes no user name or password"),
        ("dynamodb://AKIA@sessions", "takes no user name or password"),
        ("dynamodb://sessions?region=Europe", "option region"),
        ("dynamodb://sessions?region=", "option region"),
        ("dynamodb://sessions?endpoint=localhost:8000", "option endpoint"),
        ("dynamodb://sessions?endpoint=ftp://localhost", "option endpoint"),
        ("dynamodb://sessions?endpoint=http://localhost:8000/shell", "option endpoint"),
        ("dynamodb://sessions?endpoint=http://user:secret@localhost", "option endpoint"),
        ("dynamodb://sessions?insecure=yes", "option insecure"),
        ("dynamodb://sessions?timeout=0", "option timeout"),
        ("dynamodb://sessions?timeout=soon", "option timeout"),
        ("dynamodb://sessions?request_timeout=inf", "option request_timeout"),
        ("dynamodb://sessions?connect_timeout=-1", "option connect_timeout"),
        ("dynamodb://sessions?connections=0", "option connections"),
        ("dynamodb://sessions?connections=many", "option connections"),
    ],
)
def test_urls_that_make_no_sense(url: str, message: str) -> None:
    with pytest.raises(InvalidURL, match=message) as caught:
        settings_from(parse(url))
    assert "secret" not in str(caught.value)


def test_options_are_the_settings() -> None:
    assert set(OPTIONS) == set(Settings.__struct_fields__) - {"table"}
