"""The table as text for CloudFormation and Terraform."""

import json

from perdure_dynamodb.actions import EXPIRY
from perdure_dynamodb.creation import KEYS, Capacity, definition


def cloudformation(table: str, capacity: Capacity | None = None) -> str:
    """A template of one table, in JSON. It outlives its stack."""
    lapsing = {"AttributeName": EXPIRY, "Enabled": True}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Sessions of agents, kept by perdure",
        "Resources": {
            "Sessions": {
                "Type": "AWS::DynamoDB::Table",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                # Its properties are named and formed as those of the request.
                "Properties": definition(table, capacity)
                | {"TimeToLiveSpecification": lapsing},
            }
        },
    }
    return json.dumps(template, indent=2) + "\n"


def terraform(table: str, capacity: Capacity | None = None) -> str:
    """A resource of one table."""
    (hash_key, _), (range_key, _) = KEYS
    attributes = "".join(
        f'  attribute {{\n    name = "{name}"\n    type = "B"\n  }}\n\n' for name, _ in KEYS
    )
    billing = (
        '  billing_mode = "PAY_PER_REQUEST"\n'
        if capacity is None
        else '  billing_mode   = "PROVISIONED"\n'
        f"  read_capacity  = {capacity.read}\n"
        f"  write_capacity = {capacity.write}\n"
    )
    return (
        'resource "aws_dynamodb_table" "sessions" {\n'
        f'  name      = "{table}"\n'
        f'  hash_key  = "{hash_key}"\n'
        f'  range_key = "{range_key}"\n\n'
        f"{billing}\n"
        f"{attributes}"
        "  ttl {\n"
        f'    attribute_name = "{EXPIRY}"\n'
        "    enabled        = true\n"
        "  }\n\n"
        "  deletion_protection_enabled = true\n\n"
        "  lifecycle {\n"
        "    prevent_destroy = true\n"
        "  }\n"
        "}\n"
    )
