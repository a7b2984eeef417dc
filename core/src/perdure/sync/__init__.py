"""The store without ``await``: the same surface, for code that runs in threads.

::

    from perdure.sync import Store

    with Store("sqlite:///sessions.db") as store:
        session = store.session("chat-7")
        session.append({"role": "user", "content": "hi"})
        for entry in session.watch(): ...

Each store has one thread, in whose event loop everything is done; calls block until it is. So
a store, and each of its handles, may be used from any number of threads at once, also from one
in which an event loop runs (and stands still meanwhile); only a turn belongs to one thread at
a time. ``KeyboardInterrupt`` cancels what is under way, and is raised when that has ended.
Callbacks given to the store are called in its thread, and cannot use it.

What has nothing to await is shared: import requests, errors and the like from ``perdure``.

Written by ``python -m tests.core.sync.generate`` from the asynchronous classes.
"""

from perdure.sync.attachments import Attachments
from perdure.sync.cellmap import CellMap
from perdure.sync.scope import Scope
from perdure.sync.session import Session
from perdure.sync.store import Store
from perdure.sync.stream import Stream
from perdure.sync.turn import Turn, TurnCells

__all__ = ["Attachments", "CellMap", "Scope", "Session", "Store", "Stream", "Turn", "TurnCells"]
