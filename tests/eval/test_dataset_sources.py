"""Data sets of the hub, of ir_datasets and of TREC and MS MARCO files; all of them are local here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from retriever.corpus.corpus import open_corpus
from retriever.eval.data.dataset import Dataset, asked_by
from retriever.eval.data.datasets import load_dataset
from retriever.types import Query, UserError

DOCUMENTS = {"d1": "one", "d2": "two", "d3": "three"}
TOPICS = """
<top>
<head> Tipster Topic Description
<num> Number: 301
<title> Topic: International
 Organized Crime

<desc> Description:
Identify organizations.
</top>

<TOP>
<NUM>302</NUM>
<TITLE>Poliomyelitis</TITLE>
</TOP>
"""


def corpus_of(dataset: Dataset) -> dict[str, str]:
    """Return the texts by id of the corpus that a data set names."""
    documents = [record.document for record in open_corpus(dataset.corpus)]
    return {document.doc_id: document.text for document in documents if document is not None}


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def hub(folder: Path, qrels: list[dict[str, object]], name: str = "arguana") -> str:
    """Write the two data sets that BEIR has on the hub as local ones; ids are whole numbers, as some are there."""
    jsonl(
        folder / name / "corpus.jsonl", [{"_id": n, "title": "", "text": t} for n, t in enumerate(DOCUMENTS.values())]
    )
    jsonl(folder / name / "queries.jsonl", [{"_id": 7, "title": "", "text": "seven"}, {"_id": 8, "text": "eight"}])
    configs = "".join(
        f"- config_name: {part}\n  data_files:\n  - split: {part}\n    path: {part}.jsonl\n"
        for part in ("corpus", "queries")
    )
    (folder / name / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    jsonl(folder / f"{name}-qrels" / "test.jsonl", qrels)
    return f"hf:{folder / name}"


@pytest.mark.filterwarnings("ignore")  # of datasets and its libraries
def test_the_layout_of_the_hub(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"query-id": 8, "corpus-id": n, "score": n} for n in (1, 2)]
    spec = hub(tmp_path, rows)
    dataset = load_dataset(spec)
    assert dataset.name == "arguana" and dataset.exclude_self
    assert dataset.queries == [Query("8", "eight")]
    assert dataset.qrels == {"8": {"1": 1, "2": 2}}
    assert corpus_of(dataset) == dict(zip("012", DOCUMENTS.values(), strict=True))
    assert load_dataset(Path(spec)) == dataset
    with pytest.raises(UserError, match="cannot be loaded"):
        load_dataset(spec, "dev")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_dataset(f"hf:{tmp_path}/none")


def mteb(folder: Path, prefix: str = "", qrels: str = "qrels", split: str = "test") -> str:
    """Write a data set as MTEB lays them out, in one place: its configurations, with `prefix` before their names."""
    parts: dict[str, list[dict[str, object]]] = {
        f"{prefix}corpus": [{"_id": key, "title": "", "text": text} for key, text in DOCUMENTS.items()],
        f"{prefix}queries": [{"_id": "q1", "text": f"{prefix}one"}, {"_id": "q2", "text": "not judged"}],
        f"{prefix}{qrels}": [{"query-id": "q1", "corpus-id": "d2", "score": 1}],
    }
    configs = ""
    for part, rows in parts.items():
        jsonl(folder / f"{part}.jsonl", rows)
        name = "train" if part.endswith("corpus") else split
        configs += f"- config_name: {part}\n  data_files:\n  - split: {name}\n    path: {part}.jsonl\n"
    card = folder / "README.md"
    before = card.read_text().removesuffix("---\n") if card.exists() else "---\nconfigs:\n"
    card.write_text(f"{before}{configs}---\n")
    return f"hf:{folder}"


@pytest.mark.filterwarnings("ignore")
def test_the_layout_of_mteb_in_one_place(tmp_path: Path) -> None:
    """As BSARD and BEIR-NL have it: judgements are the configuration "qrels" or "default"."""
    for qrels in ("qrels", "default"):
        dataset = load_dataset(mteb(tmp_path / qrels / "BSARDRetrieval", qrels=qrels))
        assert dataset.name == "bsardretrieval"
        assert dataset.queries == [Query("q1", "one")] and dataset.qrels == {"q1": {"d2": 1}}
        assert corpus_of(dataset) == DOCUMENTS
    with pytest.raises(UserError, match="cannot be loaded"):
        load_dataset(f"hf:{tmp_path / 'qrels' / 'BSARDRetrieval'}", "dev")


@pytest.mark.filterwarnings("ignore")
def test_the_layout_of_mteb_with_several_languages(tmp_path: Path) -> None:
    """As MIRACL, Mr.TyDi and NeuCLIR have it: each language has configurations of its own."""
    for language in ("ar-", "zh-"):
        spec = mteb(tmp_path / "MIRACLRetrieval", language, split="dev")
    dataset = load_dataset(f"{spec}:zh", "dev")
    assert dataset.name == "miraclretrieval-zh"
    assert dataset.queries == [Query("q1", "zh-one")] and dataset.qrels == {"q1": {"d2": 1}}
    assert corpus_of(dataset) == DOCUMENTS
    with pytest.raises(UserError, match="has no such part; choose one of ar, zh"):
        load_dataset(f"{spec}:de", "dev")


@pytest.mark.filterwarnings("ignore")
def test_the_layout_with_languages_as_splits(tmp_path: Path) -> None:
    """As CLIRudit has it: English queries for French articles and for their translations, TREC's columns."""
    french: list[dict[str, object]] = [
        {"docid": key, "title": "", "subtitle": "s", "abstract": text} for key, text in DOCUMENTS.items()
    ]
    splits: dict[str, list[dict[str, object]]] = {
        "docs/fr.test": french,
        "docs/en.test": [{**row, "abstract": "en"} for row in french],
        "queries/en.test": [{"qid": 1, "query": "one"}, {"qid": 2, "query": "two"}],
        "qrels/en_fr.test": [{"qid": 1, "docid": "d1", "rel": 1}],
        "qrels/en_en.test": [{"qid": 2, "docid": "d2", "rel": 1}],
    }
    configs = ""
    for part in ("docs", "queries", "qrels"):
        configs += f"- config_name: {part}\n  data_files:\n"
        for split, rows in splits.items():
            if split.startswith(f"{part}/"):
                jsonl(tmp_path / "clirudit" / f"{split}.jsonl", rows)
                configs += f"  - split: {split.rpartition('/')[2]}\n    path: {split}.jsonl\n"
    (tmp_path / "clirudit" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    dataset = load_dataset(f"hf:{tmp_path}/clirudit:fr")
    assert dataset.name == "clirudit-fr"
    assert dataset.queries == [Query("1", "one")] and dataset.qrels == {"1": {"d1": 1}}
    assert corpus_of(dataset) == DOCUMENTS
    assert load_dataset(f"hf:{tmp_path}/clirudit:en").qrels == {"2": {"d2": 1}}
    with pytest.raises(UserError, match="has no such part; choose one of en, fr"):
        load_dataset(f"hf:{tmp_path}/clirudit")


def test_the_same_questions_in_another_language(tmp_path: Path) -> None:
    def made(name: str, texts: dict[str, str]) -> Dataset:
        folder = tmp_path / name
        jsonl(folder / "corpus.jsonl", [{"_id": "d1", "text": "river"}])
        jsonl(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in texts.items()])
        (folder / "qrels").mkdir()
        lines = "".join(f"{key}\td1\t1\n" for key in texts)
        (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
        return load_dataset(folder)

    english, german = made("x-en", {"1": "river", "2": "sea"}), made("x-de", {"2": "Meer", "1": "Fluss", "3": "Wald"})
    crossed = asked_by(english, german)
    assert crossed.name == "x-de in x-en" and crossed.qrels == english.qrels and crossed.corpus == english.corpus
    assert crossed.queries == [Query("1", "Fluss"), Query("2", "Meer")]
    with pytest.raises(UserError, match=r"x-en: has no judged query '3', as x-de has \(1 such queries\)"):
        asked_by(german, english)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query-id": 8, "corpus-id": 1, "score": 1.5}, r"test-qrels:row 2: grade '1\.5' is not an integer"),
        ({"query-id": 9, "corpus-id": 1, "score": 1}, "test-qrels:row 2: query '9' is not among the queries of test"),
        ({"query-id": 8, "corpus-id": 0, "score": 2}, "test-qrels:row 2: query '8' and document '0' have grade 2 here"),
    ],
)
def test_bad_judgements_of_the_hub_name_their_row(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(hub(tmp_path, [{"query-id": 8, "corpus-id": 0, "score": 1.0}, row], "test"))


@pytest.mark.filterwarnings("ignore")
def test_a_hub_data_set_without_the_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test-qrels:row 1: no field corpus-id; need query-id, corpus-id and score"):
        load_dataset(hub(tmp_path, [{"query-id": 8, "doc": 0, "score": 1}], "test"))


def trec(folder: Path, **changes: object) -> Path:
    """Write a TREC collection and the YAML file that names its parts."""
    folder.mkdir(exist_ok=True)
    jsonl(folder / "docs" / "corpus.jsonl", [{"docno": key, "text": text} for key, text in DOCUMENTS.items()])
    (folder / "topics.301-302.txt").write_text(TOPICS)
    (folder / "qrels.txt").write_text("301 0 d1 1\n301 0 d2 0\n302 0 d9 2\n")
    values = {"corpus": "docs/corpus.jsonl", "queries": "topics.301-302.txt", "qrels": "qrels.txt"} | changes
    path = folder / "robust.yaml"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return path


def test_trec_topics_and_qrels(tmp_path: Path) -> None:
    dataset = load_dataset(trec(tmp_path))
    assert dataset.name == "robust" and not dataset.exclude_self
    assert dataset.queries == [Query("301", "International Organized Crime"), Query("302", "Poliomyelitis")]
    assert dataset.qrels == {"301": {"d1": 1, "d2": 0}, "302": {"d9": 2}}
    assert corpus_of(dataset) == DOCUMENTS
    assert load_dataset(trec(tmp_path, name="arguana")).exclude_self
    assert not load_dataset(trec(tmp_path, name="arguana", exclude_self=False)).exclude_self


def test_ms_marco_files(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text('0\tone "1\n1\ttwo\n')
    (tmp_path / "queries.dev.tsv").write_text("10\thow many\n11\twhich\n")
    (tmp_path / "qrels.dev.tsv.gz").write_bytes(gzip.compress(b"11\t0\t1\t1\n"))
    path = tmp_path / "marco.yaml"
    path.write_text("corpus: collection.tsv\nqueries: {dev: queries.dev.tsv}\nqrels: {dev: qrels.dev.tsv.gz}\n")
    dataset = load_dataset(str(path), "dev")
    assert (dataset.queries, dataset.qrels) == ([Query("11", "which")], {"11": {"1": 1}})
    assert corpus_of(dataset) == {"0": 'one "1', "1": "two"}
    with pytest.raises(UserError, match=r"marco\.yaml: queries has no split 'test'; splits found: dev"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": None}, r"robust\.yaml: no corpus; give corpus, queries and qrels"),
        ({"corpus": "nothing"}, r"robust\.yaml: no corpus at .*nothing"),
        ({"topics": "x"}, r"robust\.yaml: unknown setting 'topics'"),
        ({"qrels": 3}, r"robust\.yaml: qrels is 3, need str or Mapping"),
        ({"queries": "nothing.tsv"}, r"nothing\.tsv: no such query file"),
        ({"qrels": "nothing.txt"}, r"nothing\.txt: no such file"),
    ],
)
def test_faults_of_the_yaml_file(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(trec(tmp_path, **change))


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        (TOPICS.replace("</TOP>", ""), r"topics\.301-302\.txt:12: a <top> without its </top>"),
        (TOPICS.replace("</top>", ""), r"topics\.301-302\.txt:2: a <top> without its </top>"),
        (TOPICS.replace("<NUM>", "<ID>"), r"topics\.301-302\.txt:12: a topic with id, title, need <num> and <title>"),
        (TOPICS.replace("302", "301"), r"topics\.301-302\.txt:12: the id '301' stands already at .*:2"),
    ],
)
def test_faults_of_topics_name_the_line_where_the_topic_begins(tmp_path: Path, topics: str, message: str) -> None:
    path = trec(tmp_path)
    (tmp_path / "topics.301-302.txt").write_text(topics)
    with pytest.raises(UserError, match=message):
        load_dataset(path)


