"""``perdure demo``: a session survives its killed process, and the store is asked to prove it.

``show`` is the command. ``stage`` starts the processes (``children``), kills one and listens;
``agent`` (with ``script`` for the model and ``tools`` for its tools), ``watcher``, ``measure``,
``proof`` and ``clean`` are those processes; ``messages`` is what they tell one another.
``screen`` draws what happens, ``summary`` says what came of it.
"""
