"""``perdure doctor`` and ``perdure backends``: is the store well, and what is installed?"""

import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import distributions

import msgspec

from perdure import PerdureError
from perdure.backend import CONTRACT, Description
from perdure.plugins import discover

from perdure_cli.app import perdure
from perdure_cli.errors import FAILED
from perdure_cli.output import (
    console,
    json_row,
    line,
    on_terminal,
    print_facts,
    print_table,
    row,
)
from perdure_cli.target import Target
from perdure_cli.text import escape, readable

PROBE_KIND = "doctor"
"""The kind of the scratch session, so that no list of a user's shows it."""

PROBE_ENTRY = {"role": "user", "content": "a probe of perdure doctor"}


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str = ""
    """What is wrong."""
    ms: float | None = None
    """How long it took, where that means something."""


class Finding(msgspec.Struct):
    """All that is known of the store; filled in as far as it can be reached."""

    description: Description | None = None
    checks: list[Check] = []


def run_doctor(target: Target, *, as_json: bool) -> int:
    """Examine the store and the installation; 1 if something is wrong."""
    import asyncio

    registry = discover()
    finding = Finding()
    try:
        asyncio.run(_examine(target, finding))
    except PerdureError as error:
        finding.checks.append(Check("store", False, str(error)))
    for plugin in registry.broken:
        detail = f"{plugin.distribution} is broken: {plugin.reason}"
        finding.checks.append(Check(f"plugin {plugin.name}", False, detail))
    for command in perdure.broken():
        detail = f"{command.distribution} is broken: {command.reason}"
        finding.checks.append(Check(f"command {command.name}", False, detail))
    healthy = all(check.ok for check in finding.checks)
    facts = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "contract": str(CONTRACT),
    }
    packages = _packages()
    if as_json:
        json_row(
            {
                "healthy": healthy,
                "store": _store_facts(finding.description),
                "url_from": _url_from(target),
                "checks": [msgspec.structs.asdict(check) for check in finding.checks],
                "backends": [
                    msgspec.structs.asdict(backend) for backend in installed_backends()
                ],
                **facts,
                "packages": packages,
            }
        )
    else:
        _print(finding, target, facts, packages)
    return 0 if healthy else FAILED


async def _examine(target: Target, finding: Finding) -> None:
    """Describe the store and use it once. Raises ``PerdureError`` where that ends."""
    checks = finding.checks

    async def timed(
        name: str, work: Awaitable[object], right: Callable[[object], bool]
    ) -> None:
        started = time.perf_counter()
        found = await work
        ms = (time.perf_counter() - started) * 1000
        ok = right(found)
        checks.append(Check(name, ok, "" if ok else f"unexpected result: {found!r}", ms))

    store = target.store()
    try:
        finding.description = await store.describe()
        checks.append(Check("connect", True))
        session = store.kind(PROBE_KIND).session(f"probe-{os.urandom(8).hex()}")
        reader = store.kind(PROBE_KIND).session(session.key.id)
        await timed("write", session.append(PROBE_ENTRY), bool)
        try:
            await timed("write again", session.append(PROBE_ENTRY), bool)
            await timed("read", reader.entries(), [PROBE_ENTRY, PROBE_ENTRY].__eq__)
        finally:
            await timed("delete", session.delete(), bool)
        await timed("read after delete", reader.head(), lambda head: head is None)
    finally:
        await store.aclose()


_URL_FROM = {
    "--url": "--url",
    "PERDURE_URL": "the environment variable PERDURE_URL",
    "default": "nobody: it is the default (--url or PERDURE_URL choose another)",
}


def _url_from(target: Target) -> str:
    if target.url is not None:
        return "--url"
    return "PERDURE_URL" if target.is_named else "default"


def _store_facts(description: Description | None) -> dict[str, object] | None:
    return None if description is None else msgspec.structs.asdict(description)


def _packages() -> dict[str, str]:
    """Versions of perdure's distributions and of what they are built on."""
    wanted = ("perdure", "msgspec", "pluggy", "rich", "click")
    found: dict[str, str] = {}
    for distribution in distributions():
        name = distribution.name
        if name in wanted or name.startswith("perdure-"):
            found.setdefault(name, distribution.version)
    return dict(sorted(found.items()))


def _print(
    finding: Finding, target: Target, facts: dict[str, str], packages: dict[str, str]
) -> None:
    description = finding.description
    about: list[tuple[str, str]] = []
    if description is not None:
        about += [("backend", description.backend), ("location", description.location)]
    about.append(("chosen by", _URL_FROM[_url_from(target)]))
    if description is not None:
        about += [("durability", description.durability), *description.details.items()]
    about += facts.items()
    about.append(("packages", ", ".join(f"{n} {v}" for n, v in packages.items()) or "none"))
    healthy = all(check.ok for check in finding.checks)
    verdict = "healthy" if healthy else "not healthy"
    if not on_terminal():
        for name, value in about:
            row("fact", name, value)
        for check in finding.checks:
            ms = "-" if check.ms is None else f"{check.ms:.2f}"
            detail = (check.detail,) if check.detail else ()
            row("check", check.name, "ok" if check.ok else "failed", ms, *detail)
        row("verdict", verdict)
        return
    from rich.text import Text

    screen = console()
    print_facts(about)
    screen.print()
    width = max(len(check.name) for check in finding.checks)
    for check in finding.checks:
        mark = ("✓", "green") if check.ok else ("✗", "bold red")
        ms = "" if check.ms is None else f"{check.ms:10.2f} ms"
        shown = Text.assemble(mark, f" {check.name:<{width}}{ms}")
        if check.detail:
            shown.append(f"  {readable(check.detail)}")
        screen.print(shown)
    screen.print()
    screen.print(Text(verdict, style="bold green" if healthy else "bold red"))


# backends


class InstalledBackend(msgspec.Struct, frozen=True):
    """One installed backend, or a plugin that is broken."""

    schemes: tuple[str, ...]
    summary: str
    distribution: str
    contract: int | None
    state: str
    """``ready``, or why not."""


def installed_backends() -> list[InstalledBackend]:
    """What the plugins bring, the broken ones last. Imports no driver."""
    registry = discover()
    found: list[InstalledBackend] = []
    for provider in registry.providers:
        spec = provider.spec
        try:
            for scheme in spec.schemes:
                registry.find(scheme)
            state = "ready"
        except PerdureError as error:
            state = str(error)
        found.append(
            InstalledBackend(
                spec.schemes, spec.summary, provider.distribution, spec.contract, state
            )
        )
    found += (
        InstalledBackend((), plugin.name, plugin.distribution, None, f"broken: {plugin.reason}")
        for plugin in registry.broken
    )
    return found


def run_backends(*, as_json: bool) -> int:
    """List what is installed. Imports no driver."""
    found = installed_backends()
    if as_json:
        for backend in found:
            json_row(msgspec.structs.asdict(backend))
        return 0
    rows = [
        (
            " ".join(f"{scheme}://" for scheme in backend.schemes) or "-",
            backend.distribution,
            "-" if backend.contract is None else str(backend.contract),
            backend.state,
            backend.summary,
        )
        for backend in found
    ]
    if on_terminal():
        if not rows:
            line("no backends are installed: pip install perdure")
            return 0
        shown = [tuple(escape(column) for column in columns) for columns in rows]
        print_table(("scheme", "distribution", "contract", "state", "summary"), shown)
    else:
        for columns in rows:
            row(*columns)
    return 0
