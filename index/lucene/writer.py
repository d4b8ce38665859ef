"""Writing Lucene: documents with their fields, deletions, commits.

The chunks of a document are Lucene documents with one id, in order, one directly behind the other for good: a block.
Lucene fields of a chunk:
  id        stored term, and BinaryDocValues for sorting ties
  contents  what BM25 reads, by the analyser of the index, see `index.lucene.analysis`
  language  the code of the document's language, where each has an analyser of its own
  impact    learned sparse terms: the term is the decimal vocabulary id, the term frequency is the impact
  token     vocabulary ids of the text's own tokens, without frequencies: for their document frequencies
  raw       stored JSON of the whole document; in its first chunk alone
  row       NumericDocValues: the row of the vector of its document's first chunk
  s.<name>  and others: metadata, see `index.lucene.metadata`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.index.lucene.analysis import Analysis, analysis_of
from retriever.index.lucene.jvm import (
    as_type,
    be_quiet,
    bm25_similarity,
    bytes_ref,
    damage_named,
    java,
    lucene,
    naming_damage,
    one_at_a_time,
    open_directory,
    start_jvm,
)
from retriever.index.lucene.metadata import LONGEST_TERM, indexed_metadata
from retriever.index.lucene.reader import LuceneReader
from retriever.index.lucene.word_postings import word_postings
from retriever.types import MetadataValue, UserError

if TYPE_CHECKING:
    from retriever.index.settings import Bm25

__all__ = ["LONGEST_TERM", "LuceneChunk", "LuceneDocument", "LuceneWriter"]

BUFFER_MB = 64.0


class LuceneWriter:
    """Adds, replaces and deletes documents; nothing lasts before `commit`. Use it from one thread."""

    @one_at_a_time()
    def __init__(self, folder: Path, bm25: Bm25) -> None:
        start_jvm()
        be_quiet()
        self._analysis = analysis_of(bm25.analyzer)
        config = lucene("index.IndexWriterConfig")(as_type("analysis.Analyzer", _index_analyzer(self._analysis)))
        config.setSimilarity(bm25_similarity(bm25.k1, bm25.b))
        config.setRAMBufferSizeMB(BUFFER_MB)
        policy = lucene("index.TieredMergePolicy")()
        policy.setForceMergeDeletesPctAllowed(0.0)  # else `drop_deleted` leaves segments with few of them
        config.setMergePolicy(policy)
        self._merges = lucene("index.ConcurrentMergeScheduler")()
        config.setMergeScheduler(self._merges)
        self._folder, self._directory, self._bm25 = folder, open_directory(folder), bm25
        try:
            with damage_named(folder):
                self._writer = lucene("index.IndexWriter")(self._directory, config)
        except UserError:
            self._directory.close()
            raise
        self._block = _Block(self._analysis)
        self._term = lucene("index.Term")

    @naming_damage
    @one_at_a_time()
    def add(self, doc: LuceneDocument, replace: bool) -> None:
        """Add a document; `replace` deletes the one with the same id in the same step."""
        block = self._block.fill(doc)
        if replace:
            self._writer.updateDocuments(self._term("id", doc.doc_id), block)
        else:
            self._writer.addDocuments(block)

    @naming_damage
    @one_at_a_time()
    def delete(self, ids: Iterable[str]) -> None:
        """Delete the documents with these ids."""
        terms = java("java.util.ArrayList")()
        for doc_id in ids:
            terms.add(bytes_ref(doc_id))
        query = lucene("search.TermInSetQuery")("id", as_type("java.util.Collection", terms))
        self._writer.deleteDocuments(as_type("search.Query", query))

    @naming_damage
    @one_at_a_time()
    def renumber(self, rows: Iterable[tuple[str, int]]) -> None:
        """Give documents, by id, the rows that begin with this one."""
        for doc_id, row in rows:
            self._writer.updateNumericDocValue(self._term("id", doc_id), "row", row)

    @naming_damage
    @one_at_a_time()
    def drop_deleted(self) -> None:
        """Write the segments that hold deleted documents again without them."""
        self._writer.forceMergeDeletes()
        while self._writer.hasDeletions():
            # A merge that was under way already takes along what has been deleted since it began.
            self._merges.sync()
            self._writer.forceMergeDeletes()

    @naming_damage
    @one_at_a_time()
    def reader(self) -> LuceneReader:
        """Return a reader of everything so far, uncommitted changes included."""
        return LuceneReader(self._folder, lucene("index.DirectoryReader").open(self._writer), self._bm25)

    def words(self, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Yield what BM25 reads of the live rows in each range, uncommitted ones included."""
        with damage_named(self._folder):
            with one_at_a_time():
                reader = lucene("index.DirectoryReader").open(self._writer)
            try:
                yield from (word_postings(as_type("index.IndexReader", reader), *one) for one in ranges)
            finally:
                with one_at_a_time():
                    reader.close()

    @naming_damage
    @one_at_a_time()
    def commit(self, user_data: Mapping[str, str]) -> None:
        """Make everything so far durable and visible to new readers, together with `user_data`."""
        data = java("java.util.HashMap")()
        for key, value in user_data.items():
            data.put(key, value)
        self._writer.setLiveCommitData(data.entrySet())
        self._writer.commit()

    @naming_damage
    @one_at_a_time()
    def close(self) -> None:
        """Forget what was not committed."""
        try:
            self._writer.rollback()
        finally:
            self._directory.close()


