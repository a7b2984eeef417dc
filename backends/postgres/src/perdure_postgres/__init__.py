"""Postgres backend of perdure, ``postgresql://host/database``: see
:mod:`perdure_postgres.backend`.

Imports nothing, so that finding the plugin stays cheap.
"""
