"""A data set through the whole system: index it once, search it in each mode, measure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus import open_corpus, survey
from retriever.eval.datasets import load_dataset
from retriever.eval.evaluator import DEFAULT_MEASURES, Evaluation, evaluate_run
from retriever.eval.measures import parse_measures
from retriever.eval.runs import separate_ties, write_run
from retriever.indexing import build_index, holds, interrupted
from retriever.search import MODES, Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.fusion import FusionConfig
    from retriever.types import Encoder

__all__ = ["cache_folder", "evaluate_dataset"]


def cache_folder() -> Path:
    """Return where indexes of evaluated data sets are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retriever" / "indexes"


def evaluate_dataset(
    dataset: str | Path,
    encoder: Encoder,
    *,
    split: str = "test",
    folder: Path | None = None,
    modes: Sequence[str] = ("bm25", "sparse", "dense", "hybrid"),
    measures: Sequence[str] = DEFAULT_MEASURES,
    top_k: int = 1000,
    fusion: FusionConfig | None = None,
    output: Path | None = None,
    progress: bool = False,
) -> dict[str, Evaluation]:
    """Return the evaluation of each mode on a BEIR folder.

    folder: the index, made if it is not there, finished if its making was interrupted; without one, an index in
    `cache_folder()` named by corpus and encoder, so that nothing is encoded twice. output: a folder that receives one
    TREC run per mode.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise UserError(f"mode {', '.join(unknown)!r} is unknown; choose among {', '.join(MODES)}")
    parse_measures(measures)  # before the work, not after it
    data = load_dataset(dataset, split)
    found = survey(open_corpus(dataset))
    if folder is None:
        name = encoder.identity.sha256[:12] or encoder.identity.name
        # Vectors of one precision are not those of another: each has its own index.
        precision = getattr(encoder, "precision", "any")
        folder = cache_folder() / f"{data.name}-{found.digest[:12]}-{name}-{precision}"
    begun = (folder / "index.json").exists()
    if not begun or interrupted(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        build_index(dataset, folder, encoder, resume=begun, progress=progress)
    elif not holds(folder, found):
        raise UserError(
            f"{folder}: not the index of {dataset} as it is now (another corpus, other policies, or changed since); "
            "give another folder with --index, or none"
        )
    results = {}
    with Retriever.open(folder, encoder, fusion) as retriever:
        for mode in modes:
            run = {query_id: separate_ties(ranking) for query_id, ranking in retriever.rank(data.queries, top_k, mode)}
            results[mode] = evaluate_run(run, data.qrels, measures)
            if output is not None:
                output.mkdir(parents=True, exist_ok=True)
                write_run(output / f"{data.name}-{split}-{mode}.trec", run, f"retriever-{mode}")
    return results
