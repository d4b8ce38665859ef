"""Data sets to evaluate on: BEIR folders here, the other kinds in `dataset_sources`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.queries import load_queries
from retriever.eval.data.dataset import Dataset, judged
from retriever.eval.data.qrels import judgements, read_qrels
from retriever.types import UserError

if TYPE_CHECKING:
    pass

__all__ = ["load_dataset", "read_qrels"]


def load_dataset(spec: str | Path, split: str = "test") -> Dataset:
    """Read queries and judgements of one split of a data set.

    spec: a BEIR folder (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv, each also as .gz); "hf:NAME", BEIR's layout on
    the hub; "ir:ID" of ir_datasets; or a YAML file that names the files of a TREC or MS MARCO collection (see
    `dataset_sources.from_yaml`).

    What is wrong with a line of queries or judgements is an error that names it; so is a judged query that does not
    exist, because no system could answer it. Judged documents that do not exist are no error, as public sets have some:
    where relevant they are never found, as in trec_eval. `judged_documents` lists all, for a caller to count these.

    Raises:
        UserError: says what is missing or wrong, and where.
    """
    from retriever.eval.data import dataset_sources

    for prefix, load in (("hf:", dataset_sources.from_hub), ("ir:", dataset_sources.from_ir_datasets)):
        if str(spec) == prefix:
            raise UserError(f"{prefix} names no data set; give {prefix}NAME")
        if str(spec).startswith(prefix):
            return load(str(spec).removeprefix(prefix), split)
    path = Path(spec)
    if path.suffix in (".yaml", ".yml"):
        return dataset_sources.from_yaml(path, split)
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder; give a BEIR folder (corpus.jsonl, queries.jsonl, qrels/), hf:NAME, ir:ID or a"
            " YAML file that names corpus, queries and qrels"
        )
    return _from_folder(path, split)


def _from_folder(folder: Path, split: str) -> Dataset:
    corpus = _file_or_gz(folder / "corpus.jsonl")
    queries = load_queries(_file_or_gz(folder / "queries.jsonl"), allow_empty=True)
    qrels = _split_path(folder, split)
    return judged(folder.resolve().name, corpus, queries, judgements(qrels), str(qrels))


def _file_or_gz(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and not packed.is_file():
        raise UserError(f"{path}: no such file; a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/")
    return path if path.is_file() else packed


def _split_path(folder: Path, split: str) -> Path:
    found = {path.name.removesuffix(".gz").removesuffix(".tsv"): path for path in _split_files(folder)}
    if split not in found:
        splits = ", ".join(sorted(found)) or "none"
        raise UserError(f"{folder / 'qrels'}: no split {split!r}; splits found: {splits}")
    return found[split]


def _split_files(folder: Path) -> list[Path]:
    # The plain file comes last, so that it wins if both exist.
    return [*(folder / "qrels").glob("*.tsv.gz"), *(folder / "qrels").glob("*.tsv")]
