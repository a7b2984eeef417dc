"""What is wrong with credentials, endpoints and tables is said at connect."""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncGenerator
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from perdure.errors import Unavailable

from perdure_dynamodb.settings import Settings
from perdure_dynamodb.table import Table
from tests.backends.dynamodb.answering import (
    Answer,
    Answering,
    Asked,
    answering,
    refuse,
    reply,
)
from tests.services.certificates import write_certificate
from tests.services.dynamodb import REGION

NOBODY = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_DYNAMODB",
)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A user who has configured nothing."""
    for name in NOBODY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


@pytest.fixture
def somebody(nobody: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One with an access key."""
    nobody.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    nobody.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    return nobody


@pytest.fixture
async def server() -> AsyncGenerator[Answering]:
    async with answering() as server:
        yield server


async def refusal(settings: Settings) -> Unavailable:
    """What opening the table raises."""
    table = Table(settings)
    try:
        with pytest.raises(Unavailable) as caught:
            await table.open()
    finally:
        await table.aclose()
    assert "wJalrXUtnFEMI" not in str(caught.value)
    return caught.value


async def test_no_credentials(nobody: pytest.MonkeyPatch, server: Answering) -> None:
    error = await refusal(server.settings())
    assert error.lasting
    assert "no AWS credentials were found" in str(error)


async def test_half_of_the_credentials(nobody: pytest.MonkeyPatch, server: Answering) -> None:
    nobody.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    error = await refusal(server.settings())
    assert error.lasting
    assert "AWS_SECRET_ACCESS_KEY" in str(error)


async def test_an_unknown_profile(nobody: pytest.MonkeyPatch, server: Answering) -> None:
    error = await refusal(server.settings(profile="plum"))
    assert error.lasting
    assert "profile (plum) could not be found" in str(error)


async def test_a_profile_gives_credentials_region_and_endpoint(
    nobody: pytest.MonkeyPatch, server: Answering, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[profile plum]\naws_access_key_id = A\naws_secret_access_key = B\n"
        f"region = us-east-2\nendpoint_url = http://127.0.0.1:{server.port}\n"
    )
    table = Table(Settings(table="sessions", profile="plum"))
    await table.open()
    assert table.client.region == "us-east-2"
    assert table.client.endpoint == f"http://127.0.0.1:{server.port}"
    await table.aclose()
    assert "/us-east-2/" in server.asked[0].request.headers["Authorization"]


async def test_no_region(somebody: pytest.MonkeyPatch) -> None:
    error = await refusal(Settings(table="sessions"))
    assert error.lasting
    assert "?region=eu-west-1" in str(error)


async def test_a_region_that_does_not_exist(somebody: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *rest: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    somebody.setattr(socket, "getaddrinfo", unknown)
    started = time.monotonic()
    error = await refusal(Settings(table="sessions", region="eu-wst-1"))
    assert error.lasting
    assert "is there a region 'eu-wst-1'?" in str(error)
    assert time.monotonic() - started < 3
    error = await refusal(Settings(table="sessions", region="eu-west-1", timeout=0.1))
    assert not error.lasting
    assert "cannot be resolved" in str(error)


async def test_a_table_that_is_not_there(dynamodb_endpoint: str) -> None:
    error = await refusal(
        Settings(table="no-such-table", region=REGION, endpoint=dynamodb_endpoint)
    )
    assert error.lasting
    assert (
        f"perdure dynamodb create-table --table no-such-table --region {REGION} "
        f"--endpoint {dynamodb_endpoint}" in str(error)
    )


@pytest.mark.parametrize(
    ("keys", "types", "named"),
    [
        ("ps", "SB", "HASH 'p' of type S"),
        ("ps", "BN", "RANGE 's' of type N"),
        ("ab", "BB", "HASH 'a' of type B, RANGE 'b' of type B"),
        ("p", "B", "its keys are HASH 'p' of type B and not"),
    ],
)
async def test_a_table_with_other_keys(
    somebody: pytest.MonkeyPatch, server: Answering, keys: str, types: str, named: str
) -> None:
    kinds = ("HASH", "RANGE")
    server.table["KeySchema"] = [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(keys, kinds, strict=False)
    ]
    server.table["AttributeDefinitions"] = [
        {"AttributeName": name, "AttributeType": type_}
        for name, type_ in zip(keys, types, strict=True)
    ]
    error = await refusal(server.settings())
    assert error.lasting
    assert named in str(error)


@pytest.mark.parametrize(
    ("status", "lasting"),
    [("CREATING", False), ("DELETING", True), ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", True)],
)
async def test_a_table_that_is_not_active(
    somebody: pytest.MonkeyPatch, server: Answering, status: str, lasting: bool
) -> None:
    server.table["TableStatus"] = status
    error = await refusal(server.settings())
    assert error.lasting is lasting
    assert status in str(error)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            refuse(
                "AccessDeniedException",
                "User: arn:aws:iam::1:user/plum is not authorized to perform: "
                "dynamodb:Query on resource: arn:aws:dynamodb:eu-west-1:1:table/sessions",
            ),
            "lack the permission dynamodb:Query$",
        ),
        (refuse("AccessDeniedException", "No."), "lack the permission dynamodb:Query$"),
        (
            refuse("AccessDeniedException", "The key may not be used: kms:Decrypt is denied"),
            "lack the permission kms:Decrypt$",
        ),
        (refuse("ExpiredTokenException"), "credentials have expired"),
        (refuse("UnrecognizedClientException"), "access key is not known"),
        (refuse("InvalidSignatureException", "does not match"), "does not belong to"),
        (refuse("IncompleteSignatureException"), "signature was not accepted"),
        (refuse("RequestTimeTooSkewed"), "clock is too far"),
        (
            refuse("InvalidSignatureException", "Signature expired: 1 is now earlier than 2"),
            "clock is too far",
        ),
    ],
)
async def test_what_somebody_must_mend(
    somebody: pytest.MonkeyPatch, server: Answering, answer: Answer, message: str
) -> None:
    table = Table(server.settings())
    server.answers += [answer] * 2
    with pytest.raises(Unavailable, match=message) as caught:
        await table.query(b"p", b"a", b"b")
    assert caught.value.lasting
    assert len(server.operations) <= 2
    await table.aclose()


