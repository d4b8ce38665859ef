"""An attribute that is made at its first use, once, whichever threads come first."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lazy"]

T = TypeVar("T")


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
        guard = f"{self._name} is made"
        try:
            with values.setdefault(guard, RLock()):
                if self._name not in values:
                    values[self._name] = self._make(instance)
        finally:
            values.pop(guard, None)  # so that instances can be copied and pickled
        made: T = values[self._name]
        return made