def _index_analyzer(contents: Analysis) -> Any:
    """Return the analyser of `contents`; `impact` ("id|frequency") and `token` are split at whitespace."""
    options = java("java.util.HashMap")
    builder = lucene("analysis.custom.CustomAnalyzer").builder()
    builder.withTokenizer("whitespace", options())
    delimiter = options()
    delimiter.put("delimiter", "|")
    builder.addTokenFilter("delimitedTermFrequency", delimiter)
    by_field = options()
    by_field.put("impact", as_type("analysis.Analyzer", builder.build()))
    by_field.put("token", as_type("analysis.Analyzer", lucene("analysis.core.WhitespaceAnalyzer")()))
    return lucene("analysis.miscellaneous.PerFieldAnalyzerWrapper")(contents.java, by_field)


class LuceneChunk(NamedTuple):
    """What the text legs read of a chunk; `impacts` is one line of `impact_strings`, `tokens` ids between spaces."""

    contents: str
    impacts: str
    tokens: str


class LuceneDocument(NamedTuple):
    """What Lucene stores of a document; `row` is that of its first chunk, `language` "" where all are read alike."""

    doc_id: str
    raw: str
    row: int
    metadata: Mapping[str, MetadataValue]
    chunks: Sequence[LuceneChunk]
    language: str = ""


