"""``perdure demo``: a session survives its killed process, and the store is asked to prove it.

``show`` starts the processes, kills one and draws; ``agent`` is what they run, with ``script``
for the replies and tools and ``measure`` for the long session; ``proof`` asks the store;
``messages`` is what processes tell one another.
"""
