"""Redis and Valkey backend of perdure, ``redis://host``: see :mod:`perdure_redis.backend`.

Imports nothing, so that finding the plugin stays cheap.
"""
