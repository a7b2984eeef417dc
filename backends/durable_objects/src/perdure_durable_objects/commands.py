"""``perdure durable-objects``: commands that the ``perdure`` command line finds here."""

import asyncio
import os
import re
from pathlib import Path

import click

from perdure.errors import InvalidURL
from perdure.uri import parse

DIRECTORY = click.Path(file_okay=False, path_type=Path)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """The Worker that keeps sessions in Cloudflare's Durable Objects."""


@commands.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--name", default="perdure", show_default=True, help="What the Worker is called.")
def init(directory: Path, name: str) -> None:
    """Write the Worker's project to DIRECTORY, ready to deploy, with a new key.

    Never overwrites anything.
    """
    from perdure_durable_objects.project import KEYS_FILE, write_project

    if not _NAME.fullmatch(name):
        raise click.UsageError("a Worker's name is lower-case letters, digits and '-'")
    written = write_project(directory, name)
    click.echo(f"wrote {len(written)} files to {directory}; its key is in {KEYS_FILE}. Next:\n")
    for step in (
        f"cd {directory}",
        "npm install",
        "npx wrangler deploy",
        f"npx wrangler secret put PERDURE_KEYS < {KEYS_FILE}",
        f"perdure durable-objects doctor https://app:SECRET@{name}.ACCOUNT.workers.dev",
    ):
        click.echo(f"    {step}")
    click.echo(
        f"\nOr on this machine, without an account: perdure durable-objects dev {directory}"
    )


@commands.command()
@click.argument("directory", type=DIRECTORY, default=".")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8787,
    show_default=True,
    help="Listen on this port.",
)
def dev(directory: Path, port: int) -> None:
    """Run the project in DIRECTORY on this machine, until Ctrl-C.

    Needs workerd, of the project or on PATH. The data is in DIRECTORY/.perdure and stays.
    Nobody else can reach it: beyond this machine secrets must not travel without TLS.
    """
    from perdure_durable_objects.local import find_workerd, prepare, run
    from perdure_durable_objects.project import KEYS_FILE

    workerd = find_workerd(directory)
    environment = prepare(directory, port)
    click.echo(f"http://127.0.0.1:{port}, with the keys in {directory / KEYS_FILE}")
    try:
        run(workerd, directory, environment)
    except OSError as error:
        raise click.ClickException(f"{workerd}: {error.strerror or error}") from None


@commands.command()
@click.argument("url", required=False)
@click.pass_context
def doctor(context: click.Context, url: str | None) -> None:
    """Check a server: reachable, of our protocol, with a good key and a good clock.

    URL is a store's, https://id:secret@host; without one it is that of --url or PERDURE_URL.
    Writes nothing. Ends with 1 if something is wrong.
    """
    from perdure_durable_objects.checkup import examine
    from perdure_durable_objects.settings import settings_from

    text = url or context.find_root().params.get("url") or os.environ.get("PERDURE_URL")
    if not isinstance(text, str):
        raise click.UsageError("which server? Give its URL, https://id:secret@host")
    parsed = parse(text)
    if parsed.scheme not in ("http", "https"):
        raise InvalidURL(f"{parsed.scheme}:// is not a server of the protocol: https:// is")
    checks = asyncio.run(examine(settings_from(parsed)))
    for check in checks:
        click.echo(f"{'ok' if check.ok else 'NO':3} {check.name:11} {check.detail}")
    context.exit(0 if all(check.ok for check in checks) else 1)
