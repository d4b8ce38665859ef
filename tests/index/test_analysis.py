"""How BM25 reads each language: beside pyserini's analysers, and in indexes of one language and of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever import Document, IndexingConfig, Retriever, build_index
from retriever.index.info import describe
from retriever.index.lucene.analysis import CLASSES, analysis_of
from retriever.index.lucene.jvm import start_jvm
from retriever.index.verify import verify_folder
from retriever.indexing.writer import IndexWriter
from retriever.languages import ENGLISH, LANGUAGES, OTHER

if TYPE_CHECKING:
    from pathlib import Path

SENTENCES = (
    "The rivers were flowing into the sea; ES war 3,5 km/h! Die Häuser der Städte, las casas grandes, les maisons.",
    "Домами книги реках, İSTANBUL'da kitaplar, δρόμοι και σπίτια, المدارس والكتب, किताबों में, 東京の大学で学ぶ",
    "Bøkerne på hyllene, kirjoissa, könyvekben, livros, libri, boeken, böckerna, książkami, knihami, cărțile",
)
DOCUMENTS = [
    Document("de", "In den alten Häusern am Fluss wohnten früher viele Familien mit ihren Kindern und Großeltern."),
    Document("en", "Many families with their children and grandparents used to live in the old houses by the river."),
    Document("es", "En las casas antiguas junto al río vivían muchas familias con sus hijos y sus abuelos queridos."),
    Document("ja", "川沿いの古い家には、かつて子供や祖父母と一緒に多くの家族が住んでいました。"),
    Document("th", "ในบ้านเก่าริมแม่น้ำ เคยมีครอบครัวมากมายอาศัยอยู่กับลูกและปู่ย่าตายาย"),
    Document("tr", "Nehir kenarındaki eski evlerde çocukları ve büyükanneleriyle birlikte birçok aile yaşardı."),  # noqa: RUF001
    Document("zh", "河边的老房子里曾经住着许多家庭，他们和孩子以及祖父母住在一起。"),  # noqa: RUF001
]


@pytest.fixture(scope="module", autouse=True)
def _java() -> None:
    start_jvm()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("languages") / "index"
    build_index(DOCUMENTS, folder, encoder="none", config=IndexingConfig(language="auto"))
    return folder


@pytest.mark.parametrize("code", [code for code in LANGUAGES if code not in ("th", "en")])
def test_terms_are_those_of_pyserinis_analyser(code: str) -> None:
    from pyserini.analysis import Analyzer, get_lucene_analyzer

    try:
        oracle = Analyzer(get_lucene_analyzer(language=code))
    except ValueError:
        pytest.skip("pyserini has none of that name")
    for sentence in SENTENCES:
        assert analysis_of(code).terms(sentence) == oracle.analyze(sentence)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_language_reads_its_words_alike_in_documents_and_queries(code: str) -> None:
    analysis = analysis_of(ENGLISH if code == "en" else code)
    for sentence in SENTENCES:
        assert analysis.terms(sentence)
        assert analysis.query_terms(sentence, []) == analysis.terms(sentence)


def test_a_language_of_lucene_is_one_of_ours() -> None:
    assert set(CLASSES) < set(LANGUAGES)


@given(st.text(alphabet="กขคงจฉชซญดตถทธนบปพฟมยรลวสหอ\u0e31\u0e34\u0e35\u0e38\u0e48\u0e49 aZ1.", max_size=30))
def test_scripts_without_spaces_become_groups_of_three_letters(text: str) -> None:
    def naive() -> list[str]:
        found = []
        for run in "".join(
            character if character.isalnum() or ord(character) > 3000 else " " for character in text
        ).split():
            letters: list[str] = []
            for character in run:
                if letters and character in "\u0e31\u0e34\u0e35\u0e38\u0e48\u0e49":
                    letters[-1] += character
                else:
                    letters.append(character)
            found += ["".join(letters[i : i + 3]) for i in range(max(1, len(letters) - 2))]
        return found

    if text.isascii() or any(character.isascii() for character in text):
        return  # where scripts meet, the words are those of UAX 29
    assert analysis_of("th").terms(text) == naive()


def test_equal_words_are_equal_terms_however_they_were_typed() -> None:
    assert analysis_of(ENGLISH).terms("caf\u0065\u0301s") == analysis_of(ENGLISH).terms("caf\u00e9s")
    assert analysis_of("ja").terms("ｶﾀｶﾅ") == analysis_of("ja").terms("カタカナ")
    assert analysis_of("tr").terms("İSTANBUL IŞIK") == analysis_of("tr").terms("istanbul ışık")  # noqa: RUF001
    assert analysis_of(OTHER).terms("한국어 ＡＢＣ") == ["한국어", "abc"]  # noqa: RUF001


@pytest.mark.parametrize(
    ("name", "text", "typed"),
    [
        ("th", "ทำไมขนมปัง", ["ทำไ", "ำไม", "ไมข", "มขน", "ขนม", "นมปั", "มปัง"]),  # its AM is two signs in NFKC
        ("ja", "ﾃﾞｰﾀの半角ｶﾀｶﾅＡＢＣ", ["ﾃﾞｰﾀ", "半角", "ｶﾀｶﾅ", "ＡＢＣ"]),  # noqa: RUF001
        ("de", "Cafe\u0301s ﬁnden", ["Cafe\u0301s", "ﬁnden"]),
        ("ko", "\u1107\u1161\u11bc 방", ["\u1107\u1161\u11bc", "방"]),
        (OTHER, "😀 ﬃx e\u0301a", ["😀", "ﬃx", "e\u0301a"]),
        (ENGLISH, "Cafe\u0301 houses", ["Cafe\u0301", "houses"]),
    ],
)
def test_terms_have_the_characters_that_were_typed(name: str, text: str, typed: list[str]) -> None:
    found = analysis_of(name).tokens(text)
    assert [text[start:end] for _, start, end in found] == typed
    assert [token.term for token in found] == analysis_of(name).terms(text)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("Welche Familien wohnten im alten Haus am Fluss?", "de"),
        ("old house by the rivers", "en"),
        ("¿Qué familia vivía en la casa antigua?", "es"),
        ("古い家に住んでいた家族", "ja"),
        ("บ้านเก่าริมแม่น้ำ", "th"),
        ("Nehrin kenarındaki eski evler", "tr"),  # noqa: RUF001
        ("老房子里的家庭", "zh"),
    ],
)
def test_each_document_of_a_mixed_collection_is_found_in_its_language(mixed: Path, query: str, first: str) -> None:
    with Retriever.open(mixed) as retriever:
        hits = retriever.search(query, mode="bm25", explain=True)
    assert hits[0].doc_id == first
    assert sum(match.contribution for match in hits[0].terms) == pytest.approx(hits[0].score, rel=1e-5)


def test_what_languages_were_found_is_said(mixed: Path) -> None:
    info = describe(mixed)
    assert info.analyzer == "auto"
    assert info.languages == dict.fromkeys(["de", "en", "es", "ja", "th", "tr", "zh"], 1)
    assert not verify_folder(mixed).damages


def test_deleted_documents_leave_the_ranking_as_if_they_had_never_been(tmp_path: Path, mixed: Path) -> None:
    folder = tmp_path / "index"
    build_index(DOCUMENTS, folder, encoder="none", config=IndexingConfig(language="auto"))
    with IndexWriter.open(folder) as writer:
        writer.add([Document(f"x{i}", f"{document.text} Haus casa house ev") for i, document in enumerate(DOCUMENTS)])
        writer.commit()
        writer.delete([f"x{i}" for i in range(len(DOCUMENTS))])
        writer.commit()
    assert describe(folder).languages == describe(mixed).languages
    with Retriever.open(folder) as changed, Retriever.open(mixed) as fresh:
        for query in ("Haus", "alte Familien mit Kindern am Fluss", "祖父母", "แม่น้ำ"):
            found, expected = ([(hit.doc_id, hit.score) for hit in one.search(query)] for one in (changed, fresh))
            assert [doc_id for doc_id, _ in found] == [doc_id for doc_id, _ in expected]
            assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=2e-6)


@pytest.mark.parametrize(
    ("query", "doc_id", "marked"),
    [
        ("altes Haus", "de", ["alten", "Häusern"]),
        ("古い家", "ja", ["古い家"]),
        ("บ้านเก่า", "th", ["บ้านเก่า"]),
        ("老房子", "zh", ["老房子"]),
    ],
)
def test_words_of_the_query_are_marked_in_every_language(
    mixed: Path, query: str, doc_id: str, marked: list[str]
) -> None:
    with Retriever.open(mixed) as retriever:
        [hit] = retriever.search(query, mode="bm25", filter=f"id = {doc_id}", highlight=True)
    assert [hit.text[start:end] for start, end in hit.highlights] == marked
