"""DynamoDB backend of perdure, ``dynamodb://table``: see :mod:`perdure_dynamodb.backend`.

Imports nothing, so that finding the plugin stays cheap.
"""
