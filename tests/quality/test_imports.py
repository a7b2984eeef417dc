"""What each room may import at most, and what an import costs."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterable

import pytest

from tests.quality.workspace import (
    ROOT,
    Member,
    imported_modules,
    members,
    pyproject,
    requirement_name,
)

CORE, *OTHERS = members()
BACKENDS = [member for member in OTHERS if member.directory.parent.name == "backends"]

CONTRACT = ("types", "errors", "backend", "commits")
ALLOWED_IN_CORE = {
    "errors": (),
    "types": ("errors",),
    "backend": ("errors", "types"),
    "commits": ("errors", "types"),
    "entry_points": (),
    "uri": ("errors",),
    "plugins": (*CONTRACT, "entry_points", "uri"),
    "codec": ("errors", "types", "codec"),
    "protocol": (*CONTRACT, "protocol"),
}
"""What the lower layers of the core may import of it."""

LOADED_BY_NAME = {"httptools", "websockets"}
"""Dependencies that uvicorn loads."""

NEED_AN_EXTRA = ("perdure.encryption", "perdure.testing")
"""What uses the optional dependencies of the core."""

ALLOWED_IN_BACKENDS = (*CONTRACT, "plugins", "protocol", "uri")

STANDARD = {*sys.stdlib_module_names, "compression"}
"""``compression`` is new in Python 3.14."""


def named(member: Member) -> str:
    return member.name


def beyond(module: str, imports: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """The imports of ``perdure`` in ``module`` that are not allowed to it."""
    permitted = {f"perdure.{name}" for name in allowed}
    return [
        f"{module} imports {name}"
        for name in imports
        if name.split(".")[0] == "perdure" and ".".join(name.split(".")[:2]) not in permitted
    ]


def test_lower_layers_of_the_core_import_only_what_is_below_them() -> None:
    found: list[str] = []
    seen: set[str] = set()
    for name, module in CORE.modules():
        layer = name.split(".")[1] if "." in name else ""
        if layer in ALLOWED_IN_CORE:
            seen.add(layer)
            found += beyond(name, imported_modules(module), ALLOWED_IN_CORE[layer])
    assert found == []
    assert seen == set(ALLOWED_IN_CORE)


@pytest.mark.parametrize("member", BACKENDS, ids=named)
def test_a_backend_imports_only_the_contract(member: Member) -> None:
    found: list[str] = []
    for name, module in member.modules():
        found += beyond(name, imported_modules(module), ALLOWED_IN_BACKENDS)
    assert found == []


@pytest.mark.parametrize("member", BACKENDS, ids=named)
def test_finding_a_backend_imports_only_the_plugin_interface(member: Member) -> None:
    modules = dict(member.modules())
    assert set(imported_modules(modules[f"{member.package}.plugin"])) == {
        "perdure.plugins.BackendSpec",
        "perdure.plugins.hookimpl",
    }
    assert list(imported_modules(modules[member.package])) == []


def test_backends_state_the_contract_as_a_number() -> None:
    """``CONTRACT`` itself would always agree with the core that is installed."""
    for member in BACKENDS:
        text = (member.directory / "src" / member.package / "plugin.py").read_text()
        assert "CONTRACT" not in text
        assert "contract=" in text


@pytest.mark.parametrize("member", [CORE, *OTHERS], ids=named)
def test_a_distribution_imports_only_what_it_depends_on(member: Member) -> None:
    owners = dict(importlib.metadata.packages_distributions())
    owners |= {other.package: [other.name] for other in (CORE, *OTHERS)}  # editable: not listed
    required = {requirement_name(text) for text in member.project["dependencies"]}
    optional = {
        requirement_name(text)
        for extra in member.project.get("optional-dependencies", {}).values()
        for text in extra
    }
    used: set[str] = set()
    missing: list[str] = []
    for name, module in member.modules():
        allowed = required | optional if name.startswith(NEED_AN_EXTRA) else required
        for imported in imported_modules(module):
            top = imported.split(".")[0]
            if top in STANDARD or top == member.package:
                continue
            distributions = {requirement_name(owner) for owner in owners.get(top, [top])}
            used |= distributions
            if not distributions & allowed:
                missing.append(f"{name} imports {imported}")
    assert missing == []
    assert required <= used | LOADED_BY_NAME, "a dependency that nothing imports"


def test_the_import_rules_cover_every_distribution() -> None:
    rules = pyproject()["tool"]["importlinter"]
    packages = {member.package for member in members()}
    adapters = packages - {"perdure"}
    assert set(rules["root_packages"]) == packages
    layers, core, independent, kit = rules["contracts"]
    assert layers["type"] == "layers"
    assert set(core["forbidden_modules"]) == adapters
    assert set(independent["modules"]) == adapters
    assert set(kit["source_modules"]) == adapters


def test_importing_perdure_loads_no_driver_and_nothing_heavy() -> None:
    program = "import sys, perdure; perdure.Store('redis://u:p@h'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()} | set(done.stdout.split())
    assert "msgspec" in loaded
    assert not loaded & {
        "sqlite3",
        "hiredis",
        "psycopg",
        "perdure_memory",
        "perdure_sqlite",
        "perdure_redis",
        "perdure_postgres",
        "perdure_dynamodb",
        "perdure_durable_objects",
        "perdure_cli",
        "perdure_server",
        "perdure_opentelemetry",
        "opentelemetry",
        "boto3",
        "botocore",
        "aiohttp",
        "cryptography",
        "zstandard",
        "perdure.plugins",
        "perdure.testing",
        "pluggy",
        "importlib.metadata",
        "email",
        "hypothesis",
        "pytest",
        "rich",
        "click",
        "http",
        "multiprocessing",
        "concurrent.futures.process",
    }
