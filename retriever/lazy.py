"""An attribute that is made at its first use, once, whichever threads come first."""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lazy"]

T = TypeVar("T")
_COUNTING = RLock()  # a finaliser may come here while it is held
# No child process gets it locked by a thread that it has not.
os.register_at_fork(before=_COUNTING.acquire, after_in_parent=_COUNTING.release, after_in_child=_COUNTING.release)


class _Guard:
    """A lock, and how many threads hold it or wait for it: it goes with the last of them, not with one that fails."""

    def __init__(self) -> None:
        self.lock, self.users = RLock(), 0


class lazy(Generic[T]):  # noqa: N801  # read as the decorators of the standard library
    """Like `functools.cached_property`, with a lock for each instance while the value is made.

    `cached_property` has none from Python 3.12 on: two threads that search first would load the network twice.

    >>> class Answer:
    ...     @lazy
    ...     def value(self) -> int:
    ...         print("thinking")
    ...         return 42
    >>> answer = Answer()
    >>> answer.value + answer.value
    thinking
    84
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = ""
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> lazy[T]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> T | lazy[T]:
        """Make and store the value; afterwards Python finds it in the instance and does not come here."""
        if instance is None:
            return self
        values = instance.__dict__
        name = f"{self._name} is made"
        with _COUNTING:
            guard: _Guard = values.setdefault(name, _Guard())
            guard.users += 1
        try:
            with guard.lock:
                if self._name not in values:
                    values[self._name] = self._make(instance)
                made: T = values[self._name]
        finally:
            with _COUNTING:
                guard.users -= 1
                if not guard.users:
                    values.pop(name, None)  # so that instances can be copied and pickled
        return made
