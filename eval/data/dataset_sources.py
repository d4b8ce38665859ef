"""Data sets that are no BEIR folders: on the hub, of ir_datasets, and files of TREC and MS MARCO collections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.config import from_mapping, load_yaml
from retriever.corpus.arrow import config_names, read_hf, split_names
from retriever.corpus.ir_datasets import ir_errors, load_ir
from retriever.corpus.queries import load_queries, unique_queries
from retriever.eval.data.dataset import Dataset, judged
from retriever.eval.data.qrels import Judgement, judgements, parse_grade
from retriever.types import Query, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from retriever.corpus.formats import Row

__all__ = ["from_hub", "from_ir_datasets", "from_yaml"]

SPLITS = ("train", "dev", "validation", "test")


def from_hub(name: str, split: str) -> Dataset:
    """Load one of the layouts that retrieval data sets have on the hub.

    `name` is NAME or, of a data set with several languages, NAME:LANGUAGE; NAME may be a local folder. Documents,
    queries and judgements are the configurations "corpus", "queries" and "qrels" (or "default") of NAME, with
    "LANGUAGE-" before each where one is named, as MTEB lays them out; or, as BEIR does, the splits of NAME-qrels; or
    "docs", "queries" and "qrels" with TREC's columns and a split for each language, as CLIRudit has them.
    """
    name, _, part = name.partition(":")
    configs, prefix = config_names(name), f"{part}-" if part else ""
    if {"docs", "queries", "qrels"} <= set(configs):
        return _languages_as_splits(name, part, split)
    if part and f"{prefix}corpus" not in configs:
        parts = sorted(config.removesuffix("-corpus") for config in configs if config.endswith("-corpus"))
        raise UserError(f"hf:{name}:{part}: has no such part; choose one of {', '.join(parts) or 'none'}")
    judged_here = next((f"{prefix}{config}" for config in ("qrels", "default") if f"{prefix}{config}" in configs), None)
    rows = (
        row._replace(fields={key: str(value) if type(value) is int else value for key, value in row.fields.items()})
        if row.fields
        else row
        for row in read_hf(name, f"{prefix}queries/", preferred=(split, "queries"))  # ids may be whole numbers there
    )
    source, found = (
        (f"{name}-qrels", read_hf(f"{name}-qrels", split))
        if judged_here is None
        else (f"{name}:{judged_here}", read_hf(name, f"{judged_here}/{split}"))
    )
    return judged(
        "-".join(filter(None, (Path(name).name.lower(), part))),
        f"hf:{name}:{prefix}corpus/",
        unique_queries(f"hf:{name}", rows, allow_empty=True),
        _hub_judgements(found),
        f"hf:{source}, split {split}",
    )


def _languages_as_splits(name: str, part: str, split: str) -> Dataset:
    """Load documents of the split LANGUAGE.SPLIT, queries of ASKED.SPLIT, judgements of ASKED_LANGUAGE.SPLIT."""
    ending = f".{split}"
    pairs = [one.removesuffix(ending).split("_") for one in split_names(name, "qrels") if one.endswith(ending)]
    found = {documents: asked for asked, documents in reversed(pairs)}
    if part not in found:
        raise UserError(f"hf:{name}:{part}: has no such part; choose one of {', '.join(sorted(found)) or 'none'}")
    columns = {"qid": "query-id", "docid": "corpus-id", "rel": "score"}
    return judged(
        f"{Path(name).name.lower()}-{part}",
        f"hf:{name}:docs/{part}{ending}",
        unique_queries(f"hf:{name}", _renamed(name, f"queries/{found[part]}{ending}", {"qid": "id", "query": "text"})),
        _hub_judgements(_renamed(name, f"qrels/{found[part]}_{part}{ending}", columns)),
        f"hf:{name}:qrels/{found[part]}_{part}{ending}",
    )


def _renamed(name: str, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
    for row in read_hf(name, split):
        fields = row.fields and {columns.get(key, key): value for key, value in row.fields.items()}
        yield row._replace(fields=fields)


def _hub_judgements(rows: Iterable[Row]) -> Iterator[Judgement]:
    for source, fields, problem in rows:
        missing = {"query-id", "corpus-id", "score"} - (fields or {}).keys()
        if fields is None or missing:
            raise UserError(f"{source}: {problem or f'no field {min(missing)}'}; need query-id, corpus-id and score")
        yield Judgement(source, str(fields["query-id"]), str(fields["corpus-id"]), _grade(source, fields["score"]))


def _grade(source: str, value: Any) -> int:
    return parse_grade(source, str(int(value) if isinstance(value, float) and value.is_integer() else value))


def from_ir_datasets(name: str, split: str) -> Dataset:
    """Load an id of ir_datasets that has judgements, or ID/SPLIT where only that has; queries are their short form."""
    dataset = load_ir(name)
    if not (dataset.has_qrels() and dataset.has_queries()):
        name = f"{name}/{split}"
        dataset = load_ir(name)
    if not (dataset.has_qrels() and dataset.has_queries() and dataset.has_docs()):
        raise UserError(f"ir:{name}: lacks documents, queries or judgements; give an id that has all three")

    def queries() -> Iterator[Query]:
        with ir_errors(name):
            yield from (Query(query.query_id, query.default_text()) for query in dataset.queries_iter())

    def found() -> Iterator[Judgement]:
        with ir_errors(name):
            for number, qrel in enumerate(dataset.qrels_iter(), start=1):
                source = f"ir:{name}:judgement {number}"
                yield Judgement(source, qrel.query_id, qrel.doc_id, parse_grade(source, str(qrel.relevance)))

    words = [word for word in name.split("/") if word not in SPLITS]
    short = "-".join(words[1:] if words[0] == "beir" and len(words) > 1 else words)
    return judged(short, f"ir:{name}", queries(), found(), f"ir:{name}")


@dataclass(frozen=True)
class Collection:
    """What a YAML file of a collection says; paths are relative to it.

    corpus: anything that `retriever index` takes. queries: JSONL, TSV or TREC topics. qrels: TREC's or BEIR's columns.
    queries and qrels may each map splits to files. name: the file's own without one. exclude_self: the registry's
    without one.
    """

    corpus: str
    queries: str | Mapping[str, str]
    qrels: str | Mapping[str, str]
    name: str = ""
    exclude_self: bool | None = None


def from_yaml(path: Path, split: str) -> Dataset:
    """Load a collection from its files, such as those of TREC and MS MARCO.

    Examples:
        corpus: collection.tsv
        queries: {dev: queries.dev.tsv}
        qrels: {dev: qrels.dev.tsv}
    """
    values = load_yaml(path)
    missing = [key for key in ("corpus", "queries", "qrels") if key not in values]
    if missing:
        raise UserError(f"{path}: no {missing[0]}; give corpus, queries and qrels, paths relative to this file")
    found = from_mapping(Collection, values, str(path))
    corpus: Path | str = found.corpus
    if not found.corpus.startswith(("hf:", "ir:")):
        corpus = path.parent / found.corpus
        if not corpus.exists():
            raise UserError(f"{path}: no corpus at {corpus}; give a path relative to this file")
    queries, qrels = (path.parent / _of_split(path, key, values[key], split) for key in ("queries", "qrels"))
    return judged(
        found.name or path.stem,
        corpus,
        load_queries(queries, allow_empty=True),
        judgements(qrels),
        str(qrels),
        found.exclude_self,
    )


def _of_split(path: Path, key: str, files: str | Mapping[str, str], split: str) -> str:
    if isinstance(files, str):
        return files
    if split not in files:
        raise UserError(f"{path}: {key} has no split {split!r}; splits found: {', '.join(map(str, files)) or 'none'}")
    return str(files[split])
