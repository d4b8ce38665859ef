"""How Java is started: its options, and what of the surroundings may not reach it.

A JVM inside of Python ends the whole process when it cannot start, and takes options, languages and encodings from
environment variables that somebody set for another program.
"""

from __future__ import annotations

import ctypes
import locale
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from retriever.types import UserError

__all__ = ["java_environment", "java_options", "surroundings"]

PREFIXES = ("JAVA_", "_JAVA_", "JDK_JAVA_", "LOG4J_", "LC_")
NAMES = ("CLASSPATH", "JVMPATH", "LANG", "LANGUAGE")
"""Environment variables that Java, pyjnius or Log4j would act on."""
SMALLER = (512, 256, 128)
"""Heaps in MiB to try where the usual one does not fit into the memory that the process may use."""
RESERVE = 256 << 20
"""Bytes of address space to leave for what comes after the start: threads, mapped files of the index."""
ARENA_MAX = -8
"""M_ARENA_MAX of malloc.h."""
QUIET = (
    "-Dlog4j2.configurationFile=no-configuration",
    "-Dlog4j2.statusLoggerLevel=OFF",
    "-Djava.util.logging.config.class=java.lang.Object",
)
"""Log4j, where other code of Anserini's needs it, with errors alone; Java's logging without a handler that prints."""
MANY_PROCESSES = 4096
"""A limit on the processes of a user from which on it leaves room for Java's twenty threads."""
FEW_FILES = 64


def java_options(java_home: Path, heap: str) -> list[str]:
    """Return the options of the JVM; raise UserError where a limit of this process would end it at its start.

    -Xrs leaves Ctrl-C to Python; without -Xmx the JVM would take a quarter of the machine's memory. A small first heap
    and the serial collector keep it at what Lucene needs, at the same speed: indexing 100,000 documents peaks at 244
    instead of 411 MiB. It writes nothing: no messages between results, no files into a temporary folder that may be
    full, and the report of a crash not into the folder that the user happens to be in. Logging starts without its
    configuration, which takes a third of the time of a first search.
    """
    crash = Path(os.environ.get("TMPDIR") or "/tmp") / "retriever-java-crash-%p.log"  # tempfile's needs room there
    options = [
        "-Xrs",
        "-Xms16m",
        "-XX:+UseSerialGC",
        "-Xlog:disable",
        "-XX:-UsePerfData",
        "-XX:+DisableAttachMechanism",
        "-XX:-CreateCoredumpOnCrash",
        "-XX:+DisplayVMOutputToStderr",
        f"-XX:ErrorFile={crash}",
        *QUIET,
    ]
    limits = _limits_in_reach()
    if not limits:
        return [*options, f"-Xmx{heap}"]
    _spare_address_space()
    # These two take 1.25 GiB of address space by default, of which Lucene uses 30 MiB.
    options += ["-XX:CompressedClassSpaceSize=64m", "-XX:ReservedCodeCacheSize=64m"]
    message = ""
    for size in (heap, *(f"{smaller}m" for smaller in SMALLER)):
        tried = [*options, f"-Xmx{size}"]
        message = _fails(java_home, tried, limits)
        if not message:
            return tried
    flags = " ".join(limit.flag for limit in limits)
    raise UserError(
        f"Java cannot start within what the limits of this process leave ({', '.join(map(str, limits))}): {message}; "
        f"raise them in the shell or the job (see ulimit {flags})"
    )


def _spare_address_space() -> None:
    """Keep glibc from giving each of Java's threads 64 MiB of address space to allocate from."""
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator is not None:
        allocator(ARENA_MAX, 1)


class _Limit(NamedTuple):
    """A limit of this process: ulimit's flag, what is left of it in ulimit's unit, and what it limits."""

    flag: str
    left: int
    what: str

    def __str__(self) -> str:
        return f"{self.left} {self.what}"


def _limits_in_reach() -> list[_Limit]:
    """Return the limits that Java may not fit into; none for most processes."""
    import resource

    found = []
    for flag, kind, field in (("-v", resource.RLIMIT_AS, "VmSize:"), ("-d", resource.RLIMIT_DATA, "VmData:")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            left = max(limit - _memory(field) - RESERVE, 0) >> 10
            found.append(_Limit(flag, left, "KiB of memory"))
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if processes != resource.RLIM_INFINITY and processes < MANY_PROCESSES:
        found.append(_Limit("-u", processes, "processes"))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and (left := files - _open_files()) < FEW_FILES:
        found.append(_Limit("-n", max(left, 0), "open files"))
    return found


def _memory(field: str) -> int:
    """Return how many bytes of a kind /proc says that this process has; 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(field)), 0)


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a Path for each would open more
    except OSError:
        return 0


def _fails(java_home: Path, options: Sequence[str], limits: Sequence[_Limit]) -> str:
    """Start Java in a process of its own that has only what is left of the limits; return what it says if it cannot."""
    ulimits = "".join(f"ulimit {limit.flag} {limit.left} && " for limit in limits)
    java = [str(java_home / "bin" / "java"), *options, f"-XX:ErrorFile={os.devnull}", "-version"]
    command = ["/bin/sh", "-c", f'{ulimits}exec "$0" "$@"', *java]
    try:
        one_arena = {**java_environment(), "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(command, env=one_arena, capture_output=True, errors="replace", timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    lines = [line.strip("# ") for line in (done.stderr + done.stdout).splitlines()]
    said = [line for line in lines if line and not line.startswith("Error occurred during")]
    return "" if done.returncode == 0 else (said or [f"it ends with {done.returncode}"])[0]


def java_environment() -> dict[str, str]:
    """Return the environment of this process without what Java acts on, for a Java that is a process of its own.

    Names of files are UTF-8 whatever the locale says, as Python holds them under the C locale too.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES) and name not in NAMES}
    return {**kept, "LC_ALL": "C.UTF-8"}


@contextmanager
def surroundings(java_home: Path) -> Iterator[None]:
    """Show Java a plain environment while it starts; the user's own, and the locale that Java sets, are put back.

    pyjnius finds Java by JAVA_HOME.
    """
    before, before_locale = dict(os.environ), locale.setlocale(locale.LC_ALL)
    ours = {**java_environment(), "JAVA_HOME": str(java_home)}
    changed = {name for name in {*before, *ours} if before.get(name) != ours.get(name)}
    try:
        _set_variables({name: ours.get(name) for name in changed})
        with _a_folder():
            yield
    finally:
        _set_variables({name: before.get(name) for name in changed})
        locale.setlocale(locale.LC_ALL, before_locale)


@contextmanager
def _a_folder() -> Iterator[None]:
    """Work in the root folder meanwhile, if the working folder was removed: Java would end the process."""
    try:
        os.getcwd()  # noqa: PTH109  # what Java asks
    except OSError:
        removed = os.open(".", os.O_RDONLY)
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(removed)
            os.close(removed)
    else:
        yield


def _set_variables(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
