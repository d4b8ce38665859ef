"""Requests and answers of HTTP: what is sent, what is sent again, and errors as the one line that the library gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from retriever.extras import extra
from retriever.types import UserError
from retriever.wire import PROBLEM_TYPE, VERSION, VERSION_HEADER, error_from_wire

with extra("client"):
    import httpx

if TYPE_CHECKING:
    from retriever.remote.calls import Call

__all__ = ["Address", "Exchange", "parse_address"]

BUSY = (429, 503)
"""Answers after which the same request may succeed."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds before a request is sent again: doubled each time, or as the server says."""
T = TypeVar("T")


class Address(NamedTuple):
    """Where a server is, and the index that its address names, if any."""

    url: str
    named: str | None


def parse_address(url: str) -> Address:
    """Read "http://host:8000", or with "/indexes/NAME" behind it; raise UserError for what is no address.

    >>> parse_address("http://127.0.0.1:8000/indexes/my-index")
    Address(url='http://127.0.0.1:8000', named='my-index')
    """
    base, _, index = url.rstrip("/").partition("/indexes/")
    try:
        parsed = httpx.URL(base)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or "/" in index:
        raise UserError(f"{url!r}: no address of a server; give one such as http://127.0.0.1:8000")
    return Address(base, unquote(index) or None)


class Exchange:
    """Makes requests for one index of one server, and values or errors of the answers."""

    def __init__(self, url: str, index: str | None, key: str | None, timeout: float, retries: int) -> None:
        self.url, named = parse_address(url)
        if index is not None and named is not None and index != named:
            raise UserError(f"the address names the index {named}, and index is {index}; give one of them")
        self.index = index if index is not None else named
        self._timeout, self._retries = timeout, retries
        self.headers = {"accept": "application/json"}
        if key is not None:
            if not key.isascii() or not key.isprintable():
                raise UserError("the key has characters that no key has; give it without line ends and spaces")
            self.headers["authorization"] = f"Bearer {key}"

    def choose(self, described: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the description of the index, which may be left out where the server has one; raise UserError else."""
        names = [str(values["name"]) for values in described]
        if self.index is None and len(names) == 1:
            self.index = names[0]
        if self.index not in names:
            wanted = "has several indexes" if self.index is None else f"has no index {self.index!r}"
            raise UserError(f"{self.url}: {wanted}; give index= one of {', '.join(names)}")
        return described[names.index(self.index)]

    def request(self, client: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
        """Return the request of a call."""
        path = call.place
        if not path.startswith("/"):
            path = f"/indexes/{quote(self.index or '', safe='')}/{path}".rstrip("/")
        # Not by httpx's own `json`, which cannot send half of a surrogate pair.
        content = None if call.body is None else json.dumps(call.body, allow_nan=False).encode()
        headers = {} if content is None else {"content-type": "application/json"}
        method = "GET" if content is None else "POST"
        return client.build_request(
            method, self.url + path, content=content, params=call.parameters, headers=headers, timeout=self._timeout
        )

    def wait(self, attempt: int, answer: httpx.Response | None) -> float | None:
        """Return for how many seconds to wait before a request is sent again, None where it is not.

        attempt: from 0. answer: None where the connection broke.
        """
        if attempt >= self._retries or (answer is not None and answer.status_code not in BUSY):
            return None
        wait: float = FIRST_WAIT * 2**attempt
        if answer is not None and (after := _retry_after(answer)) is not None:
            wait = after
        return wait if wait <= LONGEST_WAIT else None

    def broken(self, error: Exception) -> UserError:
        """Return what to say of a request that got no answer."""
        if isinstance(error, httpx.TimeoutException):
            return UserError(
                f"{self.url}: no answer within {self._timeout:g} s; ask for less, or give a longer timeout"
            )
        reason = " ".join(str(error).split()) or type(error).__name__
        return UserError(
            f"{self.url}: no server answers there ({reason}); start one with `retriever serve DIR`, or give its address"
        )

    def read(self, call: Call[T], answer: httpx.Response) -> T:
        """Return the value of an answer.

        Raises:
            UserError: it is an error, or not the answer of a server of this version.
        """
        version = answer.headers.get(VERSION_HEADER)
        if version != VERSION:
            found = f"speaks version {version} of the wire format" if version else "is not `retriever serve`"
            raise UserError(
                f"{self.url}: what answers there {found} (status {answer.status_code}), this client speaks version "
                f"{VERSION}; give another address, or install the same version on both sides"
            )
        try:
            values = answer.json()
            if answer.is_success:
                return call.read(values)
            error = error_from_wire(values)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise UserError(
                f"{self.url}: an answer that cannot be read ({type(problem).__name__}, status {answer.status_code}); "
                "install the same version on both sides"
            ) from None
        if values.get("type") == f"{PROBLEM_TYPE}user-error":
            raise error
        if values.get("type") == f"{PROBLEM_TYPE}key-needed":  # which header holds it is not the caller's business
            raise UserError(f"{self.url}: {str(error).partition(';')[0]}; give key= one that the server knows")
        raise UserError(f"{self.url}: {error}")


def _retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date."""
    text = answer.headers.get("retry-after", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except ValueError:
        return None
