"""The list of broken backends, and which tests of the kit must tell on each."""

from collections.abc import Callable
from importlib import import_module

import msgspec

from tests.backends.memory.durable import DurableMemory


class Mutant(msgspec.Struct, frozen=True):
    """A backend with one fault."""

    backend: type[DurableMemory]
    caught_by: tuple[str, ...]
    """Tests whose subject is this fault. Each of them must fail."""


MUTANTS: dict[str, Mutant] = {}


def caught_by(*tests: str) -> Callable[[type[DurableMemory]], type[DurableMemory]]:
    """Enter a broken backend into the list."""

    def enter(backend: type[DurableMemory]) -> type[DurableMemory]:
        if backend.__name__ in MUTANTS:
            raise ValueError(f"two mutants are called {backend.__name__}")
        MUTANTS[backend.__name__] = Mutant(backend, tests)
        return backend

    return enter


def enter_all() -> None:
    """Import every module of mutants, so that they enter themselves."""
    for module in ("commits", "contention", "ids", "lists", "lives", "names", "reads"):
        import_module(f"tests.mutants.broken_{module}")
