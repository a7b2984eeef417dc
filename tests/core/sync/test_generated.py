"""``perdure.sync`` is what its generator makes of the source as it is now."""

import inspect
from collections.abc import AsyncGenerator

import pytest

import perdure
import perdure.sync

from tests.core.sync.generate import COMMAND, TARGET, generate
from tests.core.sync.surface import NOT_OFFERED, RENAMED

TWINS = [getattr(perdure.sync, name) for name in perdure.sync.__all__]


def test_it_is_as_generated() -> None:
    found = {path.name: path.read_text() for path in TARGET.glob("*.py")}
    assert found == generate(), f"run {COMMAND}"


def original(twin: type) -> type:
    module = inspect.getmodule(twin)
    return getattr(vars(module)["asynchronous"], twin.__name__)


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.__name__)
def test_a_twin_has_what_its_original_has_and_awaits_nothing(twin: type) -> None:
    """What counts is the class at work: wrapped methods and inherited ones, too."""
    compared = 0
    for name in dir(original(twin)):
        method = getattr(original(twin), name)
        offered = not name.startswith("_") or name in RENAMED
        if not offered or not inspect.isfunction(method) or not method.__doc__:
            continue
        owner = next(c for c in original(twin).__mro__ if name in vars(c))
        if f"{owner.__name__}.{name}" in NOT_OFFERED:
            continue
        mine = getattr(twin, RENAMED.get(name, name))
        assert not inspect.iscoroutinefunction(inspect.unwrap(mine))
        assert not inspect.isasyncgenfunction(inspect.unwrap(mine))
        theirs = inspect.signature(method)
        assert inspect.signature(mine).parameters.keys() == theirs.parameters.keys()
        assert inspect.signature(mine).return_annotation is not AsyncGenerator
        assert "await " not in (mine.__doc__ or "")
        compared += 1
    assert compared >= 2


def test_what_the_package_offers_is_there_in_both() -> None:
    asynchronous = {name for name in perdure.__all__ if name in perdure.sync.__all__}
    assert asynchronous >= {"Scope", "Session", "Store", "Stream", "Turn"}
