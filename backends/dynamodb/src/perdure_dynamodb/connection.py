"""One signed request and its reply, over a pool of kept connections."""

import io
import ssl
import zlib
from urllib.parse import urlsplit

import aiohttp
import msgspec

from perdure.errors import StoreClosed, Unavailable

from perdure_dynamodb.account import Account, Renewal, is_loopback
from perdure_dynamodb.clock import Clock, local_now
from perdure_dynamodb.failures import Lost
from perdure_dynamodb.settings import Settings
from perdure_dynamodb.signing import Credentials, Signer

IDLE = 30.0
"""Seconds after which an unused connection is closed, before the server would."""

LARGE = 1 << 20
"""Bytes of a request from which on aiohttp wants to send it in parts."""

READ_BUFFER = 1 << 18
"""Bytes of a reply that are held before the socket waits: a query's page is up to 1.4 MB."""

_UNWANTED = ("Accept", "Accept-Encoding")


class Reply(msgspec.Struct, frozen=True):
    """What the server sent, its checksum verified."""

    status: int
    body: bytes
    credentials: Credentials
    """Those that signed the request."""


class Connection:
    """The pool. Bound to the event loop that it is made in."""

    def __init__(
        self,
        settings: Settings,
        account: Account,
        clock: Clock,
        tls: ssl.SSLContext | None,
    ) -> None:
        """``tls``: see :func:`trust`."""
        self._clock = clock
        self._account = account
        self.renewal = Renewal(settings, account)
        self._url = account.endpoint + "/"
        self._signer = Signer(_host(account.endpoint), account.region)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.connections,
                keepalive_timeout=IDLE,
                ssl=tls or False,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=settings.request_timeout,
                connect=min(settings.connect_timeout, settings.request_timeout),
            ),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            skip_auto_headers=_UNWANTED,
        )

    async def exchange(self, operation: str, body: bytes) -> Reply:
        """Send one request and return what came back, whatever its status.

        Raises :class:`Lost` without a reply, ``Unavailable`` without credentials, and
        ``StoreClosed``.
        """
        if self._session.closed:
            raise StoreClosed("the store is closed")
        if self.renewal.due:
            await self.renewal.renew()
        credentials = self.renewal.current
        headers = self._signer.headers(credentials, operation, body, self._clock.now())
        headers["User-Agent"] = "perdure-dynamodb"
        sent = local_now()
        try:
            async with self._session.post(
                self._url,
                data=body if len(body) <= LARGE else io.BytesIO(body),
                headers=headers,
                proxy=self._account.proxy,
                allow_redirects=False,
            ) as response:
                if date := response.headers.get("Date"):
                    self._clock.observe(sent, local_now(), date)
                content = await response.read()
                checksum = response.headers.get("x-amz-crc32")
        except aiohttp.ClientConnectorCertificateError as error:
            reason = f"its certificate is not trusted ({error.certificate_error})"
            raise Lost(reason, sent=False, lasting=True) from None
        except aiohttp.ClientConnectorDNSError:
            reason = "its name cannot be resolved"
            if not self._account.known_region:
                reason += f"; is there a region {self._account.region!r}?"
            raise Lost(reason, sent=False, lasting=not self._account.known_region) from None
        except aiohttp.ClientConnectorError as error:
            raise Lost(f"it cannot be reached ({error.os_error})", sent=False) from None
        except aiohttp.ConnectionTimeoutError:
            raise Lost("connecting took too long", sent=False) from None
        except TimeoutError:
            raise Lost("it did not answer in time", sent=True) from None
        except aiohttp.ClientError as error:
            raise Lost(f"the connection broke ({type(error).__name__})", sent=True) from None
        except RuntimeError:
            if self._session.closed:
                raise StoreClosed("the store was closed") from None
            raise
        if checksum is not None and checksum != str(zlib.crc32(content)):
            raise Lost("its reply was garbled on the way (CRC-32)", sent=True)
        return Reply(response.status, content, credentials)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self.renewal.aclose()
        await self._session.close()


def _host(endpoint: str) -> str:
    """What the ``Host`` header will say."""
    parts = urlsplit(endpoint.lower())
    usual = {"http": 80, "https": 443}[parts.scheme]
    return parts.netloc.removesuffix(f":{usual}")


def trust(settings: Settings, account: Account) -> ssl.SSLContext | None:
    """By what the endpoint is to prove itself; ``None`` where it need not. Blocks.

    Raises ``Unavailable``, lasting, for one that is neither TLS nor this host, unless the
    settings allow it.
    """
    if not account.secure:
        if settings.insecure or is_loopback(account.endpoint):
            return None
        raise Unavailable(
            f"dynamodb: the endpoint {account.endpoint} is not encrypted; use https, or "
            "option insecure=true if the network is trusted",
            lasting=True,
        )
    ca = account.ca
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # of which ssl.SSLError is one
        raise Unavailable(
            f"dynamodb: the file of trusted authorities {ca} cannot be used: {error}",
            lasting=True,
        ) from None
