"""Commands that other distributions bring.

A distribution names a click command, or a group of them, in the entry-point group
``perdure.commands``::

    [project.entry-points."perdure.commands"]
    shelf = "perdure_jar.commands:shelf"

and has ``perdure shelf``. Its module is imported when the command is invoked or its own help is
asked for, so that it costs the others nothing and, broken, hurts none of them. It imports
nothing of this package: the options before the command, ``--url`` for one, are in
``click.Context.find_root().params``. It returns its exit code, or nothing. A click exception
or ``PerdureError`` that it raises becomes one line on standard error.
"""

import functools
import re

import click
import msgspec

from perdure.entry_points import EntryPoint, entry_points
from perdure.plugins import OFFICIAL_COMMANDS

from perdure_cli.errors import CommandError

GROUP = "perdure.commands"

_NAME = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)


class BrokenCommand(msgspec.Struct, frozen=True):
    """A command that cannot be used."""

    name: str
    """Its entry point, as ``name = module:attribute``."""
    distribution: str
    """With its version; several of them if they claim one name."""
    reason: str
    """In one line."""


class Brought(click.Command):
    """A command as the entry points tell of it. Loaded when its arguments are parsed."""

    def __init__(self, claims: list[EntryPoint]) -> None:
        self.claims = claims
        owners = " and ".join(point.distribution for point in claims)
        super().__init__(claims[0].name, short_help=f"Brought by {owners}.")

    def load(self) -> click.Command:
        """The command itself. Raises ``CommandError``."""
        broken = self.check()
        if broken is not None:
            raise CommandError(
                f"the command {self.claims[0].name!r} of {broken.distribution} does not work: "
                f"{broken.reason}"
            )
        command = self.claims[0].load()
        assert isinstance(command, click.Command)
        return command

    def check(self) -> BrokenCommand | None:
        """What is wrong with it. Imports it."""
        point = self.claims[0]
        if len(self.claims) > 1:
            owners = " and ".join(claim.distribution for claim in self.claims)
            reason = "both bring a command of this name: uninstall all but one"
            return BrokenCommand(point.name, owners, reason)
        try:
            command = point.load()
        # Whatever a stranger's module raises is its own fault and must stay so.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        else:
            if isinstance(command, click.Command):
                return None
            reason = f"it is a {type(command).__name__}, not a click.Command"
        return BrokenCommand(f"{point.name} = {point.value}", point.distribution, reason)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        return self.load().make_context(info_name, args, parent, **extra)


class Commands(click.Group):
    """Our own commands in the order in which a newcomer meets them, then those of others.

    Ours cannot be replaced.
    """

    @functools.cached_property
    def others(self) -> dict[str, Brought]:
        """What other distributions bring, by name. Imports none of it."""
        return {
            name: Brought(claims)
            for name, claims in _claims().items()
            if name not in self.commands and _NAME.fullmatch(name)
        }

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*self.commands, *self.others]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self.others.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and name in OFFICIAL_COMMANDS:
            ctx.fail(f"{name!r} is not installed: pip install '{OFFICIAL_COMMANDS[name]}'")
        return super().resolve_command(ctx, args)

    def broken(self) -> list[BrokenCommand]:
        """The commands of others that do not work, those never offered among them. Imports
        all of them."""
        found: list[BrokenCommand] = []
        for name, claims in _claims().items():
            if name in self.others:
                fault = self.others[name].check()
                found += [fault] if fault else []
                continue
            reason = (
                "perdure has a command of this name itself"
                if name in self.commands
                else "a name consists of lower-case letters, digits and '-'"
            )
            for point in claims:
                broken = BrokenCommand(f"{name} = {point.value}", point.distribution, reason)
                found.append(broken)
        return found


def _claims() -> dict[str, list[EntryPoint]]:
    """Who brings which command, sorted by name.

    One command may be listed twice, by an editable and an ordinary installation.
    """
    points = {(point.name, point.value): point for point in entry_points(GROUP)}
    found: dict[str, list[EntryPoint]] = {}
    for (name, _), point in sorted(points.items()):
        found.setdefault(name, []).append(point)
    return found
