"""Finding the backends that are installed, without importing a driver.

A backend's distribution names a module in the entry-point group ``perdure``::

    [project.entry-points.perdure]
    anything = "perdure_anything.plugin"

and that module implements one hook::

    from perdure.plugins import BackendSpec, hookimpl

    @hookimpl
    def perdure_backends() -> list[BackendSpec]:
        return [
            BackendSpec(
                schemes=("anything",),
                summary="Anything, kept well",
                distribution="perdure-anything",
                contract=1,
                factory="perdure_anything.backend:open_url",
            )
        ]

The module and its package import nothing but this module: every process that opens a store
imports the plugin modules of all installed backends, and only the chosen one's factory. Write
the contract's version as a number, that of the contract the backend was written for.

A plugin that does not work is listed in :attr:`Registry.broken` and hurts no other.
"""

import functools
import importlib
import re
from collections.abc import Callable, Mapping
from typing import cast

import msgspec
import pluggy

from perdure.backend import CONTRACT, Backend
from perdure.entry_points import EntryPoint, entry_points
from perdure.errors import BackendNotFound, PluginConflict
from perdure.uri import URL, did_you_mean, parse

GROUP = "perdure"
"""The entry-point group, and the name of the pluggy project."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

OFFICIAL: Mapping[str, str] = {
    "memory": "perdure-memory",
    "sqlite": "perdure-sqlite",
    "redis": "perdure[redis]",
    "rediss": "perdure[redis]",
    "redis+sentinel": "perdure[redis]",
    "rediss+sentinel": "perdure[redis]",
    "redis+unix": "perdure[redis]",
    "valkey": "perdure[redis]",
    "valkeys": "perdure[redis]",
    "postgres": "perdure[postgres]",
    "postgresql": "perdure[postgres]",
    "dynamodb": "perdure[dynamodb]",
    "http": "perdure[durable-objects]",
    "https": "perdure[durable-objects]",
}
"""What pip is to install for the schemes of our own backends."""

OFFICIAL_COMMANDS: Mapping[str, str] = {
    "dynamodb": "perdure[dynamodb]",
    "durable-objects": "perdure[durable-objects]",
    "serve": "perdure[server]",
}
"""And for the commands that our own distributions bring to the command line."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_REFERENCE = re.compile(r"[\w.]+:\w+")


class BackendSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin says of one backend."""

    schemes: tuple[str, ...]
    """URL schemes it serves, in lower case."""
    summary: str
    """One line for people."""
    distribution: str
    """The distribution to install, as the package index calls it."""
    contract: int
    """The version of :mod:`perdure.backend` it was written for (``CONTRACT`` there)."""
    factory: str
    """``"module:function"``, imported when a URL is opened. The function takes a
    :class:`perdure.uri.URL` and returns a :class:`perdure.backend.Backend`; it does no I/O and
    raises ``InvalidURL`` for a URL it cannot serve."""


class HookSpecs:
    """The hooks of perdure."""

    @hookspec
    def perdure_backends(self) -> list[BackendSpec]:
        """The backends that the plugin brings."""
        raise NotImplementedError


class BrokenPlugin(msgspec.Struct, frozen=True):
    """A plugin that could not be used."""

    name: str
    """Its entry point, as ``name = module``."""
    distribution: str
    """With its version."""
    reason: str
    """In one line."""


class Provider(msgspec.Struct, frozen=True):
    """A backend, and the distribution that really brought it."""

    spec: BackendSpec
    distribution: str
    """With its version."""


class Registry(msgspec.Struct, frozen=True):
    """The plugins found in this process. Made by :func:`discover`."""

    providers: tuple[Provider, ...] = ()
    broken: tuple[BrokenPlugin, ...] = ()

    @property
    def specs(self) -> tuple[BackendSpec, ...]:
        """What the working plugins bring, ordered by scheme."""
        return tuple(provider.spec for provider in self.providers)

    @property
    def schemes(self) -> tuple[str, ...]:
        """All schemes claimed, sorted."""
        return tuple(sorted({scheme for spec in self.specs for scheme in spec.schemes}))

    def find(self, scheme: str) -> BackendSpec:
        """The one backend that serves ``scheme``.

        Raises ``BackendNotFound``, or ``PluginConflict`` if two distributions claim the scheme
        or the one that does was written for another version of the contract.
        """
        claims = [p for p in self.providers if scheme in p.spec.schemes]
        if not claims:
            raise BackendNotFound(self._not_found(scheme))
        if len(claims) > 1:
            raise PluginConflict(
                f"{scheme}:// is claimed by {' and by '.join(p.distribution for p in claims)}: "
                "uninstall all but one"
            )
        (provider,) = claims
        if provider.spec.contract != CONTRACT:
            older = provider.spec.contract < CONTRACT
            raise PluginConflict(
                f"{provider.distribution} was written for version {provider.spec.contract} of "
                f"the backend contract, but {_installed('perdure-core')} has version "
                f"{CONTRACT}: upgrade {provider.spec.distribution if older else 'perdure-core'}"
            )
        return provider.spec

    def open(self, url: URL) -> Backend:
        """A new backend for ``url``. Imports its driver; does no I/O.

        Raises ``InvalidURL``, ``BackendNotFound`` (also if the driver cannot be imported) and
        ``PluginConflict``.
        """
        spec = self.find(url.scheme)
        backend = _factory(spec)(url)
        if not isinstance(backend, Backend):
            raise BackendNotFound(
                f"{spec.distribution} serves {url.scheme}://, but its factory {spec.factory} "
                f"returned {type(backend).__name__} instead of a Backend"
            )
        return backend

    def _not_found(self, scheme: str) -> str:
        if scheme in OFFICIAL:
            text = f"no backend for {scheme}://: pip install '{OFFICIAL[scheme]}'"
        else:
            known = {*self.schemes, *OFFICIAL}
            guess = did_you_mean(scheme, known)
            text = (
                f"no backend for {scheme}://{guess}. Installed: "
                f"{', '.join(f'{name}://' for name in self.schemes) or 'none'}"
            )
            if not guess:
                text += f". If someone publishes one, it may be called perdure-{scheme}"
        for plugin in self.broken:
            text += f". Not working: {plugin.distribution} ({plugin.reason})"
        return text


@functools.cache
def discover() -> Registry:
    """Find the installed plugins, once per process (``discover.cache_clear()`` forgets them).

    Never raises for a plugin's sake.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(HookSpecs)
    providers: list[Provider] = []
    broken: list[BrokenPlugin] = []
    # Not pluggy's load_setuptools_entrypoints: it stops at the first plugin that fails. One
    # module may be listed twice, by an editable and an ordinary installation.
    points = {point.value: point for point in entry_points(GROUP)}
    for _, point in sorted(points.items()):
        try:
            specs = _ask(manager, point)
        # Whatever a stranger's module raises is its own fault and must stay so.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            name = f"{point.name} = {point.value}"
            broken.append(BrokenPlugin(name, point.distribution, _one_line(error)))
        else:
            providers += (Provider(spec, point.distribution) for spec in specs)
    providers.sort(key=lambda provider: provider.spec.schemes)
    return Registry(tuple(providers), tuple(broken))


