"""The command line: its commands, options and help. Each command is carried out elsewhere.

A command returns what is to be done instead of doing it, so that only parsing happens inside
click, and nothing is imported that the command does not need.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

import click

from perdure_cli import __version__
from perdure_cli.commands import Commands
from perdure_cli.target import Target

Action = partial[int]
F = TypeVar("F", bound=Callable[..., Any])

COUNT = click.IntRange(min=0)
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 96}


def store_options(function: F) -> F:
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


def on_store(function: Callable[..., Action]) -> Callable[..., Action]:
    """Make ``function`` a command on a store, whose :class:`Target` it gets first.

    An option after the command counts more than one before it.
    """

    @click.pass_context
    @wraps(function)
    def command(
        context: click.Context,
        /,
        *,
        url: str | None,
        tenant: str | None,
        kind: str | None,
        **options: Any,
    ) -> Action:
        outer: Target = context.find_root().obj
        target = Target(
            url if url is not None else outer.url,
            tenant if tenant is not None else outer.tenant,
            kind if kind is not None else outer.kind,
        )
        return function(target, **options)

    return store_options(command)


def json_option(text: str) -> Callable[[F], F]:
    """The option ``--json``; ``text`` says what it prints."""
    return click.option("--json", "as_json", is_flag=True, help=text)


stream_option = click.option(
    "--stream", metavar="NAME", default=None, help="The entries of this stream, not the log."
)


@click.group(cls=Commands, context_settings=HELP, invoke_without_command=True)
@store_options
@click.version_option(__version__, "--version", "-V", message="perdure %(version)s")
@click.pass_context
def perdure(
    context: click.Context, url: str | None, tenant: str | None, kind: str | None
) -> Action | None:
    """Look into, import, export, copy and check stores of AI agents' sessions.

    New here? `perdure demo` shows an agent's session survive a killed process, and
    `perdure import FILE` puts in a conversation of your own.
    """
    context.obj = Target(url, tenant, kind)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return None


@perdure.command(short_help="Watch a session survive its killed process.")
@click.option("--keep", is_flag=True, help="Keep the sessions, and say where they are.")
@json_option("Print one JSON object with the figures and the proof.")
@on_store
def demo(target: Target, **options: Any) -> Action:
    """Watch a session survive its killed process, and see the proof.

    A small agent with scripted replies persists every turn in a process of its own, which is
    killed with SIGKILL. A second process resumes, finishes, forks the session and continues
    both, while a third one watches. Takes a few seconds and needs no network. Uses a temporary
    store unless --url or PERDURE_URL names one. Exits with 1 if any proof fails.
    """
    from perdure_cli.demo.show import run_demo

    return partial(run_demo, target, **options)


@perdure.command()
@json_option("Print one JSON object.")
@on_store
def doctor(target: Target, **options: Any) -> Action:
    """Check the store and the installation.

    Tells where the store is, how durable, which versions are at work and which plugins are
    broken; writes, reads and deletes a scratch session. Exits with 1 if something is wrong.

    In a pipe: `fact NAME VALUE`, `check NAME STATE MILLISECONDS [DETAIL]` and
    `verdict WORD`, separated by tabs.
    """
    from perdure_cli.doctor import run_doctor

    return partial(run_doctor, target, **options)


@perdure.command()
@json_option("Print JSON Lines: an object per backend, then one per broken plugin.")
def backends(**options: Any) -> Action:
    """List the backends that are installed.

    In a pipe: schemes, distribution, contract version, state and summary, separated by tabs.
    """
    from perdure_cli.doctor import run_backends

    return partial(run_backends, **options)


@perdure.command(name="import", short_help="Read sessions from exports or chat transcripts.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--id", metavar="ID", default=None, help="Name the session so.")
@click.option("--append", is_flag=True, help="Add to sessions that hold other entries.")
@click.option("--lines", is_flag=True, help="Take any JSON Lines: every line is an entry.")
@json_option("Print JSON Lines: an object per session.")
@on_store
def import_(target: Target, **options: Any) -> Action:
    """Read sessions from files (`-` is stdin): exports, or chat transcripts as they are.

    Knows `perdure export`, Claude Code's session files, OpenAI chat messages and Responses
    items (also fine-tuning files, a session per line), and LangChain message dumps. Entries
    are stored exactly as they are.

    Files are checked whole before anything is written. Repeating an import adds what is
    missing: the rest of one that was interrupted, the new lines of a transcript that has
    grown. A session that holds something else is left alone, unless --append is given.

    In a pipe: id, entries added, entries there before, format and file, separated by tabs.
    """
    from perdure_cli.load import run_import

    return partial(run_import, target, **options)


@perdure.command()
@click.option("--prefix", metavar="TEXT", default="", help="Only ids that start with this.")
@click.option("--label", metavar="LABEL", default=None, help="Only sessions that carry this.")
@click.option("--recent", is_flag=True, help="Last written first, instead of by id.")
@click.option("--limit", metavar="N", type=COUNT, default=None, help="At most so many.")
@click.option("--tenants", is_flag=True, help="List the tenants instead.")
@json_option("Print JSON Lines: an object per session.")
@on_store
def ls(target: Target, **options: Any) -> Action:
    """List sessions.

    In a pipe: id, version, created, updated, expires and labels, separated by tabs.
    """
    from perdure_cli.sessions import run_ls

    return partial(run_ls, target, **options)


@perdure.command(short_help="Show what a session holds.")
@click.argument("id")
@click.option("--last", "-n", metavar="N", type=COUNT, help="Only the last so many entries.")
@stream_option
@click.option("--full", is_flag=True, help="On a terminal, do not shorten long entries.")
@json_option("Print one JSON object: head, lineage, document, cells, …, entries.")
@on_store
def show(target: Target, **options: Any) -> Action:
    """Show a session: head, document, log, cells, streams and attachments.

    In a pipe, one line each: `head NAME VALUE`, `document JSON`, `entry POSITION JSON`,
    `cell KEY JSON`, `stream NAME`, `attachment SHA-256 BYTES MEDIA-TYPE`, separated by tabs.
    """
    from perdure_cli.show import run_show

    return partial(run_show, target, **options)


@perdure.command()
@click.argument("id")
@click.option("--last", "-n", metavar="N", type=COUNT, default=10, help="Begin so far back.")
@stream_option
@click.option("--follow", "-f", is_flag=True, help="Go on as entries are written, by anyone.")
@json_option("Print JSON Lines: an object with position and value per entry.")
@on_store
def tail(target: Target, **options: Any) -> Action:
    """Show the end of a session's log, and follow it live.

    Shows the last 10 entries. In a pipe: position and JSON, separated by a tab. Ctrl-C ends
    following.
    """
    from perdure_cli.show import run_tail

    return partial(run_tail, target, **options)


@perdure.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--label", metavar="LABEL", default=None, help="Only sessions that carry this.")
@click.option("--output", "-o", metavar="FILE", default="-", help="Write here, not to stdout.")
@on_store
def export(target: Target, **options: Any) -> Action:
    """Write sessions as JSON Lines, values exactly.

    With all their streams, cells, documents and attachments. All of the tenant's, if no ID is
    given, of every kind unless --kind names one. `perdure import` reads them back. A FILE
    appears when it is complete, readable by you alone.
    """
    from perdure_cli.export import run_export

    return partial(run_export, target, **options)


@perdure.command(short_help="Copy sessions to another store.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--tenant", "tenants", metavar="TENANT", multiple=True, help="Only of this one.")
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only of this one.")
@click.option("--prefix", metavar="TEXT", default="", help="Only ids that start with this.")
@click.option("--overwrite", is_flag=True, help="Replace what would be refused.")
@click.option("--verify", is_flag=True, help="Compare what is there already, too.")
@json_option("Print JSON Lines: an object per session.")
@click.pass_context
def copy(
    context: click.Context,
    /,
    source: str,
    target: str,
    tenants: tuple[str, ...],
    kinds: tuple[str, ...],
    **options: Any,
) -> Action:
    """Copy sessions from one store to another, whatever their backends.

    SRC and DST are URLs. Takes all tenants and kinds, unless --tenant or --kind (each may be
    repeated) say otherwise. A session keeps everything: log with positions, cells, document,
    labels, meta, expiry, version, times. It appears at DST whole, and is read back and
    compared by digest. SRC is only read, and may be in use meanwhile.

    Repeating a copy is safe: it finishes one that was interrupted and brings over what has
    changed at SRC since. A session that DST has from elsewhere, or that was written to there,
    is refused, the others are copied, and the exit code is 1. Nothing is deleted at DST
    because it was deleted at SRC.

    In a pipe: id, tenant, kind, what became of it (copied, replaced, present, absent, refused,
    failed), version, items, bytes and reason, separated by tabs.
    """
    from perdure_cli.copying import run_copy

    outer: Target = context.find_root().obj
    if outer.url is not None:
        raise click.UsageError("copy takes its stores as arguments, not by --url")
    options["tenants"] = tenants or (() if outer.tenant is None else (outer.tenant,))
    options["kinds"] = kinds or (() if outer.kind is None else (outer.kind,))
    return partial(run_copy, Target(source), Target(target), **options)


@perdure.command(short_help="Delete sessions.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--label", metavar="LABEL", default=None, help="Delete all that carry this.")
@click.option("--forks", is_flag=True, help="And what was forked from them.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option("Print JSON Lines: an object per ID, or one for all.")
@on_store
def rm(target: Target, **options: Any) -> Action:
    """Delete sessions. Asks first; without a terminal, --yes is needed.

    Those named by their IDs; or, without any, all of the tenant that --tenant names, of every
    kind, or all of them that carry --label. Who stops that and repeats it deletes the rest.
    """
    from perdure_cli.deletion import run_rm

    return partial(run_rm, target, **options)


@perdure.command(short_help="Show what takes the space.")
@click.option("--top", metavar="N", type=COUNT, default=10, help="Show so many sessions.")
@json_option("Print JSON Lines: an object per kind, per largest session, and a total.")
@on_store
def du(target: Target, **options: Any) -> Action:
    """Show what sessions take: bytes and items, by tenant and kind, and the largest.

    Of all tenants and kinds, unless --tenant or --kind say otherwise. Bytes are those of keys
    and values as stored, compressed and perhaps encrypted; what the database adds is not in
    them. Reads everything.

    In a pipe: `kind`, `session` or `total`, then tenant, kind, id, sessions, items and bytes,
    separated by tabs.
    """
    from perdure_cli.usage import run_du

    return partial(run_du, target, **options)


@perdure.command(short_help="Read everything, and tell what is damaged.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@json_option("Print JSON Lines: an object per session.")
@on_store
def verify(target: Target, **options: Any) -> Action:
    """Read everything, and tell what is not as it was written.

    Opens every row, and joins documents, long entries and attachments, comparing their digests;
    of an encrypted store (keys in PERDURE_ENCRYPTION_KEYS) it checks every seal, and that each
    row follows the one before. In plain, entries and cells have no digest: what cannot be read
    is found there, a changed letter is not. Of all tenants and kinds, unless --tenant, --kind
    or IDs say otherwise. A line on standard error for each problem; exits with 1 if there is
    any. Writes nothing.

    In a pipe: id, tenant, kind, `well` or `damaged`, items, bytes and problems, separated by
    tabs.
    """
    from perdure_cli.verification import run_verify

    return partial(run_verify, target, **options)


@perdure.command(short_help="Seal an encrypted store with its newest key.")
@json_option("Print JSON Lines: an object per session.")
@on_store
def rotate(target: Target, **options: Any) -> Action:
    """Seal everything with the primary key, while others go on writing.

    The keys are in PERDURE_ENCRYPTION_KEYS: id:base64, separated by commas, the primary one
    first. Give every process the new ring before; what is sealed with the other keys is then
    sealed with the first, and with the word `plaintext` among them what is in plain, too. Of
    all tenants, unless --tenant says otherwise. Everything is checked on the way, and read
    back. May be interrupted, and run again. When it exits with 0, and once more a day later if
    large uploads may have been under way, the other keys can go. Exits with 1 if anything is
    left or could not be opened.

    In a pipe: id, tenant, kind, items, sealed anew and left, separated by tabs.
    """
    from perdure_cli.rotation import run_rotate

    return partial(run_rotate, target, **options)


@perdure.command("new-key", short_help="Make a key to encrypt with.")
@click.argument("id", required=False, metavar="[ID]")
def new_key(id: str | None) -> Action:
    """Print a new random key, as it stands in PERDURE_ENCRYPTION_KEYS: ID:base64.

    ID names the key in every row that it seals; without one it is this month, as in 2026-11.
    Keep the line where secrets are kept: what is sealed with a key that is lost is lost too.
    """
    from perdure_cli.rotation import run_new_key

    return partial(run_new_key, id)


@perdure.command()
@json_option("Print one JSON object with their number.")
@on_store
def sweep(target: Target, **options: Any) -> Action:
    """Remove what nobody can see or refers to any more.

    Expired sessions, remains of deleted ones and of uploads that broke off, attachments that
    their session does not mention, a day after they were put, expired cells and idempotency
    keys. In all tenants and kinds. Harmless at any time; run it now and then, from cron for
    one.
    """
    from perdure_cli.sweeping import run_sweep

    return partial(run_sweep, target, **options)
