"""SQLite backend of perdure, ``sqlite:///file``: see :mod:`perdure_sqlite.backend`.

Imports nothing, so that finding the plugin stays cheap.
"""
