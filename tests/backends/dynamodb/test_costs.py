"""``docs/costs.md`` says what DynamoDB's protocol says."""

from perdure_dynamodb.settings import Settings
from tests.backends.dynamodb.costs import PAGE, Prices, measure, with_tables


async def test_the_page_says_what_is_measured(settings: Settings) -> None:
    text = PAGE.read_text()
    costs = await measure(settings)
    assert with_tables(text, costs) == text, "run python -m tests.backends.dynamodb.costs"


def test_the_page_says_the_prices() -> None:
    text = " ".join(PAGE.read_text().split())
    prices = Prices()
    assert (
        f"${prices.million_writes} a million write units, ${prices.million_reads} a million "
        f"read units, ${prices.gigabyte_month} a GB and month" in text
    )
    gigabytes = 3.5
    assert f"{gigabytes} GB: ${gigabytes * prices.gigabyte_month:.2f} a month" in text
