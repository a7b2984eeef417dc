"""What a URL says about where the servers are and how to talk to them."""

import pytest

from perdure.errors import InvalidURL

from perdure_redis.settings import Address, Login, Settings, Tls
from tests.backends.redis.wire import settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", Settings(addresses=(Address("localhost", 6379),))),
        ("valkey://h", Settings(addresses=(Address("h", 6379),))),
        ("redis://h:1/7", Settings(addresses=(Address("h", 1),), database=7)),
        ("redis://h?db=7", Settings(addresses=(Address("h", 6379),), database=7)),
        ("redis://[::1]:2", Settings(addresses=(Address("::1", 2),))),
        (
            "redis://h:1?hosts=i:2,j,[::1]:3,[::2]",
            Settings(
                addresses=(
                    Address("h", 1),
                    Address("i", 2),
                    Address("j", 6379),
                    Address("::1", 3),
                    Address("::2", 6379),
                )
            ),
        ),
        (
            "redis://:p%40ss@h",
            Settings(addresses=(Address("h", 6379),), login=Login("default", "p@ss")),
        ),
        ("redis://u:p@h", Settings(addresses=(Address("h", 6379),), login=Login("u", "p"))),
        ("redis://u@h", Settings(addresses=(Address("h", 6379),), login=Login("u", ""))),
        (
            "redis+sentinel://u:p@h/main/2?sentinel_password=s",
            Settings(
                addresses=(Address("h", 26379),),
                service="main",
                database=2,
                login=Login("u", "p"),
                sentinel_login=Login("default", "s"),
            ),
        ),
        (
            "redis+unix:///run/redis.sock?db=1",
            Settings(addresses=(Address("/run/redis.sock", 0),), database=1),
        ),
        ("rediss://h", Settings(addresses=(Address("h", 6379),), tls=Tls())),
        (
            "rediss+sentinel://h/main",
            Settings(addresses=(Address("h", 26379),), service="main", tls=Tls()),
        ),
        (
            "valkeys://h?ssl_cert_reqs=none&ssl_certfile=c&ssl_keyfile=k&ssl_ca_certs=a",
            Settings(
                addresses=(Address("h", 6379),),
                tls=Tls(verify=False, certfile="c", keyfile="k", ca_certs="a"),
            ),
        ),
        (
            "rediss://h?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=False",
            Settings(
                addresses=(Address("h", 6379),), tls=Tls(verify=False, check_hostname=False)
            ),
        ),
        (
            "redis://h?timeout=0.5&connect_timeout=2&client_name=web",
            Settings(
                addresses=(Address("h", 6379),),
                timeout=0.5,
                connect_timeout=2.0,
                client_name="web",
            ),
        ),
    ],
)
def test_urls(url: str, expected: Settings) -> None:
    assert settings(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/zero", "the database is a number"),
        ("redis://h/-1", "the database is a number"),
        ("redis://h/1?db=1", "names the database twice"),
        ("redis://h?hosts=:1", "host:port"),
        ("redis://h?hosts=i:0", "host:port"),
        ("redis://h?hosts=i:99999", "host:port"),
        ("redis://h?timeout=0", "timeout is a number of seconds above 0"),
        ("redis://h?timeout=soon", "timeout is a number of seconds above 0"),
        ("redis://h?connect_timeout=inf", "connect_timeout is a number of seconds above 0"),
        ("redis://h?client_name=a%20b", "client_name is printable ASCII"),
        ("redis://h?ssl_ca_certs=a", "ssl_ca_certs is for TLS"),
        ("redis://h?sentinel_password=p", "sentinel_password is for Sentinels"),
        ("rediss://h?ssl_cert_reqs=optional", "'required' or 'none'"),
        ("rediss://h?ssl_check_hostname=1", "'true' or 'false'"),
        ("rediss://h?ssl_keyfile=k", "needs ssl_certfile"),
        ("redis+sentinel://h", "needs the name of the service"),
        ("redis+sentinel://h/main/x", "the database is a number"),
        ("redis+unix://h/run/redis.sock", "names a socket, not a host"),
        ("redis+unix://", "names a socket, not a host"),
    ],
)
def test_what_cannot_be_meant_is_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidURL, match=said):
        settings(url)


def test_addresses_are_shown_as_people_write_them() -> None:
    assert str(Address("h", 1)) == "h:1"
    assert str(Address("::1", 1)) == "[::1]:1"
    assert str(Address("/run/redis.sock", 0)) == "/run/redis.sock"
