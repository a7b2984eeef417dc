"""Credentials, region, endpoint and trusted authorities, as botocore finds them.

Finding them may read files, start processes and ask servers (roles of containers and instances,
SSO), all of it blocking: it is done in a thread, and credentials are renewed before they lapse.
"""

import asyncio
import contextlib
import copy
import functools
import ipaddress
from collections.abc import Callable, Coroutine
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import botocore.session
import msgspec
from botocore.credentials import Credentials as Found
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    MetadataRetrievalError,
    NoRegionError,
    ProfileNotFound,
)
from botocore.httpsession import get_cert_path
from botocore.loaders import Loader, create_loader

from perdure.errors import Unavailable

from perdure_dynamodb.settings import ENDPOINT, Settings
from perdure_dynamodb.signing import Credentials

RENEW_AFTER = 60.0
"""Seconds after which botocore is asked whether it would renew credentials. It does so from 15
minutes before they lapse, while they still serve."""

TRUST_FOR = 600.0
"""Seconds after which a request waits for botocore's answer: there were none for so long."""

_FAILURES = (BotoCoreError, ClientError, OSError, RuntimeError, ValueError)
"""What botocore raises: its own; what a server of roles has refused; files that cannot be read;
renewed credentials that have lapsed again; an endpoint that is none."""

_PASSING = (HTTPClientError, MetadataRetrievalError)
"""Those that may be gone in a moment: a server of roles was not reached."""


class Account(msgspec.Struct, frozen=True):
    """What botocore found."""

    region: str
    endpoint: str
    found: Found
    credentials: Credentials
    ca: str | None
    """File of the authorities to trust. ``None``: the system's."""
    proxy: str | None
    known_region: bool
    """Whether botocore has heard of the region, or it is of no account."""

    @property
    def secure(self) -> bool:
        """Whether the endpoint is reached by TLS."""
        return self.endpoint.startswith("https:")


def find(settings: Settings) -> Account:
    """Ask botocore. Blocks. Raises ``Unavailable``, most often lasting."""
    try:
        session = botocore.session.Session(profile=settings.profile)
        session.register_component(
            "data_loader", _loader(session.get_config_variable("data_path"))
        )
        region = settings.region or session.get_config_variable("region")
        if not region:
            raise NoRegionError
        found = session.get_credentials()
        if found is None:
            raise Unavailable(
                "dynamodb: no AWS credentials were found, neither in the environment nor in "
                "~/.aws nor from a role of this container or instance",
                lasting=True,
            )
        client = session.create_client(
            "dynamodb", region_name=region, endpoint_url=settings.endpoint
        )
        endpoint = client.meta.endpoint_url.rstrip("/")
        client.close()
        if not ENDPOINT.fullmatch(endpoint):
            raise ValueError(f"the endpoint {endpoint!r} is not of the form https://host:port")
        known = settings.endpoint is not None or region in session.get_available_regions(
            "dynamodb", session.get_partition_for_region(region)
        )
        bundle = settings.ca or session.get_config_variable("ca_bundle")
        return Account(
            region=region,
            endpoint=endpoint,
            found=found,
            credentials=_frozen(found),
            ca=bundle or get_cert_path(True),
            proxy=_proxy(endpoint),
            known_region=known,
        )
    except NoRegionError:
        raise Unavailable(
            "dynamodb: no region is set; name one in the URL (?region=eu-west-1), in "
            "AWS_REGION or in the profile",
            lasting=True,
        ) from None
    except ProfileNotFound as error:
        raise Unavailable(f"dynamodb: {error}", lasting=True) from None
    except _FAILURES as error:
        raise Unavailable(
            f"dynamodb: the AWS configuration does not work: {_line(error)}",
            lasting=not isinstance(error, _PASSING),
        ) from None


def is_loopback(endpoint: str) -> bool:
    """Whether a URL names this host."""
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


class Renewal:
    """Credentials that are good now. Used from one event loop."""

    def __init__(self, settings: Settings, account: Account) -> None:
        self._settings = settings
        self._found = account.found
        self.current = account.credentials
        """The newest."""
        self._tried = self._confirmed = asyncio.get_running_loop().time()
        self._task: asyncio.Task[None] | None = None

    @property
    def due(self) -> bool:
        """Whether :meth:`renew` should be called before ``current`` is used."""
        if not isinstance(self._found, RefreshableCredentials):
            return False
        return asyncio.get_running_loop().time() - self._tried > RENEW_AFTER

    async def renew(self) -> None:
        """Ask botocore, in a thread; waits for it only if that was not done for long.

        Raises ``Unavailable``.
        """
        self._tried = asyncio.get_running_loop().time()
        task = self._start(self._renew)
        if self._tried - self._confirmed > TRUST_FOR:
            await self._finish(task)

    async def replace(self, refused: Credentials) -> bool:
        """Look for others than those that were refused, in all places, anew.

        False: there are none. Raises ``Unavailable``.
        """
        if self.current == refused:
            await self._finish(self._start(self._find))
        return self.current != refused

    async def aclose(self) -> None:
        """Wait no more for what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _start(self, attempt: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        """The attempt that is under way, or this one."""
        if self._task is None:
            self._task = asyncio.create_task(attempt())
            self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # it is no news if nobody waits

    async def _finish(self, task: asyncio.Task[None]) -> None:
        # Not cancelled with the caller: others may wait for the same.
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise copy.copy(error) from None  # several callers raise it, each its own

    async def _renew(self) -> None:
        try:
            self.current = await asyncio.to_thread(_frozen, self._found)
        except _FAILURES as error:
            raise Unavailable(f"dynamodb: no new credentials: {_line(error)}") from None
        self._confirmed = asyncio.get_running_loop().time()

    async def _find(self) -> None:
        account = await asyncio.to_thread(find, self._settings)
        self._found, self.current = account.found, account.credentials
        self._tried = self._confirmed = asyncio.get_running_loop().time()


@functools.cache
def _loader(data_path: str | None) -> Loader:
    """botocore's descriptions of AWS, of which each session would read its own: 0.1 s."""
    return create_loader(data_path)


def _frozen(found: Found) -> Credentials:
    frozen = found.get_frozen_credentials()
    return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)


def _line(error: Exception) -> str:
    """What went wrong, in one line: it may quote what a process has written."""
    return " ".join(str(error).split())[:300]


def _proxy(endpoint: str) -> str | None:
    parts = urlsplit(endpoint)
    if is_loopback(endpoint) or proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)
