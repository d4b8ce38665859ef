"""Compiled kernels, cached on disk for later processes where possible; where not, each process compiles its own."""

from __future__ import annotations

from typing import Any

from numba.core.caching import FunctionCache

from retriever.files import cache_errors

__all__ = ["keep_compiled"]


class _Cache(FunctionCache):
    """Numba's cache of a function, which is compiled anew without it: a full disk or a damaged file ends nothing."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled, None where there is nothing to be had."""
        with cache_errors("compiled kernels"):
            try:
                return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
            except OSError:
                raise
            except Exception as error:  # unpickling a damaged file raises anything
                self.flush()  # type: ignore[no-untyped-call]
                raise OSError(f"damaged: {error}") from None
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, if that is possible."""
        with cache_errors("compiled kernels"):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def keep_compiled(dispatcher: Any) -> None:
    """Keep what numba's function, which is not compiled yet, will be compiled to."""
    with cache_errors("compiled kernels"):
        try:
            dispatcher._cache = _Cache(dispatcher.py_func)  # type: ignore[no-untyped-call]
        except RuntimeError as error:  # neither the package's folder nor the user's cache can be written
            raise OSError(str(error)) from None
