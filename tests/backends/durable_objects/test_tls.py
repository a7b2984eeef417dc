"""A server must prove who it is, whatever else is said."""

import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trustme

from perdure.errors import Unavailable
from perdure.types import Scan

from tests.backends.durable_objects.front import Front
from tests.backends.durable_objects.opened import client_of, commit_of, new_key


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


def context_of(authority: trustme.CA, identity: str, directory: Path) -> ssl.SSLContext:
    file = directory / "server.pem"
    authority.issue_cert(identity).private_key_and_cert_chain_pem.write_to_path(str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


@pytest.fixture
async def front(
    durable_objects_url: str, authority: trustme.CA, tmp_path: Path
) -> AsyncGenerator[Front]:
    tls = context_of(authority, "127.0.0.1", tmp_path)
    async with Front.before(durable_objects_url, tls) as front:
        yield front


def secure(front: Front) -> str:
    return front.url.replace("http://", "https://")


async def test_a_server_of_a_trusted_authority_is_used(front: Front, tmp_path: Path) -> None:
    key = new_key()
    async with client_of(secure(front), ssl_ca_certs=tmp_path / "ca.pem") as client:
        await client.open()
        await client.commit(key, commit_of(b"x"))
        for _ in range(3):
            snapshot = await client.read(key, Scan())
            assert [item.value for item in snapshot.rows[0].items] == [b"x"]
    assert front.connections == 1


async def test_an_unknown_authority_is_refused(front: Front) -> None:
    async with client_of(secure(front)) as client:
        for work in (
            client.open(),
            client.commit(new_key(), commit_of(b"x")),
            client.wait(new_key(), after=None, timeout=5),
        ):
            with pytest.raises(Unavailable, match="TLS") as raised:
                await work
            assert raised.value.lasting
    assert front.requests == []


async def test_a_certificate_for_another_host_is_refused(
    durable_objects_url: str, authority: trustme.CA, tmp_path: Path
) -> None:
    tls = context_of(authority, "sessions.example.org", tmp_path)
    async with (
        Front.before(durable_objects_url, tls) as front,
        client_of(secure(front), ssl_ca_certs=tmp_path / "ca.pem") as client,
    ):
        with pytest.raises(Unavailable, match="TLS") as raised:
            await client.open()
        assert raised.value.lasting
        assert front.requests == []


async def test_a_client_shows_its_own_certificate_where_it_has_one(
    durable_objects_url: str, authority: trustme.CA, tmp_path: Path
) -> None:
    ours = authority.issue_cert("client@example.org")
    ours.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ours.pem"))
    tls = context_of(authority, "127.0.0.1", tmp_path)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(tmp_path / "ca.pem")
    async with Front.before(durable_objects_url, tls) as front:
        trusted = {"ssl_ca_certs": tmp_path / "ca.pem"}
        async with client_of(secure(front), **trusted) as client:
            with pytest.raises(Unavailable):
                await client.open()
        own = tmp_path / "ours.pem"
        async with client_of(secure(front), **trusted, ssl_certfile=own) as client:
            await client.open()
    assert front.requests == ["v1"]


async def test_a_missing_file_is_said(front: Front, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    async with client_of(secure(front), ssl_ca_certs=missing) as client:
        with pytest.raises(Unavailable, match="file for TLS") as raised:
            await client.open()
    assert raised.value.lasting


async def test_a_server_without_tls_is_no_server(durable_objects_url: str) -> None:
    async with client_of(durable_objects_url.replace("http://", "https://")) as client:
        with pytest.raises(Unavailable, match="TLS"):
            await client.open()
