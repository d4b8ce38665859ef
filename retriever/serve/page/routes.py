"""The addresses of the page's files."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import Response

if TYPE_CHECKING:
    from fastapi import Request

__all__ = ["router"]

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
router = APIRouter(include_in_schema=False)


class _File:
    """A file of the page, in memory; browsers keep it and ask whether it has changed."""

    def __init__(self, name: str) -> None:
        self._content = (files(__package__) / name).read_bytes()
        self._headers = {
            "content-type": KINDS[name[name.rindex(".") :]],
            "etag": f'"{hashlib.sha256(self._content).hexdigest()[:32]}"',
            "cache-control": "no-cache",
        }

    async def answer(self, request: Request) -> Any:
        """Return the file, or 304 to a browser that has it."""
        if request.headers.get("if-none-match") == self._headers["etag"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)


for _name in sorted(file.name for file in files(__package__).iterdir() if file.name.endswith(tuple(KINDS))):
    for _path in {f"/{_name}", "/" if _name == "index.html" else f"/{_name}"}:
        router.add_route(_path, _File(_name).answer, methods=["GET"], include_in_schema=False)
