"""A BEIR folder from the held-out part of a file of pairs: questions that training never saw, and distractors."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import defaultdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.corpus.corpus import open_corpus
from retriever.corpus.formats import read_jsonl, suffix_of
from retriever.files import atomic_file
from retriever.train.data.pairs import HELD_OUT_PERCENT, held_out, normalised, read_pairs
from retriever.train.data.passages import passage_id
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

__all__ = ["HoldoutReport", "write_holdout"]

QRELS_HEADER = "query-id\tcorpus-id\tscore"


class HoldoutReport(NamedTuple):
    """What was written.

    questions, answers: those of the held-out part, each distinct text once. distractors: further passages.
    seen: held-out questions left out because they stand in the training part too, with another passage.
    """

    questions: int
    answers: int
    distractors: int
    seen: int


def write_holdout(
    pairs: str | Path,
    folder: str | Path,
    *,
    percent: int = HELD_OUT_PERCENT,
    distractors: int = 1000,
    corpora: Sequence[str | Path] = (),
) -> HoldoutReport:
    """Write corpus.jsonl, queries.jsonl and qrels/test.tsv, the same for the same files.

    The corpus has every held-out passage, at most `distractors` passages of the training part, and as many of each of
    `corpora` (files of pairs, of which the positives are taken, or anything that `open_corpus` opens), those with the
    lowest hash. Memory grows with the held-out part and the distractors, not with the files.

    Raises:
        UserError: a file cannot be read, nothing is held out, or the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: the output folder is not empty; choose another, or remove it")
    questions: dict[str, str] = {}  # normalised -> as first written
    answers: defaultdict[str, dict[str, None]] = defaultdict(dict)  # normalised question -> its passages, in order
    passages: dict[str, None] = {}
    for record in read_pairs(pairs):
        query, positive = record.example.query, record.example.positive
        if held_out(positive, percent):
            questions.setdefault(normalised(query), query.strip())
            answers[normalised(query)][positive] = None
            passages[positive] = None
    seen = _also_in_training(pairs, percent, questions)
    unseen = [question for question in questions if question not in seen]
    if not unseen:
        raise UserError(f"{pairs}: no question is held out of training; give a larger file, or a higher percentage")
    others = _distractors([pairs, *corpora], distractors, {normalised(passage) for passage in passages})
    query_ids = {question: f"q{number}" for number, question in enumerate(unseen, start=1)}
    (folder / "qrels").mkdir(parents=True)
    _write_lines(folder / "corpus.jsonl", (_record(passage_id(text), text) for text in chain(passages, others)))
    _write_lines(folder / "queries.jsonl", (_record(query_ids[question], questions[question]) for question in unseen))
    judged = (
        f"{query_ids[question]}\t{passage_id(passage)}\t1" for question in unseen for passage in answers[question]
    )
    _write_lines(folder / "qrels" / "test.tsv", chain([QRELS_HEADER], judged))
    return HoldoutReport(len(unseen), len(passages), len(others), len(seen))


def _also_in_training(pairs: str | Path, percent: int, questions: Container[str]) -> set[str]:
    """Return those of the (normalised) questions that the training split holds as well."""
    training = (record.example for record in read_pairs(pairs) if not held_out(record.example.positive, percent))
    return {question for question in (normalised(example.query) for example in training) if question in questions}


def _distractors(files: Sequence[str | Path], count: int, known: set[str]) -> list[str]:
    """Return `count` texts of each file that are not known (normalised), nor the same as one before."""
    found: list[str] = []
    for file in files:
        kept: dict[str, str] = {}  # hash -> text
        lowest: list[int] = []  # the hashes negated: a heap whose top is the highest hash
        for text in _passages(file) if count else ():
            key = normalised(text)
            digest = hashlib.sha256(f"distractor {key}".encode()).hexdigest()
            if key in known or digest in kept or (len(kept) == count and int(digest, 16) > -lowest[0]):
                continue
            kept[digest] = text
            heapq.heappush(lowest, -int(digest, 16))
            if len(kept) > count:
                del kept[f"{-heapq.heappop(lowest):064x}"]
        found += [kept[digest] for digest in sorted(kept)]
        known = known | {normalised(text) for text in kept.values()}
    return found


def _passages(file: str | Path) -> Iterator[str]:
    """Yield the positives of a file of pairs, or the contents of the documents of a corpus that are not empty."""
    path = Path(file)
    if path.is_file() and suffix_of(path) in (".jsonl", ".jsonl.gz"):
        first = next(islice(read_jsonl(path), 1), None)
        if first is not None and first.fields is not None and "positive" in first.fields:
            yield from (record.example.positive for record in read_pairs(path))
            return
    for source, document, problem in open_corpus(file):
        if document is None:
            raise UserError(f"{source}: {problem}")
        if document.contents:
            yield document.contents


def _record(record_id: str, text: str) -> str:
    return json.dumps({"_id": record_id, "text": text}, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_file(path) as file:
        for line in lines:
            file.write(line.encode() + b"\n")
