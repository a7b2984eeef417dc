"""What a URL and the environment say about where the server is and who asks."""

import pytest

from perdure.errors import InvalidURL
from perdure.plugins import open_backend
from perdure.protocol.auth import Key, Mode
from perdure.uri import parse

from perdure_durable_objects.settings import KEY_VARIABLE, Settings, Tls, settings_from

SECRET = "medlars-are-eaten-when-they-look-rotten"
OTHER = "sorbs-too-and-nobody-knows-them-any-more"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "https://app:{}@sessions.example.workers.dev",
            Settings(
                origin="https://sessions.example.workers.dev",
                key=Key("app", SECRET),
                tls=Tls(),
            ),
        ),
        (
            "https://app:{}@h:8443/below/here/?auth=hmac&timeout=2.5&connect_timeout=1"
            "&connections=7&ssl_ca_certs=a&ssl_certfile=b&ssl_keyfile=c",
            Settings(
                origin="https://h:8443/below/here",
                key=Key("app", SECRET, mode=Mode.HMAC),
                tls=Tls("a", "b", "c"),
                timeout=2.5,
                connect_timeout=1.0,
                connections=7,
            ),
        ),
        (
            "http://app:{}@127.0.0.2:1",
            Settings(origin="http://127.0.0.2:1", key=Key("app", SECRET)),
        ),
        (
            "http://app:{}@[::1]:1",
            Settings(origin="http://[::1]:1", key=Key("app", SECRET)),
        ),
        (
            "http://app:{}@localhost",
            Settings(origin="http://localhost", key=Key("app", SECRET)),
        ),
        (
            "https://app:{}@münchen.example",
            Settings(
                origin="https://xn--mnchen-3ya.example", key=Key("app", SECRET), tls=Tls()
            ),
        ),
        (
            "http://app:{}@h?insecure=true",
            Settings(origin="http://h", key=Key("app", SECRET)),
        ),
    ],
)
def test_what_a_url_asks_for(url: str, expected: Settings) -> None:
    assert settings_from(parse(url.format(SECRET))) == expected


def test_the_key_comes_from_the_environment_where_the_url_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"env:{OTHER}")
    assert settings_from(parse("https://h")).key == Key("env", OTHER)
    assert settings_from(parse(f"https://app:{SECRET}@h")).key == Key("app", SECRET)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(InvalidURL, match=KEY_VARIABLE):
        settings_from(parse("https://h"))


def test_a_bad_key_of_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (
        SECRET,
        f"app:{SECRET}\n",
        f"a.b:{SECRET}",
        f"app:{SECRET[:20]}",
        f"app:{SECRET} ",
    ):
        monkeypatch.setenv(KEY_VARIABLE, text)
        with pytest.raises(InvalidURL) as raised:
            settings_from(parse("https://h"))
        assert SECRET[:20] not in str(raised.value)


async def test_no_rendering_shows_the_secret() -> None:
    url = parse(f"https://app:{SECRET}@h?auth=hmac")
    settings = settings_from(url)
    for text in (str(url), repr(url), repr(settings), str(settings), settings.origin):
        assert SECRET not in text
    backend = open_backend(f"http://app:{SECRET}@127.0.0.1:9?connect_timeout=1")
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9") as raised:
        await backend.open()
    await backend.aclose()
    cause: BaseException | None = raised.value
    while cause is not None:
        assert SECRET not in repr(cause)
        assert SECRET not in str(cause)
        cause = cause.__cause__ or cause.__context__


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_both_schemes_are_served(scheme: str) -> None:
    assert open_backend(f"{scheme}://app:{SECRET}@localhost").capabilities.loop_bound