async def test_the_time_is_asked_for_again_if_connecting_took_long(
    somebody: pytest.MonkeyPatch, server: Answering
) -> None:
    async def slowly(asked: Asked) -> web.Response:
        await asyncio.sleep(1.2)
        return reply({"Table": server.table})

    server.descriptions.append(slowly)
    table = Table(server.settings())
    await table.open()
    await table.aclose()
    assert len(server.asked) == 2


async def test_a_wrong_clock_is_corrected_by_the_refusal(
    somebody: pytest.MonkeyPatch, server: Answering
) -> None:
    table = Table(server.settings())
    await table.open()

    async def tomorrow(asked: Asked) -> web.Response:
        date = formatdate(time.time() + 86_400, usegmt=True)
        if server.operations == ["Query"]:
            return reply({"__type": "x#RequestTimeTooSkewed"}, 400, date=date)
        return reply({"Items": []}, date=date)

    server.answers += [tomorrow, tomorrow]
    await table.query(b"p", b"a", b"b")
    first, second = (asked.request.headers["X-Amz-Date"] for asked in server.asked[1:])
    assert int(second[:8]) > int(first[:8])
    assert abs(table.now() - (time.time() + 86_400) * 1000) < 2000
    await table.aclose()


@pytest.mark.parametrize("variable", ["endpoint", "AWS_ENDPOINT_URL_DYNAMODB"])
async def test_plaintext_to_another_host_is_refused(
    somebody: pytest.MonkeyPatch, variable: str
) -> None:
    elsewhere = "http://192.0.2.1:8000"
    settings = Settings(table="sessions", region="eu-west-1")
    if variable == "endpoint":
        settings = Settings(table="sessions", region="eu-west-1", endpoint=elsewhere)
    else:
        somebody.setenv(variable, elsewhere)
    error = await refusal(settings)
    assert error.lasting
    assert "insecure=true" in str(error)


async def test_plaintext_to_another_host_that_is_trusted(somebody: pytest.MonkeyPatch) -> None:
    settings = Settings(
        table="sessions",
        region="eu-west-1",
        endpoint="http://192.0.2.1:8000",
        insecure=True,
        connect_timeout=0.1,
        timeout=0.1,
    )
    error = await refusal(settings)
    assert not error.lasting
    assert re.search("too long|cannot be reached", str(error))


async def test_a_proxy_is_used_unless_it_is_to_be_passed_by(
    somebody: pytest.MonkeyPatch, server: Answering
) -> None:
    somebody.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    somebody.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    elsewhere = server.settings(
        endpoint="http://192.0.2.1:8000", insecure=True, connect_timeout=0.1, timeout=0.1
    )
    table = Table(elsewhere)
    await table.open()
    await table.aclose()
    assert server.asked[0].request.headers["Host"] == "192.0.2.1:8000"
    for name in ("NO_PROXY", "no_proxy"):
        somebody.setenv(name, "192.0.2.1")
    await refusal(elsewhere)


async def test_an_endpoint_with_a_path(somebody: pytest.MonkeyPatch) -> None:
    somebody.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8000/shell")
    error = await refusal(Settings(table="sessions", region="eu-west-1"))
    assert error.lasting
    assert "not of the form https://host:port" in str(error)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``server``, for 127.0.0.1; ``stranger``, for another host."""
    directory = tmp_path_factory.mktemp("certificates")
    write_certificate(directory / "server.pem", "127.0.0.1")
    write_certificate(directory / "stranger.pem", "elsewhere.example")
    return directory


def serving(file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("by_environment", [False, True])
async def test_tls_with_an_authority_that_is_trusted(
    somebody: pytest.MonkeyPatch, certificates: Path, by_environment: bool
) -> None:
    file = str(certificates / "server.pem")
    async with answering(serving(certificates / "server.pem")) as server:
        settings = server.settings(ca=None if by_environment else file)
        if by_environment:
            somebody.setenv("AWS_CA_BUNDLE", file)
        table = Table(settings)
        await table.open()
        await table.aclose()


@pytest.mark.parametrize(
    ("served", "trusted"), [("server", None), ("server", "stranger"), ("stranger", "stranger")]
)
async def test_tls_is_verified(
    somebody: pytest.MonkeyPatch, certificates: Path, served: str, trusted: str | None
) -> None:
    async with answering(serving(certificates / f"{served}.pem")) as server:
        ca = None if trusted is None else str(certificates / f"{trusted}.pem")
        error = await refusal(server.settings(ca=ca))
    assert error.lasting
    assert "certificate is not trusted" in str(error)
    assert not server.asked


async def test_a_file_of_authorities_that_is_none(
    somebody: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(table="sessions", region="eu-west-1", ca=str(tmp_path / "no.pem"))
    error = await refusal(settings)
    assert error.lasting
    assert "no.pem" in str(error)
