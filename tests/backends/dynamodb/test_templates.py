"""Templates make the table that the command makes."""

import json
import re
from typing import cast

import pytest
from click.testing import CliRunner

from perdure_dynamodb.commands import commands
from perdure_dynamodb.creation import Capacity, definition

CAPACITIES = [None, Capacity(5, 10)]


def printed(form: str, capacity: Capacity | None) -> str:
    arguments = ["create-table", "--table", "plums", "--format", form]
    if capacity is not None:
        arguments += ["--provisioned", str(capacity.read), str(capacity.write)]
    # Nobody is asked: there are neither credentials nor a region.
    result = CliRunner(env={"AWS_ACCESS_KEY_ID": None, "AWS_PROFILE": "nobody"}).invoke(
        commands, arguments
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_cloudformation(capacity: Capacity | None) -> None:
    template = json.loads(printed("cloudformation", capacity))
    (resource,) = cast("dict[str, dict[str, object]]", template["Resources"]).values()
    assert resource["Type"] == "AWS::DynamoDB::Table"
    assert resource["DeletionPolicy"] == "Retain"
    properties = cast("dict[str, object]", resource["Properties"])
    lapsing = properties.pop("TimeToLiveSpecification")
    assert lapsing == {"AttributeName": "x", "Enabled": True}
    assert properties == definition("plums", capacity)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_terraform(capacity: Capacity | None) -> None:
    text = printed("terraform", capacity)
    assert text.count("{") == text.count("}")
    said = re.findall(r"^ *(\w+) += (.*)$", text, re.MULTILINE)
    units = [("read_capacity", "5"), ("write_capacity", "10")]
    assert said == [
        ("name", '"plums"'),
        ("hash_key", '"p"'),
        ("range_key", '"s"'),
        ("billing_mode", '"PAY_PER_REQUEST"' if capacity is None else '"PROVISIONED"'),
        *([] if capacity is None else units),
        ("name", '"p"'),
        ("type", '"B"'),
        ("name", '"s"'),
        ("type", '"B"'),
        ("attribute_name", '"x"'),
        ("enabled", "true"),
        ("deletion_protection_enabled", "true"),
        ("prevent_destroy", "true"),
    ]
