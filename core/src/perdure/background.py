"""An event loop in a thread of its own: for calls from threads and from other loops.

It ends with what it belongs to, or before the interpreter exits, and stands still while the
process forks.
"""

import asyncio
import atexit
import importlib
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar

from perdure.errors import Outcome, StoreClosed, Unsupported

R = TypeVar("R")

CLOSING_SECONDS = 1.0
"""How long what is being closed may take when its loop ends."""

EXIT_SECONDS = 5.0
"""How long the end of the interpreter waits for one loop to end."""

PARKING_SECONDS = 1.0
"""How long a fork waits for a loop to come to rest."""

beginning = threading.RLock()
"""Held while a backend or a background loop comes into being, and during a fork, so that no
child finds one half made (nor this lock in the hands of a thread that it does not have)."""


class Background:
    """An event loop in a thread of its own, for calls from any thread and any other loop.

    Nothing starts before the first call. The loop ends as that of ``asyncio.run`` does: when
    it is closed, when nothing refers to it any more, and before the interpreter exits. A
    process forked from this one begins with a new one.
    """

    def __init__(self) -> None:
        self._closed = False
        self._begin_anew()
        _live[id(self)] = self

    def _begin_anew(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls = _Calls()
        self._closing = threading.RLock()

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, begun if it is not. Raises ``StoreClosed``."""
        loop = self._loop
        if loop is None:
            with beginning:
                loop = self._loop
                if self._closed:
                    raise StoreClosed("this store was closed; make a new Store")
                if loop is None:
                    loop = asyncio.new_event_loop()
                    thread = threading.Thread(
                        target=_serve, args=(loop, self._calls), name="perdure", daemon=True
                    )
                    thread.start()
                    dropped = weakref.finalize(self, _stop, loop, self._calls)
                    dropped.atexit = False  # see _at_exit
                    self._thread = thread
                    self._loop = loop
        return loop

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Have ``work`` done over there and wait for it, in a thread and not in a loop.

        An exception that a signal handler raises meanwhile (``KeyboardInterrupt``) cancels
        the work, and is raised when that has ended. Raises ``StoreClosed``, ``Unsupported``
        if called by what runs over there.
        """
        done = threading.Lock()
        done.acquire()
        call = self._call(work, done.release)
        call.begin()
        try:
            done.acquire()
        except BaseException:
            call.cancel()
            if not call.over:  # else this was raised when `done` was acquired already
                done.acquire()
            raise
        return call.result()

    async def call(self, work: Coroutine[Any, Any, R]) -> R:
        """Have ``work`` done over there; to be awaited in another loop.

        Cancelling the one who awaits it cancels it. Raises ``StoreClosed``.
        """
        home = asyncio.get_running_loop()
        done = home.create_future()

        def settle() -> None:
            if not done.done():
                done.set_result(None)

        def tell() -> None:
            with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                home.call_soon_threadsafe(settle)

        call = self._call(work, tell)
        call.begin()
        try:
            await done
        except asyncio.CancelledError:
            call.cancel()
            raise
        return call.result()

    def _call(self, work: Coroutine[Any, Any, R], tell: Callable[[], object]) -> "_Call[R]":
        try:
            loop = self._running()
            if self._thread is threading.current_thread():
                raise Unsupported(
                    "called by something that runs inside the store (a callback of yours): it "
                    "would wait for itself"
                )
        except BaseException:
            work.close()
            raise
        return _Call(loop, self._calls, work, tell)

    def iterate(self, generator: AsyncGenerator[R, None]) -> Generator[R, None, None]:
        """What an asynchronous generator that runs over there yields.

        Raises ``StoreClosed`` in a process that was forked after it had begun.
        """
        loop, calls = self._running(), self._calls
        try:
            while found := self.run(_next(generator)):
                yield from found
                if self._loop is not loop:
                    raise StoreClosed(
                        "this iteration was begun by the process that this one was forked "
                        "from; begin it anew in this process"
                    )
        finally:
            if self._loop is loop:
                # Not waited for: this may be a garbage collection, in whatever thread.
                with suppress(StoreClosed):
                    _Call(loop, calls, generator.aclose(), _nobody).begin()
            else:
                keep_for_ever(generator)

    def close(self, work: Coroutine[Any, Any, object] | None = None) -> None:
        """Do ``work`` over there, then end the loop and wait for that. Idempotent: of those
        who call it at once one does the work, and the others wait for it.

        Other calls still under way raise ``StoreClosed``.
        """
        with self._closing:
            if work is not None:
                if self._closed:
                    work.close()
                else:
                    with suppress(StoreClosed):  # a signal handler has closed it meanwhile
                        self.run(work)
            self.stop(None)

    def stop(self, timeout: float | None) -> None:
        """End the loop, and wait for that, for so many seconds at most."""
        with beginning:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            _stop(loop, self._calls)
            thread.join(timeout)

    # Forks

    def park(self) -> Callable[[], object] | None:
        """Have the loop pause between two of its callbacks, in which nothing is half done;
        what lets it go on. ``None`` if it does not run, or does not pause in time."""
        loop = self._loop
        if loop is None or self._thread is threading.current_thread():
            return None
        parked, resumed = threading.Lock(), threading.Lock()
        parked.acquire()
        resumed.acquire()

        def pause() -> None:
            parked.release()
            resumed.acquire()

        try:
            loop.call_soon_threadsafe(pause)
        except RuntimeError:  # it has ended
            return None
        if not parked.acquire(timeout=PARKING_SECONDS):
            resumed.release()
            return None
        return resumed.release

    def leave_to_parent(self) -> None:
        """In a process that was forked: the thread exists in the parent only."""
        if self._loop is not None:
            keep_for_ever((self._loop, self._thread, self._calls))
            self._begin_anew()


class _Calls(set["_Call[Any]"]):
    """What a loop has been asked for and has not done yet."""

    ending = False
    """The loop begins nothing any more."""


class _Call(Generic[R]):
    """A coroutine that another thread waits for."""

    __slots__ = ("_calls", "_loop", "_task", "_tell", "_work", "over")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        calls: _Calls,
        work: Coroutine[Any, Any, R],
        tell: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._calls = calls
        self._work = work
        self._tell = tell
        self._task: asyncio.Task[R] | None = None
        self.over = False
        """Whether who waits was told, or is just about to be."""

    def begin(self) -> None:
        """With the context variables of the caller. Raises ``StoreClosed``."""
        self._calls.add(self)
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:  # it has ended just now
            self._calls.discard(self)
            self._work.close()
            _leave_at_exit()
            raise StoreClosed("this store was closed; make a new Store") from None

    def cancel(self) -> None:
        with suppress(RuntimeError):  # it has ended, and this with it
            self._loop.call_soon_threadsafe(self._cancel)

    def result(self) -> R:
        """Once it was told to have ended."""
        task, self._task = self._task, None
        if task is None or task.cancelled():
            _leave_at_exit()
            error = StoreClosed("the store was closed while this was under way")
            error.outcome = Outcome.UNKNOWN if task else Outcome.NOT_APPLIED
            raise error
        try:
            return task.result()
        finally:
            del task  # an error's traceback refers to this frame

    # In the loop

    def _start(self) -> None:
        if self._calls.ending:
            return  # see abandon
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._ended)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[R]) -> None:
        self._calls.discard(self)
        if not task.cancelled():
            task.exception()  # whoever waited for it may have gone
        self.over = True
        self._tell()

    async def end(self) -> None:
        """Cancel it and wait for that, if it has begun."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def abandon(self) -> None:
        """The loop has ended, and this has not begun."""
        self._work.close()
        self.over = True
        self._tell()


async def _next(generator: AsyncGenerator[R, None]) -> list[R]:
    """The next value, or none."""
    async for value in generator:
        return [value]
    return []


def _leave_at_exit() -> None:
    """Before the interpreter exits: end a daemon thread, the only kind that is left, without a
    word. It is not left to wait, as somebody may yet join it."""
    if _exiting.is_set() and threading.current_thread().daemon:
        raise SystemExit


def _nobody() -> None:
    """Waits for a call."""


def _stop(loop: asyncio.AbstractEventLoop, calls: _Calls) -> None:
    """Have the loop end, however often this is asked for."""

    def stop() -> None:
        if not calls.ending:  # else it would stop at its end, too
            calls.ending = True
            loop.stop()

    with suppress(RuntimeError):  # it has ended already
        loop.call_soon_threadsafe(stop)


def _serve(loop: asyncio.AbstractEventLoop, calls: _Calls) -> None:
    """What the thread of a :class:`Background` does."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_end(loop, calls))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        for call in list(calls):
            call.abandon()


