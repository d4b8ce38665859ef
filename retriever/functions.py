"""Functions of the user's own, named in text: "module:function"."""

from __future__ import annotations

import sys
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_function_name", "function_named"]


def check_function_name(name: str) -> str:
    """Return a name; raise UserError for one that is not written as "module:function". Nothing is imported."""
    module, _, function = name.partition(":")
    if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UserError(f"function {name!r}: cannot be read; write it as module:function, as in mine:rewrite")
    return name


def function_named(name: str) -> Callable[..., Any]:
    """Import a module, from the working folder if it is there, and return its function.

    It runs code: names come from who runs the program, never from an index, a run file or a request.

    Raises:
        UserError: the module cannot be imported, or has no such function; later, where the function fails.
    """
    module, _, function = check_function_name(name).partition(":")
    sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), function, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"function {name!r}: {module} cannot be imported ({reason}); give a module of the working folder, or an "
            "installed one"
        ) from None
    finally:
        sys.path.remove("")
    if not callable(found):
        what = "nothing of that name" if found is None else f"{type(found).__name__}, which cannot be called"
        raise UserError(f"function {name!r}: {module} has {what}; give the name of a function")

    @wraps(found)
    def called(*arguments: Any) -> Any:
        try:
            return found(*arguments)
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"function {name!r}: failed ({reason}); try it by itself") from error

    return called
