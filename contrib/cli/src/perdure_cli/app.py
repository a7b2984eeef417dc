"""The command line: its commands, options and help. Each command is carried out elsewhere.

A command returns what is to be done instead of doing it, so that only parsing happens inside
click, and nothing is imported that the command does not need.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from perdure_cli import __version__
from perdure_cli.target import Target

Action = partial[int]
F = TypeVar("F", bound=Callable[..., Any])

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 96}


def where(function: F) -> F:
    """The options that say which store and which sessions."""
    for option in (
        click.option("--kind", metavar="KIND", help="Kind of session.  [default: session]"),
        click.option("--tenant", metavar="TENANT", help="Tenant.  [default: default]"),
        click.option(
            "--url",
            "-u",
            metavar="URL",
            help="The store, e.g. sqlite:///sessions.db.  [default: $PERDURE_URL, else the "
            "file .perdure/sessions.db]",
        ),
    ):
        function = option(function)
    return function


def target(
    context: click.Context, url: str | None, tenant: str | None, kind: str | None
) -> Target:
    """The store meant: an option after the command counts more than one before it."""
    outer: Target = context.find_root().obj
    return Target(
        url if url is not None else outer.url,
        tenant if tenant is not None else outer.tenant,
        kind if kind is not None else outer.kind,
    )


def as_json(text: str) -> Callable[[F], F]:
    """The option ``--json``; ``text`` says what it prints."""
    return click.option("--json", "json_", is_flag=True, help=text)


@click.group(context_settings=HELP, invoke_without_command=True)
@where
@click.version_option(__version__, "--version", "-V", message="perdure %(version)s")
@click.pass_context
def perdure(
    context: click.Context, url: str | None, tenant: str | None, kind: str | None
) -> Action | None:
    """Look into, import, export and check stores of AI agents' sessions.

    New here? `perdure demo` shows an agent's session survive a killed process, and
    `perdure import transcript.jsonl` puts a conversation of your own in.
    """
    context.obj = Target(url, tenant, kind)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return None


@perdure.command()
@where
@as_json("One JSON object with the figures and the proof.")
@click.option("--keep", is_flag=True, help="Keep the sessions, and say where they are.")
@click.pass_context
def demo(
    context: click.Context,
    url: str | None,
    tenant: str | None,
    kind: str | None,
    json_: bool,
    keep: bool,
) -> Action:
    """Watch a session survive its killed process, and see the proof.

    A small agent with scripted replies persists every turn in a process of its own, which is
    killed with SIGKILL. A second process resumes, finishes, forks the session and continues
    both, while a third one watches. Takes a few seconds and needs no network. Uses a temporary
    store unless --url or PERDURE_URL names one. Exits with 1 if any proof fails.
    """
    from perdure_cli.demo.show import run_demo

    return partial(run_demo, target(context, url, tenant, kind), as_json=json_, keep=keep)


@perdure.command()
@where
@as_json("One JSON object.")
@click.pass_context
def doctor(
    context: click.Context, url: str | None, tenant: str | None, kind: str | None, json_: bool
) -> Action:
    """Check the store and the installation.

    Tells where the store is, how durable, which versions are at work and which plugins are
    broken; writes, reads and deletes a scratch session. Exits with 1 if something is wrong.
    """
    from perdure_cli.doctor import run_doctor

    return partial(run_doctor, target(context, url, tenant, kind), as_json=json_)


@perdure.command()
@as_json("JSON Lines: an object per backend, then one per broken plugin.")
def backends(json_: bool) -> Action:
    """List the backends that are installed.

    In a pipe: schemes, distribution, contract version, state and summary, separated by tabs.
    """
    from perdure_cli.doctor import run_backends

    return partial(run_backends, as_json=json_)


@perdure.command()
@where
@as_json("JSON Lines: an object per session.")
@click.option("--prefix", default="", help="Only ids that start with this.")
@click.option("--label", default=None, help="Only sessions with this label.")
@click.option("--recent", is_flag=True, help="Last written first, instead of by id.")
@click.option("--limit", type=click.IntRange(min=0), default=None, help="At most so many.")
@click.option("--tenants", is_flag=True, help="List the tenants instead.")
@click.pass_context
def ls(
    context: click.Context,
    url: str | None,
    tenant: str | None,
    kind: str | None,
    **options: Any,
) -> Action:
    """List sessions.

    In a pipe: id, version, created, updated, expires and labels, separated by tabs.
    """
    from perdure_cli.sessions import run_ls

    return partial(run_ls, target(context, url, tenant, kind), **_renamed(options))


@perdure.command()
@where
@as_json("One JSON object: head, lineage, document, entries, cells.")
@click.argument("id")
@click.option("--last", "-n", type=click.IntRange(min=0), default=None, help="Only so many.")
@click.option("--full", is_flag=True, help="On a terminal, do not shorten long entries.")
@click.pass_context
def show(
    context: click.Context,
    url: str | None,
    tenant: str | None,
    kind: str | None,
    **options: Any,
) -> Action:
    """Show a session: head, document, log and cells.

    In a pipe, one line each: `head NAME VALUE`, `document JSON`, `entry POSITION JSON`,
    `cell KEY JSON`, separated by tabs.
    """
    from perdure_cli.sessions import run_show

    return partial(run_show, target(context, url, tenant, kind), **_renamed(options))


@perdure.command()
@where
@as_json("JSON Lines: an object with position and value per entry.")
@click.argument("id")
@click.option(
    "--last", "-n", type=click.IntRange(min=0), default=10, help="Start with so many."
)
@click.option("--follow", "-f", is_flag=True, help="Go on as entries are written, by anyone.")
@click.pass_context
def tail(
    context: click.Context,
    url: str | None,
    tenant: str | None,
    kind: str | None,
    **options: Any,
) -> Action:
    """Show the end of a session's log, and follow it live.

    In a pipe: position and JSON, separated by a tab. Ctrl-C ends following.
    """
    from perdure_cli.sessions import run_tail

    return partial(run_tail, target(context, url, tenant, kind), **_renamed(options))


@perdure.command()
@where
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--output", "-o", metavar="FILE", default="-", help="Write here, not to stdout.")
@click.pass_context
def export(
    context: click.Context,
    url: str | None,
    tenant: str | None,
    kind: str | None,
    ids: tuple[str, ...],
    output: str,
) -> Action:
    """Write sessions as JSON Lines, losing nothing; all of the tenant's if no ID is given.

    `perdure import` reads them back.
    """
    from perdure_cli.export import run_export

    return partial(run_export, target(context, url, tenant, kind), ids=ids, output=output)


@perdure.command(name="import")
@where
@as_json("JSON Lines: an object per session.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--id", "id_", metavar="ID", default=None, help="Name of the session made.")
@click.option("--append", is_flag=True, help="Add to sessions that exist with other entries.")
@click.option("--lines", is_flag=True, help="Take any JSON Lines: every line is an entry.")
@click.pass_context
def import_(
    context: click.Context,
    url: str | None,
    tenant: str | None,
    kind: str | None,
    **options: Any,
) -> Action:
    """Read sessions from files (`-` is stdin): exports, or chat transcripts as they are.

    Knows `perdure export`, Claude Code's session files, OpenAI chat messages and Responses
    items (also fine-tuning files, a session per line), and LangChain message dumps. Entries
    are stored exactly as they are.

    Files are checked whole before anything is written. Repeating an import adds what is
    missing: the rest of one that was interrupted, the new lines of a transcript that has
    grown. A session that holds something else is left alone, unless --append is given.
    """
    from perdure_cli.load import run_import

    return partial(run_import, target(context, url, tenant, kind), **_renamed(options))


@perdure.command()
@where
@as_json("JSON Lines: an object per session.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_context
def rm(
    context: click.Context,
    url: str | None,
    tenant: str | None,
    kind: str | None,
    **options: Any,
) -> Action:
    """Delete sessions. Asks first; without a terminal, --yes is needed."""
    from perdure_cli.sessions import run_rm

    return partial(run_rm, target(context, url, tenant, kind), **_renamed(options))


def _renamed(options: dict[str, Any]) -> dict[str, Any]:
    """Options under the names that functions use, clear of Python's own."""
    return {
        {"json_": "as_json", "id": "id", "id_": "id"}.get(k, k): v for k, v in options.items()
    }