async def _end(loop: asyncio.AbstractEventLoop, calls: _Calls) -> None:
    """As ``asyncio.run`` ends a loop, but what is just being closed may come to its end."""
    for call in list(calls):
        await call.end()
    await loop.shutdown_asyncgens()
    if rest := asyncio.all_tasks() - {asyncio.current_task()}:
        _, late = await asyncio.wait(rest, timeout=CLOSING_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
    if not _exiting.is_set():  # else its threads have ended, and no more can be begun
        await loop.shutdown_default_executor()


# The end of the interpreter

_live: weakref.WeakValueDictionary[int, Background] = weakref.WeakValueDictionary()
_exiting = threading.Event()


def _living() -> list[Background]:
    """All there are, while other threads make more: a copy that nobody can come between."""
    found = [reference() for reference in _live.valuerefs()]
    return [background for background in found if background is not None]


def _at_exit() -> None:
    _exiting.set()
    for background in _living():
        background.stop(EXIT_SECONDS)


atexit.register(_at_exit)


# Forks

_forking = threading.Lock()
_parked: list[Callable[[], object]] = []


def _before_fork() -> None:
    _forking.acquire()
    _parked.extend(filter(None, [background.park() for background in _living()]))
    beginning.acquire()


def _after_fork() -> None:
    beginning.release()
    while _parked:
        _parked.pop()()
    _forking.release()


def _after_fork_in_child() -> None:
    for background in _living():
        background.leave_to_parent()
    _after_fork()


def keep_for_ever(inherited: object) -> None:
    """Never let an object be garbage, so that nothing it refers to is closed or finalized:
    in a process that was forked, for what belongs to its parent."""
    import ctypes  # hardly ever needed

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


if hasattr(os, "register_at_fork"):  # not on Windows
    # It has hooks for forks too, which must not come while a fork waits for what imports it.
    importlib.import_module("concurrent.futures.thread")
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )
