"""TLS as libpq does it, by the URL's options.

The server from PyPI has no TLS, so a pooler in front of it ends it.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from perdure.errors import Unavailable

from tests.backends.postgres.databases import connected, query
from tests.backends.postgres.pooler import pooling
from tests.services.certificates import write_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, of its own authority, and its key in the same file."""
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    write_certificate(file, "127.0.0.1")
    return file


@pytest.fixture
def url(direct_url: str, certificate: Path) -> Iterator[str]:
    """Where TLS is spoken."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with pooling(direct_url, tls=context) as (url, _):
        yield url


async def test_a_server_whose_authority_is_trusted(url: str, certificate: Path) -> None:
    trusting = make_conninfo(url, sslmode="verify-full", sslrootcert=str(certificate))
    value = bytes(300_000)
    async with connected(trusting, prepare=False) as database:
        assert await query(database, "SELECT $1::bytea", value) == [(value,)]


async def refusal(url: str, **options: str) -> str:
    """What is said to one who wants more than he gets."""
    async with connected(make_conninfo(url, **options), prepare=False) as database:
        with pytest.raises(Unavailable) as raised:
            await query(database, "SELECT 1")
    assert raised.value.lasting
    return str(raised.value)


async def test_a_server_nobody_vouches_for(url: str) -> None:
    assert "certificate" in await refusal(url, sslmode="verify-full", sslrootcert="system")


async def test_a_server_by_another_name(url: str, certificate: Path) -> None:
    said = await refusal(
        url,
        host="localhost",
        hostaddr="127.0.0.1",
        sslmode="verify-full",
        sslrootcert=str(certificate),
    )
    assert "localhost" in said


async def test_no_file_of_authorities(url: str) -> None:
    said = await refusal(url, sslmode="verify-ca", sslrootcert="/no/such/file")
    assert "certificate" in said
