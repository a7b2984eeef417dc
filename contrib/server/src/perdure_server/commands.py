"""The command ``perdure serve``."""

import asyncio
import os
from pathlib import Path

import click

from perdure.protocol.auth import InvalidKeys, Keys

KEYS_VARIABLE = "PERDURE_KEYS"

FILE = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--url",
    "-u",
    metavar="URL",
    help="The store to serve.  [default: $PERDURE_URL, else the file .perdure/sessions.db]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8700,
    show_default=True,
    help="Listen on this port; 0 is any free one.",
)
@click.option("--keys", type=FILE, help=f"The keys of clients, instead of ${KEYS_VARIABLE}.")
@click.option("--certificate", type=FILE, help="Speak TLS, with this certificate chain (PEM).")
@click.option("--key", type=FILE, help="The certificate's private key (PEM).")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front speaks TLS.")
@click.pass_context
def serve(
    context: click.Context,
    url: str | None,
    host: str,
    port: int,
    keys: Path | None,
    certificate: Path | None,
    key: Path | None,
    behind_proxy: bool,
) -> None:
    """Serve the store to other programs, over HTTP.

    Any language can then share its sessions: docs/protocol.md says how, and perdure's own
    client is Store("http://127.0.0.1:8700"). Clients need a key; the list of them is JSON, as
    in [{"id": "app", "secret": "…"}], where a secret has 32 characters or more. An entry may
    have "tenants", the only ones it is for, and "mode": "hmac" for signed requests.

    Beyond this machine it is served over TLS only.
    """
    from perdure_server.serving import CannotServe, is_loopback, listen, tls
    from perdure_server.serving import serve as serve_store

    if (certificate is None) is not (key is None):
        raise click.UsageError("--certificate and --key go together")
    if certificate is None and not behind_proxy and not is_loopback(host):
        raise click.UsageError(
            f"{host} can be reached from elsewhere, and secrets are not sent in the clear: "
            "give --certificate and --key, or --behind-proxy if a proxy in front speaks TLS"
        )
    accepted = _keys(keys)
    url = url if url is not None else context.find_root().params.get("url")
    try:
        secure = tls(certificate, key) if certificate is not None and key is not None else None
        listening = listen(host, port)
    except CannotServe as error:
        raise click.ClickException(str(error)) from None
    shown = f"[{host}]" if ":" in host else host
    address = f"{'http' if secure is None else 'https'}://{shown}:{listening.getsockname()[1]}"

    def on_start() -> None:
        click.echo(f"serving on {address}")

    with listening:
        asyncio.run(serve_store(url, accepted, listening, secure, on_start))


def _keys(file: Path | None) -> Keys:
    """The keys of clients. Raises ``click.ClickException``: there is no service without."""
    source = f"${KEYS_VARIABLE}" if file is None else str(file)
    try:
        text = os.environ.get(KEYS_VARIABLE, "") if file is None else file.read_text("utf-8")
    except OSError as error:
        raise click.ClickException(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{source}: it is not UTF-8") from None
    try:
        keys = Keys.parse(text)
    except InvalidKeys as error:
        raise click.ClickException(f"{source}: {error}") from None
    if not len(keys):
        raise click.UsageError(
            f"no keys, so nobody could be served: give --keys FILE or set {KEYS_VARIABLE} to "
            'a list of them, as in [{"id": "app", "secret": "at least 32 characters"}]'
        )
    return keys
