"""Requests are signed as botocore signs them."""

import os
import socket
from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from perdure_dynamodb.signing import Credentials, Signer
from perdure_dynamodb.table import Table
from tests.backends.dynamodb.answering import answering

TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80)
CREDENTIALS = st.builds(Credentials, TEXT, TEXT, st.none() | TEXT)
HOSTS = st.sampled_from(["dynamodb.eu-west-1.amazonaws.com", "127.0.0.1:8000", "[::1]:8000"])
REGIONS = st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1"])
OPERATIONS = st.sampled_from(["PutItem", "Query", "TransactWriteItems"])
MOMENTS = st.integers(0, 253402300799_999)


def expected(
    credentials: Credentials,
    host: str,
    region: str,
    operation: str,
    body: bytes,
    now: int,
) -> dict[str, str]:
    """The headers that botocore's signer makes."""
    request = AWSRequest(
        method="POST",
        url=f"https://{host}/",
        data=body,
        headers={
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        },
    )
    signer = SigV4Auth(
        BotocoreCredentials(credentials.access_key, credentials.secret_key, credentials.token),
        "dynamodb",
        region,
    )
    moment = datetime.fromtimestamp(now // 1000, UTC)
    with patch("botocore.auth.get_current_datetime", return_value=moment):
        signer.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(
    CREDENTIALS,
    HOSTS,
    REGIONS,
    st.lists(st.tuples(OPERATIONS, st.binary(max_size=200), MOMENTS), min_size=1, max_size=5),
)
def test_headers_are_botocores(
    credentials: Credentials,
    host: str,
    region: str,
    requests: list[tuple[str, bytes, int]],
) -> None:
    signer = Signer(host, region)
    for operation, body, now in requests:
        headers = signer.headers(credentials, operation, body, now)
        made = {name.lower(): value for name, value in headers.items()}
        assert made == expected(credentials, host, region, operation, body, now)


@given(st.lists(CREDENTIALS, min_size=2, max_size=4), st.lists(MOMENTS, min_size=2, max_size=4))
def test_the_key_of_a_day_is_not_used_for_another(
    several: list[Credentials], moments: list[int]
) -> None:
    signer = Signer("h", "r")
    for now in moments:
        for credentials in several:
            again = Signer("h", "r").headers(credentials, "Query", b"{}", now)
            assert signer.headers(credentials, "Query", b"{}", now) == again


def speaks_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


IPV6 = pytest.param(
    "[::1]", marks=pytest.mark.skipif(not speaks_ipv6(), reason="this host has no IPv6")
)


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST", IPV6])
async def test_the_host_that_is_signed_is_the_one_that_is_sent(
    host: str, aws_credentials: None
) -> None:
    address = "::1" if host.startswith("[") else "127.0.0.1"
    async with answering(address=address) as server:
        table = Table(server.settings(endpoint=f"http://{host}:{server.port}"))
        await table.open()
        await table.aclose()
    (asked,) = server.asked
    moment = datetime.strptime(asked.request.headers["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
    wanted = expected(
        Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]),
        asked.request.headers["Host"],
        "eu-west-1",
        "DescribeTable",
        asked.sent,
        int(moment.timestamp() * 1000),
    )
    assert asked.request.headers["Authorization"] == wanted["authorization"]


@pytest.mark.parametrize("token", [None, "token-secret"])
def test_credentials_do_not_show(token: str | None) -> None:
    shown = repr(Credentials("AKIDSECRET", "key-secret", token))
    assert "secret" not in shown.lower()
