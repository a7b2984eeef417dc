"""``perdure dynamodb``: commands that the ``perdure`` command line finds here."""

import asyncio

import click

from perdure.errors import InvalidURL
from perdure.uri import URL

from perdure_dynamodb.creation import Capacity, create
from perdure_dynamodb.settings import settings_from
from perdure_dynamodb.templates import cloudformation, terraform

TEMPLATES = {"cloudformation": cloudformation, "terraform": terraform}


@click.group()
def commands() -> None:
    """The table that sessions are kept in on DynamoDB."""


@commands.command("create-table")
@click.option("--table", default="perdure", show_default=True, help="Its name.")
@click.option("--region", help="Where; else as the AWS tools find it.")
@click.option("--profile", help="Of ~/.aws/config.")
@click.option("--endpoint", help="Another than the region's, as http://127.0.0.1:8000.")
@click.option("--insecure", is_flag=True, help="Accept http:// to another host.")
@click.option(
    "--provisioned",
    "capacity",
    nargs=2,
    type=click.IntRange(min=1),
    metavar="READ WRITE",
    help="Units a second to pay for; else on demand.",
)
@click.option(
    "--format",
    "template",
    type=click.Choice(sorted(TEMPLATES)),
    help="Print a template instead of making the table.",
)
def create_table(
    table: str,
    region: str | None,
    profile: str | None,
    endpoint: str | None,
    insecure: bool,
    capacity: tuple[int, int] | None,
    template: str | None,
) -> None:
    """Make the table, or print what makes it.

    It is made on demand, without indexes, with time to live and protected from deletion. If it
    is there already, it is looked at and left as it is, but for time to live. Needs
    dynamodb:CreateTable, DescribeTable, DescribeTimeToLive and UpdateTimeToLive.
    """
    options = {"region": region, "profile": profile, "endpoint": endpoint}
    query = {name: value for name, value in options.items() if value is not None}
    if insecure:
        query["insecure"] = "true"
    try:
        url = URL(scheme="dynamodb", host=table, query=query)
        settings = settings_from(url)
    except InvalidURL as error:
        raise click.UsageError(str(error)) from None
    units = None if capacity is None else Capacity(*capacity)
    if template is not None:
        click.echo(TEMPLATES[template](table, units), nl=False)
        return
    made = asyncio.run(create(settings, units))
    click.echo(f"made; open it as {url}" if made else f"was there already, as {url}")
