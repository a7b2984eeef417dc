"""``perdure demo``: a session survives its killed process, and the store is asked to prove it.

``show`` is the parent: it has ``processes`` started, kills one, and draws on a ``screen``, with
a ``summary`` at the end. ``agent`` is what the processes run: ``script`` has the replies and
tools, ``measure`` the long session, ``proof`` asks the store. ``messages`` is what they tell
one another.
"""
