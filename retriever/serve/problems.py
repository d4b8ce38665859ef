"""Errors as problem details (RFC 9457), in the words of the command line, without a path of this machine."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from reprlib import Repr
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from retriever.wire import PROBLEM, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["ProblemError", "problem_body", "validation_detail", "without_paths"]

SHOWN = 60
"""Characters of a wrong value that its error repeats."""


_REPR = Repr()  # reads no more of a value than it shows
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 2 * SHOWN


class ProblemError(HTTPException):
    """An answer that is an error: status, the kind of problem, one line for the client, and further headers."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, {**(headers or {}), "content-type": PROBLEM})
        self.kind = kind

    @property
    def body(self) -> bytes:
        """Return the problem document."""
        return problem_body(self.status_code, self.kind, self.detail)


def problem_body(status: int, kind: str, detail: str) -> bytes:
    """Return a problem document."""
    return json.dumps(problem(status, HTTPStatus(status).phrase, kind, detail), ensure_ascii=False).encode(
        "utf-8", "backslashreplace"
    )


def without_paths(message: str, names: Mapping[str, Path], others: Iterable[str | Path] = ()) -> str:
    """Return a message in which index folders are called by their names, and other paths by their last part.

    >>> without_paths("/srv/a/my-index: has no vectors", {"docs": Path("/srv/a/my-index")})
    'docs: has no vectors'
    """
    calls: dict[str, str] = {}
    for name, folder in names.items():
        for spelling in (folder, folder.absolute(), folder.resolve()):
            calls[str(spelling)] = name
    for path in others:
        calls.setdefault(str(path), Path(path).name)
    for known in sorted(calls, key=len, reverse=True):  # the longest first: one may begin with another
        if "/" in known:  # a bare name gives nothing away, and may be any word of the message
            message = message.replace(known, calls[known])
    return message


def validation_detail(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with the first wrong field of a request, in one line."""
    error = errors[0]
    place = ".".join(map(str, error["loc"][1:]))  # the first says where: body, query, path
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    kind, message = error["type"], str(error["msg"])
    if not place:
        how = "it as Content-Type: application/json" if isinstance(error.get("input"), bytes) else "one"
        return f"the body is no JSON object; send {how}"
    if kind in ("missing", "missing_argument"):  # of a request, of a call of a tool
        return f"{place}: is missing; give it{more}"
    if kind == "extra_forbidden":
        return f"{place}: no such field; leave it out, or take one that /openapi.json names{more}"
    if kind == "json_invalid":
        return f"the body is not JSON ({error.get('ctx', {}).get('error', message)}); send one JSON object"
    found = _REPR.repr(error.get("input")).encode("ascii", "backslashreplace").decode()
    shown = found if len(found) <= SHOWN else f"{found[: SHOWN - 3]}..."
    return f"{place}: found {shown}; {message[:1].lower()}{message[1:]}{more}"
