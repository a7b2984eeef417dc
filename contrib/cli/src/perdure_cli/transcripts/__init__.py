"""Conversations as they lie on disk: what ``perdure export`` writes, and what others write.

``source`` opens files, ``shapes`` tells formats apart, ``exchange`` is our own format, and
``reader`` turns a file into a stream of events for ``perdure import``. Data is only ever read:
no class that a dump names is looked up or made.
"""
