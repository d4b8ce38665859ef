"""What is printed, on any terminal: characters that it cannot show are escaped, as JSON escapes them."""

from __future__ import annotations

import codecs
import io
import os
import sys

__all__ = ["escape_what_cannot_be_shown", "hold_closed_streams"]

ESCAPE = "retriever.escape"
ASCII = "retriever_ascii"
"""ASCII under a name of its own: click takes an ASCII terminal for a misunderstanding and writes UTF-8 to it."""


def hold_closed_streams() -> None:
    """Put the null device where a standard stream is closed, and say so where that is the output.

    Else the next file that is opened, of an index perhaps, has the stream's number, and what Java prints lands in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest number that is free
    if sys.stdout is None and sys.stderr is not None:
        print("standard output is closed: results are not shown; give them a place with > FILE", file=sys.stderr)  # noqa: T201


def escape_what_cannot_be_shown() -> None:
    r"""Let standard output and error escape what their encodings lack, so that lines of JSON stay JSON.

    Streams that were told otherwise (PYTHONIOENCODING=ascii:replace) are left as they are.
    """
    codecs.register_error(ESCAPE, _escaped)
    codecs.register(_find_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and _is_ours(stream):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=ASCII if ascii_only else None, errors=ESCAPE)


def _is_ours(stream: io.TextIOWrapper) -> bool:
    """Say whether a stream has the errors that Python gives it by itself."""
    # Under the C locale Python writes the bytes of file names as they were, which are no trouble in UTF-8 alone.
    utf8 = codecs.lookup(stream.encoding).name == "utf-8"
    return stream.errors == "strict" or (stream.errors in ("surrogateescape", "backslashreplace") and not utf8)


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    known = codecs.lookup("ascii")
    return (
        codecs.CodecInfo(
            known.encode,
            known.decode,
            incrementalencoder=known.incrementalencoder,
            incrementaldecoder=known.incrementaldecoder,
            name=ASCII,
        )
        if name == ASCII
        else None
    )


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""Return \uXXXX for the characters at fault, two of them for one beyond 16 bits, and where to continue."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end
