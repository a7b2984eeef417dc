"""Who serves what, as the nodes of a cluster tell it."""

from typing import cast

from perdure.errors import PerdureError, Unavailable

from perdure_redis.settings import Address


def foremost(refusals: list[PerdureError]) -> PerdureError:
    """The error to raise where nobody could help: the first that may pass, if there is one."""
    passing = (e for e in refusals if isinstance(e, Unavailable) and not e.lasting)
    return next(passing, refusals[0])


def slot_owners(reply: object, asked: Address) -> dict[range, Address]:
    """The primaries in an answer to CLUSTER SLOTS that ``asked`` gave."""
    owners: dict[range, Address] = {}
    for entry in cast("list[list[object]]", reply):
        first, last = cast("tuple[int, int]", (entry[0], entry[1]))
        host, port = cast("tuple[bytes | None, int]", tuple(cast("list[object]", entry[2])[:2]))
        owners[range(first, last + 1)] = _address((host or b"").decode(), port, asked)
    return owners


def redirection(words: list[str], asked: Address) -> Address:
    """Where ``MOVED slot host:port`` sends, or ``ASK``. ``words`` are those behind the code."""
    host, _, port = words[1].rpartition(":")
    return _address(host, int(port), asked)


def _address(host: str, port: int, asked: Address) -> Address:
    # Servers that do not know by which name they are reached leave it out, or write "?".
    return Address(asked.host if host in {"", "?"} else host, port)
