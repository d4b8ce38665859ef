"""Hard negatives: passages that our own search finds for a question and that do not answer it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.train.data.pairs import held_out, normalised, read_pairs
from retriever.train.data.passages import DOCUMENT_FIELD
from retriever.train.data.resumable import Rewriting
from retriever.train.data.scoring import DECIMALS, Candidates, dense_teacher
from retriever.types import Query, UserError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from retriever.index.contract import IndexReader
    from retriever.search.retriever import Retriever
    from retriever.train.data.pairs import Example, PairRecord
    from retriever.train.data.scoring import DenseTeacher
    from retriever.types import Encoder, ScoredDoc

__all__ = ["MiningConfig", "mine_pairs", "too_close"]

ROUNDS = 3
"""How often what the teacher dropped is made up for by further candidates."""


@dataclass(frozen=True)
class MiningConfig:
    """What to mine.

    mode: how the index is searched. first_rank, depth: the band of ranks that negatives are sampled from; the very
    first are often answers that nobody marked, so NV-Retriever (Moreira et al. 2024) begins at the tenth.
    negatives: how many for each question. margin: with a teacher, a candidate above this share of the positive's score
    is taken for an unmarked answer and dropped.
    """

    mode: str = "hybrid"
    first_rank: int = 10
    depth: int = 100
    negatives: int = 8
    margin: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything is read."""
        if not 1 <= self.first_rank <= self.depth:
            raise UserError(
                f"the ranks {self.first_rank} to {self.depth} are no band; give a first rank of 1 to the depth"
            )
        if self.negatives < 1 or not 0 < self.margin <= 1:
            raise UserError(f"negatives {self.negatives}, margin {self.margin}: need 1 or more, and above 0 to 1")


def too_close(score: float, positive: float, margin: float) -> bool:
    """Say whether a candidate's score is above `margin` times the positive's ("TopK-PercPos", Moreira et al. 2024).

    For a positive's score below 0 the threshold lies below it by the same share of its size.

    >>> too_close(0.77, 0.8, 0.95), too_close(0.75, 0.8, 0.95)
    (True, False)
    """
    return score > positive - (1 - margin) * abs(positive)


def mine_pairs(
    pairs: str | Path,
    output: str | Path,
    retriever: Retriever,
    config: MiningConfig | None = None,
    teacher: Encoder | None = None,
    *,
    progress: bool = False,
) -> int:
    """Write the pairs with `negatives` mined anew, and with the teacher's `scores` if there is one; return how many.

    No negative has the text of a positive of the same question, or is from the positive's document; none is held out
    of training. A question for which too few are left gets fewer. A call after an interruption continues where it
    stopped (RocketQA, Qu et al. 2021: negatives denoised by a stronger model).

    Raises:
        UserError: a bad line, an index that cannot answer in this mode, an output that is there or was begun otherwise.
    """
    config = config or MiningConfig()
    # A question may stand in the file with several answers. Their digests are kept, not their texts.
    answers = {_answer(record.example.query, record.example.positive) for record in read_pairs(pairs)}
    settings = {
        **asdict(config),
        "index": f"{Path(retriever.reader.path).resolve()} at commit {retriever.reader.commit_data.number}",
        "teacher": teacher and teacher.identity.sha256,
    }
    with Rewriting(pairs, output, settings) as rewriting:
        judge = None if teacher is None else dense_teacher(teacher, rewriting)
        rewriting.run(lambda records: _mine(records, retriever, config, answers, judge), progress=progress)
        return rewriting.finish()


def _mine(
    records: list[PairRecord],
    retriever: Retriever,
    config: MiningConfig,
    answers: Container[int],
    judge: DenseTeacher | None,
) -> list[dict[str, Any]]:
    examples = [record.example for record in records]
    queries = [Query(str(place), example.query) for place, example in enumerate(examples)]
    rankings = [found.ranking for found in retriever.rank(queries, config.depth, mode=config.mode)]
    offers = [
        _offers(example, ranking[config.first_rank - 1 :], retriever.reader, answers, config.seed)
        for example, ranking in zip(examples, rankings, strict=True)
    ]
    if judge is None:
        mined = [_Mined(list(islice(offer, config.negatives)), []) for offer in offers]
    else:
        mined = _denoised(examples, offers, judge, config)
    return [_fields(record, found) for record, found in zip(records, mined, strict=True)]


def _answer(query: str, passage: str) -> int:
    digest = hashlib.sha256(f"{normalised(query)}\n{normalised(passage)}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _offers(
    example: Example, band: Sequence[ScoredDoc], reader: IndexReader, answers: Container[int], seed: int
) -> Iterator[str]:
    """Yield the fair negatives of a band of a ranking, in the order of a draw that the seed and the pair decide.

    A document is fetched when it is needed.
    """
    ids = [hit.doc_id for hit in band]
    random.Random(f"{seed}\n{example.query}\n{example.positive}").shuffle(ids)
    given: set[str] = set()
    for doc_id in ids:
        document = reader.documents([doc_id])[doc_id]
        # To the letter where there is no title: what is held out goes by it.
        text = document.contents if document.title else document.text
        # In the file of pairs a passage may stand with its title or without it.
        is_answer = any(_answer(example.query, form) in answers for form in (text, document.text))
        same_document = bool(example.document) and document.metadata.get(DOCUMENT_FIELD) == example.document
        if not (is_answer or same_document or held_out(text) or normalised(text) in given):
            given.add(normalised(text))
            yield text


class _Mined(NamedTuple):
    """Negatives, and a teacher's scores of the positive and of them."""

    negatives: list[str]
    scores: list[float]


def _denoised(
    examples: Sequence[Example], offers: Sequence[Iterator[str]], judge: DenseTeacher, config: MiningConfig
) -> list[_Mined]:
    """Return for each example the first negatives on offer that the teacher does not take for answers.

    Only as many are scored at a time as are still wanted: a teacher is slow.
    """
    judge.begin_block()
    mined = [_Mined([], []) for _ in examples]
    for _ in range(ROUNDS):
        lists = [
            Candidates(example.query, (example.positive, *islice(offer, config.negatives - len(found.negatives))))
            for example, offer, found in zip(examples, offers, mined, strict=True)
        ]
        for item, (positive, *others), found in zip(lists, judge.scores(lists), mined, strict=True):
            if not found.scores:
                found.scores.append(positive)
            for text, score in zip(item.passages[1:], others, strict=True):
                if not too_close(score, positive, config.margin):
                    found.negatives.append(text)
                    found.scores.append(score)
    return mined


def _fields(record: PairRecord, mined: _Mined) -> dict[str, Any]:
    """Return the fields with new negatives; the scores of the old ones go."""
    fields = {key: value for key, value in record.fields.items() if key != "scores"} | {"negatives": mined.negatives}
    scores = [round(score, DECIMALS) for score in mined.scores]
    return fields | {"scores": scores} if scores else fields
