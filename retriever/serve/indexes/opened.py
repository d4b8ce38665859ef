"""The open indexes of one server process: each sees new commits by itself, and searches never wait for that."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.search.retriever import Retriever
from retriever.serve.problems import ProblemError, without_paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from retriever.serve.settings import ServeSettings

__all__ = ["Indexes", "ServedIndex"]

EVERY = 0.25
"""Seconds between two looks for a new commit."""
PARAMETERS = {"--on-bad ": "on_bad=", "--on-duplicate ": "on_duplicate="}
"""What the command line calls an option, and an address a parameter."""
WARMING = ("a first question", "and a second one")
"""What is asked before any client does: the first query of a process loads the encoder, the second compiled kernels."""
log = logging.getLogger(__name__)


class _Moment(NamedTuple):
    """Which folders those of Lucene are, and when a file came into one, or went: no commit is without that."""

    folders: tuple[int, ...]
    changed: tuple[int, ...]


class ServedIndex:
    """One index under its name. It is opened anew where its folder was built again; searches keep what they have.

    error: why the last commit could not be seen, "" where it is.
    """

    def __init__(self, name: str, path: Path, settings: ServeSettings) -> None:
        self.name, self.path, self._settings = name, path, settings
        self.writing = threading.Lock()
        self.error = ""
        self._lock, self._reopening = threading.Lock(), threading.Lock()
        self._seen = self._moment()
        self._opened = self._seen.folders
        self._retriever = self._open()
        self._users = {self._retriever: 0}

    def _open(self) -> Retriever:
        how = self._settings
        retriever = Retriever.open(self.path, how.encoder, query_mode=how.query_mode, cluster=how.cluster)
        try:
            for question in WARMING:
                retriever.search(question, 1)
            if self._settings.write:
                retriever.encoder.encode_documents(WARMING)
        except BaseException:
            retriever.close()
            raise
        return retriever

    @contextmanager
    def use(self) -> Iterator[Retriever]:
        """Give the open index to one request: it is not closed before the request has ended."""
        with self._lock:
            retriever = self._retriever
            self._users[retriever] += 1
        try:
            yield retriever
        finally:
            with self._lock:
                self._users[retriever] -= 1
                unused = retriever is not self._retriever and not self._users[retriever]
                if unused:
                    del self._users[retriever]
            if unused:
                retriever.close()

    def refresh(self) -> bool:
        """See the last commit from now on; return whether there was a new one."""
        with self._reopening:
            moment = self._moment()
            if moment == self._seen and moment.folders and not self.error:
                return False  # an index that is no folder is asked itself
            # Lucene would take another folder with as many commits for the one that it has open.
            newer = self._reopen() if moment.folders == self._opened else self._open_anew(moment.folders)
            self._seen = moment
            return newer

    def _reopen(self) -> bool:
        try:
            with self.use() as retriever:
                newer = retriever.reopen()
        except Exception:  # of Lucene's own, too, where the index was built again in the same folder
            return self._open_anew(self._opened)
        self.error = ""
        return newer

    def _open_anew(self, folders: tuple[int, ...]) -> bool:
        try:
            retriever = self._open()
        except Exception as error:  # whatever is wrong with the new one, the old one is still searched
            if not self.error:  # once, not four times a second
                log.warning("%s cannot be opened (%s); it is searched as it was", self.name, error)
            self.error = str(error)
            return False
        with self._lock:
            old, self._retriever = self._retriever, retriever
            self._users[retriever] = 0
            unused = not self._users[old]
            if unused:
                del self._users[old]
        if unused:
            old.close()
        self._opened, self.error = folders, ""
        return True

    def _moment(self) -> _Moment:
        try:
            lucene = self.path / "lucene"
            found = [folder.stat() for folder in ([lucene] if lucene.exists() else sorted(self.path.glob("*/lucene")))]
        except OSError:
            found = []
        return _Moment(tuple(one.st_ino for one in found), tuple(one.st_mtime_ns for one in found))

    def close(self) -> None:
        """Free the index."""
        self._retriever.close()


class Indexes:
    """The indexes of a server process, by name, and the thread that looks for new commits."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self._served: dict[str, ServedIndex] = {}
        self._stop = threading.Event()
        try:
            for name, path in settings.indexes.items():
                self._served[name] = ServedIndex(name, path, settings)
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._watch, name="reopen", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[ServedIndex]:
        return iter(self._served.values())

    def __getitem__(self, name: str) -> ServedIndex:
        """Return an index; raise ProblemError 404 for a name that is none."""
        if name not in self._served:
            shown = ascii(name)[:80]
            raise ProblemError(
                404, "not-found", f"no index is called {shown}; allowed: {', '.join(self._served)}; choose one of them"
            )
        return self._served[name]

    @property
    def paths(self) -> Mapping[str, Path]:
        """Return the folders by name."""
        return self.settings.indexes

    def message(self, error: BaseException) -> str:
        """Return an error's words without paths of this machine, and with parameters in place of options."""
        encoders = [index._retriever.reader.settings.encoder.name for index in self]
        given = [self.settings.encoder] if self.settings.encoder else []
        said = str(error)
        for option, parameter in PARAMETERS.items():
            said = said.replace(option, parameter)
        for index in self:  # a place that is no folder calls itself as it was not written
            said = said.replace(str(index._retriever.reader.path), index.name)
        return without_paths(said, self.paths, [*encoders, *given])

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            for index in self:
                index.refresh()

    def close(self) -> None:
        """Stop looking, and free all of them."""
        self._stop.set()
        if thread := getattr(self, "_thread", None):
            thread.join()
        for index in self:
            index.close()