@pytest.fixture
def ir_id(tmp_path: Path) -> str:
    """Register a data set of local files with ir_datasets; return its id."""
    import ir_datasets

    (tmp_path / "docs.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in DOCUMENTS.items()))
    (tmp_path / "queries.tsv").write_text("q1\tfirst\nq2\tsecond\n")
    (tmp_path / "qrels").write_text("q2 0 d1 1\nq2 0 d7 0\n")
    parts = {"docs_tsv": str(tmp_path / "docs.tsv")}
    judged = parts | {"queries_tsv": str(tmp_path / "queries.tsv"), "qrels_trec": str(tmp_path / "qrels")}
    name = f"beir/{tmp_path.name}"
    ir_datasets.registry.register(name, ir_datasets.create_dataset(**parts))
    ir_datasets.registry.register(f"{name}/test", ir_datasets.create_dataset(**judged))
    return name


@pytest.mark.filterwarnings("ignore")
def test_an_id_of_ir_datasets(ir_id: str) -> None:
    dataset = load_dataset(f"ir:{ir_id}")
    assert dataset.name == ir_id.removeprefix("beir/")
    assert dataset.queries == [Query("q2", "second")]
    assert dataset.qrels == {"q2": {"d1": 1, "d7": 0}}
    assert corpus_of(dataset) == DOCUMENTS
    assert load_dataset(f"ir:{ir_id}/test", "any") == dataset
    with pytest.raises(UserError, match="ir_datasets knows no such data set"):
        load_dataset(f"ir:{ir_id}", "dev")
    with pytest.raises(UserError, match="ir:nothing: ir_datasets knows no such data set"):
        list(open_corpus("ir:nothing"))
