"""What an error of Java means to the user: damage only where it is damage."""

from __future__ import annotations

import errno
import itertools
import os
import re
from pathlib import Path
from typing import Any

from retriever.index.files import DISK_FULL, damaged
from retriever.types import UserError

__all__ = ["translated"]

OF_THE_SYSTEM = {
    errno.EMFILE: "close some, open fewer indexes at once, or raise the limit (ulimit -n)",
    errno.ENFILE: "close some programs, or raise the limit of the system (fs.file-max)",
    errno.ENOMEM: "free some memory, or raise the limits on it (ulimit -v, vm.max_map_count)",
    errno.EACCES: "give yourself access to the files of the index",
    errno.EROFS: "the file system takes no writes; mount it so, or work on a copy",
    errno.EIO: "the disk or its network does not answer; look at the device, then `retriever verify`",
    errno.ESTALE: "the network drive has lost the file; mount it again",
    errno.ENOLCK: "the file system has no locks, as some network drives; use another one for the index",
}
"""What to do about errors of the operating system, of which Java has only the message."""
OF_JAVA = {
    "AccessDeniedException": "permission denied; give yourself access to the files of the index",
    "LockObtainFailedException": "another writer has it open; wait for it to end, or stop it",
    "InvalidPathException": "Java, which other code started here, cannot name this path under the locale; "
    "set LC_ALL=C.UTF-8, or give the index a path of plain letters",
}
"""What some exceptions mean, by class."""


def translated(folder: Path, error: Any) -> Exception:
    """Return what to raise for a JavaException that came of the Lucene index in a folder."""
    if error.classname is None:
        return error  # type: ignore[no-any-return]  # pyjnius's own: a call that Java does not have
    # The last cause names the file: a missing one is reported as a fault of the file that speaks of it.
    trace = [f"{error.classname}: {error.innermessage}", *(error.stacktrace or ())]
    cause = [line for before, line in itertools.pairwise(["Caused by:", *trace]) if before == "Caused by:"][-1]
    kind, _, message = cause.splitlines()[0].partition(": ")
    kind = re.split(r"[.$]", kind)[-1]
    message = re.sub(r" in \w+@.* lockFactory=[\w.$@]+", "", message)  # the folder is named already
    if kind == "AlreadyClosedException":
        return error  # type: ignore[no-any-return]  # the caller's fault
    if "OutOfMemoryError" in (kind, _class(error)) or "Map failed" in str(error):
        return UserError(f"{folder}: Java ran out of memory ({message}); `retriever verify` says whether it is damaged")
    if kind in OF_JAVA:
        about = message if kind == "AccessDeniedException" else f"{folder}"
        return UserError(f"{about}: {OF_JAVA[kind]}")
    for number in DISK_FULL:
        if os.strerror(number) in str(error):
            return OSError(number, os.strerror(number))
    for number, remedy in OF_THE_SYSTEM.items():
        if os.strerror(number) in str(error):
            return UserError(f"{folder}: {os.strerror(number)} ({message}); {remedy}")
    return damaged(folder, f"Lucene cannot read it, {kind}: {message}")


def _class(error: Any) -> str:
    return str(error.classname).rpartition(".")[2]