def open_backend(url: str) -> Backend:
    """A new backend for ``url``, from whichever installed plugin serves its scheme.

    Does no I/O. Raises ``InvalidURL``, ``BackendNotFound``, ``PluginConflict``.
    """
    return discover().open(parse(url))


class _InvalidPlugin(Exception):
    """A plugin module without the hook, or whose hook returns something else."""


def _ask(manager: pluggy.PluginManager, point: EntryPoint) -> list[BackendSpec]:
    """Import one plugin and call its hook, alone. Raises whatever goes wrong."""
    plugin = point.load()
    manager.register(plugin, name=point.value)
    try:
        manager.check_pending()  # a hook of ours, misspelt
        hooks = manager.hook.perdure_backends.get_hookimpls()
        answers: list[object] = [hook.function() for hook in hooks]
    finally:
        manager.unregister(name=point.value)
    if not answers:
        raise _InvalidPlugin("it does not implement perdure_backends")
    return _check(answers[0])


def _check(answer: object) -> list[BackendSpec]:
    """The answer of a hook, if it is one."""
    if not isinstance(answer, list):
        raise _InvalidPlugin(f"perdure_backends returned {type(answer).__name__}, not a list")
    for spec in cast("list[object]", answer):
        if not isinstance(spec, BackendSpec):
            raise _InvalidPlugin(
                f"perdure_backends returned a {type(spec).__name__} instead of a BackendSpec"
            )
        try:
            msgspec.convert(msgspec.structs.asdict(spec), BackendSpec)
        except msgspec.ValidationError as error:
            raise _InvalidPlugin(f"its BackendSpec is wrong: {error}") from None
        if not spec.schemes or not all(_SCHEME.fullmatch(scheme) for scheme in spec.schemes):
            raise _InvalidPlugin(f"{spec.schemes!r} are not URL schemes in lower case")
        if not _REFERENCE.fullmatch(spec.factory):
            raise _InvalidPlugin(f"the factory {spec.factory!r} is not 'module:function'")
    return cast("list[BackendSpec]", answer)


def _factory(spec: BackendSpec) -> Callable[[URL], object]:
    module, _, function = spec.factory.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BackendNotFound(
            f"the backend of {spec.distribution} cannot be imported: {_one_line(error)}"
        ) from error


def _installed(distribution: str) -> str:
    """Name and version of an installed distribution."""
    import importlib.metadata  # only needed to word an error

    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def _one_line(error: BaseException) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, _InvalidPlugin):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
