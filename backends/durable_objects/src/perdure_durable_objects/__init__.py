"""Durable Objects backend of perdure, ``https://worker``: see
:mod:`perdure_durable_objects.backend`.

Imports nothing, so that finding the plugin stays cheap.
"""
