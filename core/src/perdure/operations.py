"""The methods that are operations: bases of what users hold, with what marks them.

Whether somebody watches is a fact of the client. If nobody does, a marked method costs the
call of one more function.
"""

import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from perdure.client import Client
from perdure.events import Operation
from perdure.handle import Handle

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="OnSession")
C = TypeVar("C", bound="OnScope")
B = TypeVar("B", bound="Block")
Of = TypeVar("Of")

Method = Callable[Concatenate[Of, P], Coroutine[Any, Any, R]]
Generating = Callable[Concatenate[Of, P], AsyncGenerator[R, None]]
Leaving = Callable[
    [Of, type[BaseException] | None, BaseException | None, TracebackType | None],
    Coroutine[Any, Any, R],
]


class OnSession:
    """Base of what users hold that works on one session."""

    __slots__ = ()
    _handle: Handle

    @staticmethod
    def _operation(name: str) -> Callable[[Method[S, P, R]], Method[S, P, R]]:
        """Make a method an operation. Costs the call of a function if nobody watches: the
        coroutine that it returns is then the method's own."""

        def decorate(method: Method[S, P, R]) -> Method[S, P, R]:
            @wraps(method)
            def operate(
                self: S, /, *args: P.args, **kwargs: P.kwargs
            ) -> Coroutine[Any, Any, R]:
                observer = self._handle.client.observer
                if observer is None:
                    return method(self, *args, **kwargs)
                work = partial(method, self, *args, **kwargs)
                return observer.one(name, self._handle.key, work)

            return _marked(operate)

        return decorate

    @staticmethod
    def _generator(name: str) -> Callable[[Generating[S, P, R]], Generating[S, P, R]]:
        """Make a method that returns an asynchronous generator an operation."""

        def decorate(method: Generating[S, P, R]) -> Generating[S, P, R]:
            @wraps(method)
            def operate(
                self: S, /, *args: P.args, **kwargs: P.kwargs
            ) -> AsyncGenerator[R, None]:
                observer = self._handle.client.observer
                if observer is None:
                    return method(self, *args, **kwargs)
                return observer.each(name, self._handle.key, method(self, *args, **kwargs))

            return operate

        return decorate


class OnScope:
    """Base of what users hold that works on several sessions."""

    __slots__ = ()
    _client: Client

    @staticmethod
    def _operation(name: str) -> Callable[[Method[C, P, R]], Method[C, P, R]]:
        """As :meth:`OnSession._operation`."""

        def decorate(method: Method[C, P, R]) -> Method[C, P, R]:
            @wraps(method)
            def operate(
                self: C, /, *args: P.args, **kwargs: P.kwargs
            ) -> Coroutine[Any, Any, R]:
                observer = self._client.observer
                if observer is None:
                    return method(self, *args, **kwargs)
                work = partial(method, self, *args, **kwargs)
                return observer.one(name, None, work)

            return _marked(operate)

        return decorate

    @staticmethod
    def _generator(name: str) -> Callable[[Generating[C, P, R]], Generating[C, P, R]]:
        """As :meth:`OnSession._generator`."""

        def decorate(method: Generating[C, P, R]) -> Generating[C, P, R]:
            @wraps(method)
            def operate(
                self: C, /, *args: P.args, **kwargs: P.kwargs
            ) -> AsyncGenerator[R, None]:
                observer = self._client.observer
                if observer is None:
                    return method(self, *args, **kwargs)
                return observer.each(name, None, method(self, *args, **kwargs))

            return operate

        return decorate


class Block:
    """Base of what is one operation from the beginning of an ``async with`` block to its end:
    a turn. What the block does by other means is not part of it."""

    handle: Handle
    _operation: Operation | None = None

    @staticmethod
    def _entering(name: str) -> Callable[[Method[B, P, R]], Method[B, P, R]]:
        """Have ``__aenter__`` begin the operation."""

        def decorate(method: Method[B, P, R]) -> Method[B, P, R]:
            @wraps(method)
            async def enter(self: B, /, *args: P.args, **kwargs: P.kwargs) -> R:
                observer = self.handle.client.observer
                if observer is None or observer.inside():
                    return await method(self, *args, **kwargs)
                operation = Operation(observer, name, self.handle.key)
                try:
                    result = await operation.run(method(self, *args, **kwargs))
                except BaseException as error:
                    operation.fail(error)
                    operation.end()
                    raise
                self._operation = operation
                return result

            return enter

        return decorate

    @staticmethod
    def _part(method: Method[B, P, R]) -> Method[B, P, R]:
        """Have a method count for the operation."""

        @wraps(method)
        def run(self: B, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
            operation = self._operation
            if operation is None:
                return method(self, *args, **kwargs)
            return operation.begin(partial(method, self, *args, **kwargs))

        return _marked(run)

    @staticmethod
    def _leaving(method: Leaving[B, R]) -> Leaving[B, R]:
        """Have ``__aexit__`` end it."""

        @wraps(method)
        async def leave(
            self: B,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
            /,
        ) -> R:
            operation, self._operation = self._operation, None
            if operation is None:
                return await method(self, kind, error, trace)
            try:
                result = await operation.run(method(self, kind, error, trace))
                if error is not None:
                    operation.fail(error)
                return result
            except BaseException as raised:
                operation.fail(raised)
                raise
            finally:
                operation.end()

        return leave


def _marked(function: Callable[P, R]) -> Callable[P, R]:
    """The same, known to return a coroutine."""
    if sys.version_info >= (3, 12):
        from inspect import markcoroutinefunction

        return markcoroutinefunction(function)
    return function
