"""Plugins of real distributions on disk: found, used, and kept from hurting one another."""

from pathlib import Path

import pytest

from perdure.backend import CONTRACT
from perdure.plugins import discover

from tests.plugins.distributions import install_plugin, run

ERRORS = """
from perdure.errors import PerdureError
from perdure.plugins import discover, open_backend

def error(url):
    try:
        return type(open_backend(url)).__name__
    except PerdureError as error:
        return f"{type(error).__name__}: {error}"
"""
"""``error(url)``: what opening it says, or the class of the backend."""


@pytest.mark.parametrize("first", ["", "import importlib.metadata"])
def test_a_third_party_distribution_is_found_and_used(tmp_path: Path, first: str) -> None:
    install_plugin(tmp_path, "perdure-jar", "jar", version="2.5")
    found = run(
        tmp_path,
        f"""
        {first}
        import asyncio, sys
        import perdure
        from perdure.plugins import discover, open_backend

        async def main():
            async with perdure.Store("jar://shelf/left?size=3") as store:
                await store.save("plum", {{"ripe": True}})
                return await store.load("plum")

        spec = discover().find("jar")
        early = [name for name in sys.modules if name == "perdure_jar.backend"]
        result = [
            spec.summary,
            spec.distribution,
            [p.distribution for p in discover().providers if p.spec is spec],
            early,
            str(open_backend("jar://shelf/left?size=3").url),
            asyncio.run(main()),
        ]
        """,
    )
    assert found == [
        "A jar",
        "perdure-jar",
        ["perdure-jar 2.5"],
        [],
        "jar://shelf/left?size=3",
        {"ripe": True},
    ]


def test_our_own_backends_are_found() -> None:
    result = run(
        Path(),
        """
        from perdure.plugins import discover
        result = {s.distribution: s.schemes for s in discover().specs}
        """,
    )
    for scheme in ("memory", "sqlite", "redis", "postgres"):
        assert scheme in result[f"perdure-{scheme}"]


def test_two_distributions_that_claim_a_scheme_are_both_named(tmp_path: Path) -> None:
    install_plugin(tmp_path, "perdure-jar", "jar", version="2.5")
    install_plugin(tmp_path, "perdure-clay", "jar", version="0.1")
    install_plugin(tmp_path, "perdure-tin", "tin")
    assert run(
        tmp_path, f"{ERRORS}\nresult = [error('jar://'), error('tin://'), error('memory://')]"
    ) == [
        "PluginConflict: jar:// is claimed by perdure-clay 0.1 and by perdure-jar 2.5: "
        "uninstall all but one",
        "JarBackend",
        "MemoryBackend",
    ]


@pytest.mark.parametrize(
    ("contract", "advice"),
    [(CONTRACT - 1, "upgrade perdure-jar"), (CONTRACT + 1, "upgrade perdure-core")],
)
def test_a_plugin_for_another_contract_is_refused_naming_both_sides(
    tmp_path: Path, contract: int, advice: str
) -> None:
    install_plugin(tmp_path, "perdure-jar", "jar", version="2.5", contract=contract)
    install_plugin(tmp_path, "perdure-tin", "tin")
    version, refusal, other = run(
        tmp_path,
        f"{ERRORS}\nfrom importlib.metadata import version\n"
        "result = [version('perdure-core'), error('jar://'), error('tin://')]",
    )
    assert refusal == (
        f"PluginConflict: perdure-jar 2.5 was written for version {contract} of the backend "
        f"contract, but perdure-core {version} has version {CONTRACT}: {advice}"
    )
    assert other == "JarBackend"


HOOK = """
from perdure.plugins import BackendSpec, hookimpl

@hookimpl
def perdure_backends({parameters}):
    {body}
"""

SPEC = (
    "return [BackendSpec(schemes={schemes}, summary='x', distribution='x', contract={contract},"
    " factory={factory})]"
)


def hook(body: str, parameters: str = "") -> str:
    return HOOK.format(parameters=parameters, body=body)


def spec(schemes: str = "('x',)", contract: str = "1", factory: str = "'x:y'") -> str:
    return hook(SPEC.format(schemes=schemes, contract=contract, factory=factory))


BROKEN = {
    "import": (
        "import no_such_driver",
        "ModuleNotFoundError: No module named 'no_such_driver'",
    ),
    "syntax": ("def", "SyntaxError: "),
    "exit": ("raise SystemExit('bye')", "SystemExit: bye"),
    "lines": ("raise ValueError('one\\n\\ntwo')", "ValueError: one two"),
    "bare": ("raise RuntimeError", "RuntimeError"),
    "hookless": ("", "it does not implement perdure_backends"),
    "misspelt": (hook("return []").replace("_backends", "_backend"), "PluginValidationError: "),
    "parameters": (hook("return []", "config"), "PluginValidationError: "),
    "raises": (hook("raise KeyError('k')"), "KeyError: 'k'"),
    "none": (hook("return None"), "perdure_backends returned NoneType, not a list"),
    "words": (
        hook("return ['x']"),
        "perdure_backends returned a str instead of a BackendSpec",
    ),
    "field": (
        hook("return [BackendSpec(scheme='x')]"),
        "TypeError: ",
    ),
    "type": (spec(contract="'1'"), "its BackendSpec is wrong: "),
    "noscheme": (spec(schemes="()"), "() are not URL schemes in lower case"),
    "uppercase": (spec(schemes="('X',)"), "('X',) are not URL schemes in lower case"),
    "factory": (spec(factory="'x.y'"), "the factory 'x.y' is not 'module:function'"),
}


def test_a_broken_plugin_is_listed_with_its_reason_and_hurts_no_other(tmp_path: Path) -> None:
    for name, (plugin, _) in BROKEN.items():
        install_plugin(tmp_path, f"perdure-{name}", name, version="0.3", plugin=plugin)
    install_plugin(tmp_path, "perdure-tin", "tin")
    tin, broken, message = run(
        tmp_path,
        f"{ERRORS}\n"
        "broken = [[p.name, p.distribution, p.reason] for p in discover().broken]\n"
        "result = [error('tin://'), broken, error('none://')]",
    )
    assert tin == "JarBackend"
    assert sorted(name for name, _, _ in broken) == sorted(
        f"{name} = perdure_{name}.plugin" for name in BROKEN
    )
    for name, distribution, reason in broken:
        short = name.partition(" ")[0]
        assert distribution == f"perdure-{short} 0.3"
        assert reason.startswith(BROKEN[short][1])
        assert "\n" not in reason
        assert f"perdure-{short} 0.3 ({reason})" in message


def test_a_scheme_nobody_serves(tmp_path: Path) -> None:
    install_plugin(tmp_path, "perdure-jar", "jar")
    installed = ", ".join(f"{scheme}://" for scheme in sorted({*discover().schemes, "jar"}))
    assert run(
        tmp_path,
        f"{ERRORS}\nresult = [error(u) for u in ('jra://x', 'nosql://x')]",
    ) == [
        f"BackendNotFound: no backend for jra:// (did you mean 'jar'?). Installed: {installed}",
        f"BackendNotFound: no backend for nosql://. Installed: {installed}. If someone "
        "publishes one, it may be called perdure-nosql",
    ]


def test_a_scheme_of_ours_that_was_left_out(tmp_path: Path) -> None:
    message = run(
        tmp_path,
        """
        from perdure.errors import BackendNotFound
        from perdure.plugins import Registry

        result = []
        for scheme in ("sqlite", "other"):
            try:
                Registry().find(scheme)
            except BackendNotFound as error:
                result.append(str(error))
        """,
    )
    assert message == [
        "no backend for sqlite://: pip install 'perdure-sqlite'",
        "no backend for other://. Installed: none. If someone publishes one, it may be called "
        "perdure-other",
    ]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "no_such_driver:open_url",
            "the backend of perdure-jar cannot be imported: ModuleNotFoundError: No module "
            "named 'no_such_driver'",
        ),
        (
            "perdure_jar.backend:no_such_function",
            "the backend of perdure-jar cannot be imported: AttributeError: module "
            "'perdure_jar.backend' has no attribute 'no_such_function'",
        ),
        (
            "perdure_jar.backend:open_text",
            "perdure-jar serves jar://, but its factory perdure_jar.backend:open_text returned "
            "str instead of a Backend",
        ),
    ],
)
def test_a_factory_that_does_not_work(tmp_path: Path, factory: str, message: str) -> None:
    install_plugin(tmp_path, "perdure-jar", "jar", factory=factory)
    assert run(tmp_path, f"{ERRORS}\nresult = [error('jar://')]") == [
        f"BackendNotFound: {message}"
    ]


def test_an_invalid_url_is_the_factorys_to_refuse(tmp_path: Path) -> None:
    refused = run(tmp_path, f"{ERRORS}\nresult = error('memory://h:1')")
    assert refused.startswith("InvalidURL: memory:// takes no host")


def test_one_module_listed_by_two_distributions_is_one_plugin(tmp_path: Path) -> None:
    install_plugin(tmp_path, "perdure-jar", "jar", version="1")
    again = tmp_path / "perdure_jar_dev-2.dist-info"
    (tmp_path / "perdure_jar-1.dist-info").rename(again)
    install_plugin(tmp_path / "second", "perdure-jar", "jar", version="1")
    (tmp_path / "second" / "perdure_jar-1.dist-info").rename(
        tmp_path / "perdure_jar-1.dist-info"
    )
    assert run(tmp_path, f"{ERRORS}\nresult = error('jar://')") == "JarBackend"


def test_discovery_happens_once() -> None:
    assert run(
        Path(),
        "from perdure.plugins import discover\nresult = discover() is discover()",
    )


def test_discovery_imports_no_driver_and_no_backend() -> None:
    loaded = run(
        Path(),
        """
        import sys
        import perdure
        before = set(sys.modules)
        from perdure.plugins import discover
        discover().find("sqlite")
        result = [sorted(before), sorted(set(sys.modules) - before)]
        """,
    )
    before, added = loaded
    assert "pluggy" not in before
    assert "pluggy" in added
    for name in (
        "sqlite3",
        "perdure_sqlite.backend",
        "perdure_memory.backend",
        "perdure_cli",
        "importlib.metadata",  # alone it takes longer than the rest of discovery
        "email",
    ):
        assert name not in before + added
