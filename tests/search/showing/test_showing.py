"""Pages, thresholds, fields, highlights, snippets, facets and documents like one, against their plain definitions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from retriever import Document, FusionConfig, Hit, Retriever, Snippet, Span, UserError, snippet
from retriever.encoder.vocabulary.lexicon import Lexicon
from retriever.index import FolderWriter, IndexSettings
from retriever.index.chunks import Chunking
from retriever.index.lucene.values import counted_values
from retriever.ranking import order, without_self
from retriever.search.leg import LegQuery
from retriever.search.legs.sparse import SparseLeg
from retriever.search.likeness import strongest_words
from retriever.search.modes import CANDIDATES, Plan
from retriever.search.showing.highlights import joined
from retriever.testing import SeededEncoder
from retriever.types import Encoded, FacetCount, IndexField, MetadataValue, ScoredDoc, TermSpan

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
COUNT = 1_300
WORDS = ["river", "stone", "bread", "winter", "garden", "running", "music", "term3", "term17", "moon"]
MODES = ["bm25", "sparse", "dense", "hybrid", "bm25+dense"]
VALUES: list[MetadataValue] = [
    "a", "b", "2025-02-03T12:45:46Z", "2025-02-03T13:45:46+01:00", "2025", True, False, "true", 1, 1.0, 0, -0.0, -2.5,
    0.1, 0.30000000000000004, 2**53 + 1, -(10**30), 1e300, 2019, 2020, [2019, 2020, 2020], ["a", "a", None], None,
    {"nested": 1}, "", "ﬁ", "😀", [],
]  # fmt: skip


def made(number: int) -> Document:
    random = np.random.default_rng(number)
    text = " ".join(random.choice(WORDS, random.integers(1, 9)))
    metadata: dict[str, MetadataValue] = {
        "n": number,
        "year": 2000 + number % 7,
        "lang": ["en", "de", "fr"][number % 3],
    }
    if number % 2:
        metadata["any"] = VALUES[number // 2 % len(VALUES)]
    if number % 4 == 0:
        metadata["at"] = f"2025-02-{1 + number % 28:02d}"
    return Document(f"d{number}", text, "", metadata)


def write(folder: Path, documents: Sequence[Document], *, chunks: bool = False) -> Path:
    """Write documents, replace some and delete others, so that dead ones stay behind."""
    encoder = SeededEncoder()
    chunking = Chunking(2, 0) if chunks else None
    with FolderWriter.create(folder, IndexSettings(encoder.identity, chunking=chunking)) as writer:
        for batch in (documents[:700], documents[:50], documents[700:]):
            spans = [spans_of(document.text) for document in batch] if chunks else None
            parts = batch if spans is None else [p for d, s in zip(batch, spans, strict=True) for p in d.split(s)]
            writer.add(batch, encoder.encode_documents([part.contents for part in parts]), spans)
            writer.commit(dense_type="flat")
        writer.delete(["d5", "d6"])
        writer.commit(dense_type="flat")
    return folder


def spans_of(text: str) -> list[Span]:
    """Return two words each."""
    return [Span(found.start(), found.end()) for found in re.finditer(r"\S+(\s+\S+)?", text)] or [Span(0, len(text))]


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    return {f"d{number}": made(number) for number in range(COUNT) if number not in (5, 6)}


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    folder = write(tmp_path_factory.mktemp("showing") / "index", [made(number) for number in range(COUNT)])
    with Retriever.open(folder, SeededEncoder()) as opened:
        yield opened


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    folder = write(tmp_path_factory.mktemp("chunked") / "index", [made(number) for number in range(150)], chunks=True)
    with Retriever.open(folder, SeededEncoder()) as opened:
        yield opened


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [7, 150, 400])
def test_pages_put_together_are_the_whole(retriever: Retriever, mode: str, size: int) -> None:
    whole = retriever.search("river term3", 1_200, mode=mode)
    starts = range(0, 1_300, size) if size > 100 else (*range(0, 50, size), 197, 598, 1_196)
    for offset in starts:
        assert (
            retriever.search("river term3", size, mode=mode, offset=offset)[: len(whole) - offset]
            == (whole[offset : offset + size])
        )
    assert [hit.rank for hit in whole] == list(range(1, len(whole) + 1))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lengths=st.tuples(*[st.integers(0, 3_000)] * 2),
    tops=st.tuples(*[st.integers(1, 2_500)] * 2),
)
def test_a_deeper_search_begins_as_one_that_is_not(seed: int, lengths: tuple[int, int], tops: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    scored = {
        leg: order((f"d{at}", float(np.float32(random.random()))) for at in random.permutation(4_000)[:length].tolist())
        for leg, length in zip(("bm25", "dense"), lengths, strict=True)
    }
    plan = Plan(("bm25", "dense"), FusionConfig())
    few, many = (
        plan.fuse({leg: ranking[: plan.depth(top_k)] for leg, ranking in scored.items()}).ranking[:top_k]
        for top_k in sorted(tops)
    )
    assert many[: len(few)] == few


@pytest.mark.parametrize("mode", MODES)
def test_min_score_leaves_out_what_is_below(retriever: Retriever, mode: str) -> None:
    whole = retriever.search("stone music", 30, mode=mode)
    for least in (whole[11].score, whole[0].score + 1, -10.0):
        assert retriever.search("stone music", 30, mode=mode, min_score=least) == [h for h in whole if h.score >= least]
    assert retriever.search("stone music", 5, mode=mode, min_score=whole[11].score, offset=8) == [
        hit for hit in whole[8:13] if hit.score >= whole[11].score
    ]


def test_hits_have_the_fields_that_were_asked_for(retriever: Retriever, documents: dict[str, Document]) -> None:
    for fields in (None, [], ["lang", "at", "no such"], ("year",)):
        for hit in retriever.search("bread", 20, fields=fields):
            stored = documents[hit.doc_id].metadata
            assert hit.metadata == (stored if fields is None else {k: stored[k] for k in fields if k in stored})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"offset": -1}, "offset is -1; need 0 or more"),
        ({"min_score": float("nan")}, "min_score is not a number"),
        ({"fields": "lang"}, r"give a list of names, as in \['lang'\]"),
    ],
)
def test_what_cannot_be_shown(retriever: Retriever, wrong: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        retriever.search("bread", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said):
        retriever.more_like_this("d1", **wrong)  # type: ignore[arg-type]


def test_documents_by_id(retriever: Retriever, documents: dict[str, Document]) -> None:
    found = retriever.documents(["d9", "d5", "unknown", "d2", "d9"])
    assert list(found.items()) == [("d9", documents["d9"]), ("d2", documents["d2"])]


def naive_values(document: Document, field: str) -> set[tuple[str, str | float]]:
    held = document.metadata.get(field)
    found: set[tuple[str, str | float]] = set()
    for value in held if isinstance(held, list) else [held]:
        if isinstance(value, bool | str | int | float):
            kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
            found.add((kind, value))
    return found


def naive_facets(documents: Sequence[Document], field: str) -> list[FacetCount]:
    counts = Counter(value for document in documents for value in naive_values(document, field))
    ranks = {"bool": 0, "number": 1, "text": 2}
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], ranks[pair[0][0]], pair[0][1]))
    return [FacetCount(value, count) for (_, value), count in ordered]


def typed(facets: Sequence[FacetCount]) -> list[tuple[bool, FacetCount]]:
    return [(isinstance(facet.value, bool), facet) for facet in facets]


def in_a_filter(document: Document) -> bool:
    year, n = document.metadata["year"], document.metadata["n"]
    return isinstance(n, int) and n < 300 and year != 2003


@pytest.mark.parametrize("filter", [None, "n < 300 and not year = 2003"])
def test_facets_are_exact(
    retriever: Retriever, chunked: Retriever, documents: dict[str, Document], filter: str | None
) -> None:
    few = {key: document for key, document in documents.items() if int(key[1:]) < 150}
    for opened, held in ((retriever, documents), (chunked, few)):
        counted = [document for document in held.values() if filter is None or in_a_filter(document)]
        for field in ("lang", "year", "any", "at"):
            expected = naive_facets(counted, field)
            assert typed(opened.facets(field, top_k=100, filter=filter)) == typed(expected)
            assert typed(opened.facets(field, top_k=2, filter=filter)) == typed(expected[:2])
            assert typed(counted_values(counted, field, 100)) == typed(expected)


@pytest.mark.parametrize("mode", ["bm25", "hybrid"])
def test_facets_of_a_query_count_its_hits(retriever: Retriever, documents: dict[str, Document], mode: str) -> None:
    hits = retriever.search("moon", CANDIDATES, mode=mode, filter="year > 2001")
    found = retriever.facets("lang", "moon", mode=mode, filter="year > 2001")
    assert found == naive_facets([documents[hit.doc_id] for hit in hits], "lang")


def test_facets_that_cannot_be_counted(retriever: Retriever) -> None:
    with pytest.raises(UserError, match="no field 'no such'; its fields are any, at, lang, n, year"):
        retriever.facets("no such")
    with pytest.raises(UserError, match="'n' has more than 200 different numbers; count ranges of them by filters"):
        retriever.facets("n")


def test_the_fields_of_an_index(retriever: Retriever, chunked: Retriever, documents: dict[str, Document]) -> None:
    with_any = sum(bool(naive_values(document, "any")) for document in documents.values())
    assert retriever.fields() == [
        IndexField("any", ("text", "date", "number", "boolean"), with_any),
        IndexField("at", ("date",), sum("at" in document.metadata for document in documents.values())),
        IndexField("lang", ("text",), COUNT - 2),
        IndexField("n", ("number",), COUNT - 2),
        IndexField("year", ("number",), COUNT - 2),
    ]
    assert {field.name: field.documents for field in chunked.fields()}["n"] == 148


def test_dates_in_a_filter_are_moments(retriever: Retriever, documents: dict[str, Document]) -> None:
    same = {key for key, document in documents.items() if str(document.metadata.get("any")).startswith("2025-02-03T")}
    assert len({documents[key].metadata["any"] for key in same}) == 2, "one moment, written in two zones"
    for written in ("2025-02-03T12:45:46Z", "2025-02-03 07:45:46-05:00"):
        hits = retriever.search("river", COUNT, mode="dense", filter=f"any = '{written}'")
        assert {hit.doc_id for hit in hits} == same


@pytest.mark.parametrize("mode", MODES)
def test_more_like_this_asks_with_what_is_stored(
    retriever: Retriever, documents: dict[str, Document], mode: str
) -> None:
    doc_id = "d33"
    encoded = SeededEncoder().encode_documents([document.contents for document in documents.values()])
    assert encoded.dense is not None and encoded.sparse is not None
    own, ids = list(documents).index(doc_id), list(documents)
    impacts = np.rint(encoded.sparse.toarray().astype(float) * 100) / 100
    words = strongest_words(retriever.reader, documents[doc_id].contents)
    alone = {
        "dense": order(
            zip(ids, (encoded.dense.astype(float) @ encoded.dense[own].astype(float)).tolist(), strict=True)
        ),
        "sparse": [hit for hit in order(zip(ids, (impacts @ impacts[own]).tolist(), strict=True)) if hit.score > 0],
        "bm25": [ScoredDoc(hit.doc_id, hit.score) for hit in retriever.search(" ".join(words), COUNT, mode="bm25")],
    }
    plan = retriever.plan(mode)
    depth = plan.depth(20)
    rankings = {leg: without_self(alone[leg][: depth + 1], doc_id)[:depth] for leg in plan.legs}
    expected = plan.fuse(rankings).ranking[:20]
    hits = retriever.more_like_this(doc_id, 20, mode=mode)
    assert np.allclose([hit.score for hit in hits], [hit.score for hit in expected], atol=2e-3)
    assert doc_id not in {hit.doc_id for hit in hits}
    assert len({hit.doc_id for hit in hits} & {hit.doc_id for hit in expected}) >= 18, "but for rounded ties"


def test_more_like_a_document_of_chunks(chunked: Retriever) -> None:
    hits = chunked.more_like_this("d33", 5, explain=True)
    assert len(hits) == 5 and all(hit.chunks for hit in hits)
    with pytest.raises(UserError, match="document 'd5' is not in the index"):
        chunked.more_like_this("d5")


def test_the_strongest_words_are_those_of_the_highest_tf_idf(retriever: Retriever) -> None:
    text = "moon moon river of the unheard stone, Running runs run"
    words = strongest_words(retriever.reader, text, 3)
    assert words == ["unheard", "Running", "moon"], "never in the index, thrice, twice"


def marked(hit: Hit | Snippet) -> list[str]:
    return [hit.text[start:end] for start, end in hit.highlights]


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    texts = {
        "stems": "Runs and RUNNING! The runner's run, rerun.",
        "cjk": "我喜欢中文检索。中文很好",
        "combining": "Cafe\u0301 and café, nai\u0308ve",
        "astral": "😀😀 river 😀 river\u0301 👩‍👩‍👧 (river)",
        "surrogate": "a river here",
        "vocabulary": "term3 and Term17, not term1",
    }
    documents = [Document(key, text) for key, text in texts.items()]
    documents.append(Document("titled", "By the river", "😀 Rivers: a RIVER's Run, the stone"))
    encoder = SeededEncoder()
    folder = tmp_path_factory.mktemp("worded") / "index"
    with FolderWriter.create(folder, IndexSettings(encoder.identity)) as writer:
        writer.add(documents, encoder.encode_documents([document.contents for document in documents]))
        writer.commit(dense_type="flat")
    with Retriever.open(folder, encoder) as opened:
        yield opened


@pytest.mark.parametrize(
    ("query", "doc_id", "found"),
    [
        ("running", "stems", ["Runs", "RUNNING", "run"]),
        ("中文", "cjk", ["中文", "中文"]),
        ("cafe\u0301", "combining", ["Cafe\u0301", "café"]),  # equal words, typed in two ways
        ("café", "combining", ["Cafe\u0301", "café"]),
        ("river", "astral", ["river", "river"]),
        ("rivers", "surrogate", ["river"]),
    ],
)
def test_bm25_marks_the_words_of_its_terms(worded: Retriever, query: str, doc_id: str, found: list[str]) -> None:
    [hit] = worded.search(query, mode="bm25", filter=f"id = {doc_id}", highlight=True)
    assert marked(hit) == found


def test_titles_have_highlights_of_their_own(worded: Retriever) -> None:
    [hit] = worded.search("running rivers", mode="bm25", filter="id = titled", highlight=True)
    assert [hit.title[start:end] for start, end in hit.title_highlights] == ["Rivers", "RIVER's", "Run"]
    assert marked(hit) == ["river"]
    [hit] = worded.search("running rivers", mode="bm25", filter="id = titled")
    assert hit.title_highlights == ()


def test_highlights_are_the_explained_terms(retriever: Retriever) -> None:
    for query in ("running river", "moon"):
        for hit in retriever.search(query, 20, mode="bm25", highlight=True, explain=True):
            terms = {match.term for match in hit.terms}
            analysed = {token.term for text in marked(hit) for token in retriever.reader.tokens(text)}
            assert terms == analysed
            tokens = retriever.reader.tokens(hit.text)
            words = [hit.text[start:end] for term, start, end in tokens if term in terms]
            assert marked(hit) == words


def test_the_sparse_leg_marks_words_of_the_vocabulary(worded: Retriever) -> None:
    [hit] = worded.search("what", mode="sparse", filter="id = vocabulary", highlight=True, explain=True)
    query = SeededEncoder().encode_queries(["what"]).sparse
    assert query is not None
    strong = {
        f"term{at}" for at, weight in zip(query.indices, query.data, strict=True) if weight >= 0.2 * query.data.max()
    }
    assert marked(hit) == [word for word in ("term3", "Term17", "term1") if word.lower() in strong]
    assert worded.search("what", mode="dense", highlight=True)[0].highlights == ()


def test_word_pieces_stand_for_whole_words(tiny_encoder_folder: Path) -> None:
    lexicon = Lexicon(tiny_encoder_folder)
    text = "The xyzzy wáter, 中文 water\u0301s"
    spans = lexicon.term_spans(text)
    assert {text[span.start : span.end] for span in spans} >= {"xyzzy", "wáter", "中", "文"}
    assert [span.term for span in spans] == lexicon.stem[lexicon.token_ids([text])[0]].tolist()
    assert lexicon.term_spans("") == []


def test_all_pieces_of_a_word_have_to_be_found() -> None:
    class Pieces(SeededEncoder):
        def term_spans(self, text: str) -> list[TermSpan]:
            return [TermSpan(1, 0, 5), TermSpan(2, 0, 5), TermSpan(1, 6, 9), TermSpan(3, 6, 9), TermSpan(3, 10, 12)]

    leg = object.__new__(SparseLeg)
    query = LegQuery("", Encoded(None, csr_matrix([[0.0, 1.0, 0.5, 0.1]]), np.zeros(1, bool)))
    assert leg.highlight(query, "", Pieces()) == [Span(0, 5)], "two strong ones, one that is faint, a faint one alone"
    assert leg.highlight(query, "", None) == []


spans_in = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=8)


@given(text=st.text("ab .\u0301\n。中", max_size=46), pairs=spans_in)
def test_joined_spans_cover_the_same_characters(text: str, pairs: list[tuple[int, int]]) -> None:
    spans = [Span(min(start, len(text)), min(start + length, len(text))) for start, length in pairs]
    spans = [span for span in spans if span.start < span.end]
    found = joined(spans, text)
    covered = {at for span in found for at in range(*span)}
    own = {at for span in spans for at in range(*span)}
    assert own <= covered and all(text[at] == "\u0301" for at in covered - own)
    assert all(one.end < other.start for one, other in pairwise(found))
    assert all(end == len(text) or text[end] != "\u0301" for _, end in found)


@given(
    text=st.text("ab .!\u0301\n。中", max_size=400),
    pairs=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 6)), max_size=8),
    length=st.integers(1, 90),
)
def test_a_snippet_is_a_part_of_the_text(text: str, pairs: list[tuple[int, int]], length: int) -> None:
    highlights = joined((Span(min(start, len(text)), min(start + n, len(text))) for start, n in pairs), text)
    found = snippet(Hit(1, "d", 1.0, "", text, {}, {}, highlights=highlights), length=length)
    assert found.text == text[found.start : found.end] == found.text.strip()
    assert len(found.text) <= length
    absolute = [Span(span.start + found.start, span.end + found.start) for span in found.highlights]
    assert set(absolute) <= set(highlights)
    if any(
        span.end - span.start <= length // 2 and text[span.start : span.end].strip() == text[span.start : span.end]
        for span in highlights
    ):
        assert found.highlights, "something that was found is shown"


def test_the_best_sentences_are_shown() -> None:
    text = "Bread is old. " * 30 + "Yeast makes the dough rise in an oven. Salt slows it. " + "Stones are hard. " * 30
    at = [text.index(word) for word in ("Yeast", "dough", "oven", "Stones")]
    spans = tuple(Span(start, start + 5) for start in at)
    found = snippet(Hit(1, "d", 1.0, "", text, {}, {}, highlights=spans), length=60)
    assert found.text == "Yeast makes the dough rise in an oven. Salt slows it."
    assert marked(found) == ["Yeast", "dough", "oven."]
    assert snippet(Hit(1, "d", 1.0, "", text, {}, {}), length=27).text == "Bread is old. Bread is old."
    with pytest.raises(UserError, match="a snippet of 0 characters"):
        snippet(Hit(1, "d", 1.0, "", text, {}, {}), length=0)
