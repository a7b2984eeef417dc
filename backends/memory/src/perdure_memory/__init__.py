"""In-process backend of perdure, ``memory://``: see :mod:`perdure_memory.backend`.

Imports nothing, so that finding the plugin stays cheap.
"""