class _Block:
    """The Lucene documents of one document's chunks, filled anew for every document: making Java objects takes time."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._fields: list[_Fields] = []
        self._list = java("java.util.ArrayList")()
        self._iterable = as_type("java.lang.Iterable", self._list)

    def fill(self, doc: LuceneDocument) -> Any:
        """Return the Java documents that hold `doc` until the next call."""
        count = len(doc.chunks)
        while len(self._fields) < count:
            self._fields.append(_Fields(self._analysis, with_raw=not self._fields))
        for fields, chunk in zip(self._fields, doc.chunks, strict=False):
            fields.fill(doc, chunk)
        if self._list.size() != count:
            self._list.clear()
            for fields in self._fields[:count]:
                self._list.add(fields.java)
        return self._iterable


class _Fields:
    """The fields of one Lucene document, of which the first of a block has `raw`.

    java: the Java document.
    """

    def __init__(self, analysis: Analysis, with_raw: bool) -> None:
        self._analysis = analysis
        empty = as_type("java.lang.CharSequence", java("java.lang.String")(""))
        field, stored = lucene("document.Field"), lucene("document.Field$Store")
        self._id = lucene("document.StringField")("id", "", stored.YES)
        self._id_value = lucene("document.BinaryDocValuesField")("id", bytes_ref(""))
        options = lucene("index.IndexOptions")
        self._contents = field("contents", empty, _text_field(options.DOCS_AND_FREQS, omit_norms=False))
        self._impact = field("impact", empty, _text_field(options.DOCS_AND_FREQS, omit_norms=True))
        self._token = field("token", empty, _text_field(options.DOCS, omit_norms=True))
        self._raw = lucene("document.StoredField")("raw", "")
        self._row = lucene("document.NumericDocValuesField")("row", 0)
        self._language = lucene("document.StringField")("language", "", stored.NO)
        self._all = java("java.util.ArrayList")()
        fixed = [self._id, self._id_value, self._contents, self._impact, self._token, self._row]
        fixed += [self._raw] if with_raw else []
        fixed += [self._language] if analysis.by_language else []
        for field_ in fixed:
            self._all.add(as_type("java.lang.Object", field_))
        self._fixed = self._all.size()
        self.java = as_type("java.lang.Object", self._all)
        self._metadata: dict[tuple[str, int], Any] = {}
        self._names: list[str] = []

    def fill(self, doc: LuceneDocument, chunk: LuceneChunk) -> None:
        """Set the fields to those of a chunk of a document."""
        self._id.setStringValue(doc.doc_id)
        self._id_value.setBytesValue(bytes_ref(doc.doc_id))
        self._contents.setStringValue(self._analysis.indexed(chunk.contents, doc.language))
        self._impact.setStringValue(chunk.impacts)
        self._token.setStringValue(chunk.tokens)
        self._raw.setStringValue(doc.raw)
        self._row.setLongValue(doc.row)
        self._language.setStringValue(doc.language)
        self._fill_metadata(doc.metadata)

    def _fill_metadata(self, metadata: Mapping[str, MetadataValue]) -> None:
        values = list(indexed_metadata(metadata))
        names = [value.field for value in values]
        same = names == self._names  # as in most corpora: then the fields only change their values
        if not same:
            self._all.subList(self._fixed, self._all.size()).clear()
            self._names = names
        counts: Counter[str] = Counter()
        for name, value in values:
            field = self._metadata_field(name, counts[name], value)
            counts[name] += 1
            if not same:
                self._all.add(as_type("java.lang.Object", field))

    def _metadata_field(self, name: str, position: int, value: str | float | tuple[int, int]) -> Any:
        field = self._metadata.get((name, position))
        if field is None:
            field = self._metadata[name, position] = _new_field(name, value)
        elif isinstance(value, str):
            field.setStringValue(value)
        elif isinstance(value, tuple):
            field.setBytesValue(lucene("document.LongPoint").pack(*value))
        else:
            field.setDoubleValue(value)
        return field


def _new_field(name: str, value: str | float | tuple[int, int]) -> Any:
    if isinstance(value, str):
        return lucene("document.StringField")(name, value, lucene("document.Field$Store").NO)
    if isinstance(value, tuple):
        kind = lucene("document.FieldType")()  # pyjnius cannot call LongPoint's constructor for two dimensions
        kind.setDimensions(2, 8)
        kind.freeze()
        packed = lucene("document.LongPoint").pack(*value)
        return lucene("document.Field")(name, packed, as_type("index.IndexableFieldType", kind))
    return lucene("document.DoublePoint")(name, value)


def _text_field(options: Any, omit_norms: bool) -> Any:
    """Return the type of a field that is indexed without positions and not stored."""
    kind = lucene("document.FieldType")()
    kind.setIndexOptions(options)
    kind.setOmitNorms(omit_norms)
    kind.setTokenized(True)
    kind.freeze()
    return as_type("index.IndexableFieldType", kind)
