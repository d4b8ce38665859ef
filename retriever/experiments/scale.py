"""How effectiveness falls as passages that answer nothing are added to a data set (Reimers and Gurevych 2021).

One folder holds the experiment: the index, which only grows, and what was measured at each size, so that the same
command resumes where an earlier one stopped, and encodes nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.corpus.corpus import NumberedDocument, open_corpus, survey
from retriever.encoder.of_index import load_index_encoder
from retriever.eval.data.datasets import load_dataset
from retriever.eval.data.distractors import read_distractors
from retriever.eval.evaluator import evaluate_run
from retriever.eval.report.extras import scale_plot
from retriever.eval.report.page import STYLE
from retriever.eval.report.svg import Series, whole_file
from retriever.files import atomic_file, file_errors
from retriever.index.reader import FolderReader
from retriever.indexing.build import IndexingConfig, build_index, write_stream
from retriever.indexing.writer import IndexWriter
from retriever.ranking import separate_ties, without_self
from retriever.search.modes import HYBRID
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.eval.data.dataset import Dataset
    from retriever.types import Encoder, Ranking

__all__ = ["ScalePoint", "measure_scale", "plot_scale"]

MEASURE = "nDCG@10"
RECORDS = "scale.json"
EXPERIMENT = "scale_experiment"
"""The note of a commit that names what the index is for."""
# An exact index: what falls is then the representation's doing, not the approximation's.
INDEXING = IndexingConfig(dense_type="flat")


class ScalePoint(NamedTuple):
    """nDCG@10 of a system on a data set with so many distractors in its index."""

    dataset: str
    system: str
    distractors: int
    value: float


def measure_scale(
    dataset: str | Path,
    distractors: Sequence[Path],
    sizes: Sequence[int],
    folder: Path,
    encoder: Encoder,
    modes: Sequence[str] | None = None,
    *,
    split: str = "test",
    progress: bool = False,
) -> list[ScalePoint]:
    """Return nDCG@10 of each mode (default: each leg and hybrid) with each number of distractors, smallest first.

    folder: receives `index` and scale.json; points that it holds are not measured again, not even for other sizes.

    Raises:
        UserError: too few distractors, a folder of another experiment, or one that has more distractors than the sizes.
    """
    sizes = sorted(set(sizes))
    if not sizes or sizes[0] < 0:
        raise UserError(f"sizes {sizes} cannot be measured; give numbers of distractors from 0 on")
    data = load_dataset(dataset, split)
    _check_enough(distractors, sizes[-1])
    index = folder / "index"
    documents = _prepare(dataset, index, encoder, _identity(dataset, distractors, split), progress)
    with Retriever.open(index, encoder) as retriever:
        modes = list(modes or (*retriever.legs, *([HYBRID] if len(retriever.legs) > 1 else [])))
        for mode in modes:
            retriever.plan(mode)  # refused before the work
        present = retriever.reader.num_documents - documents
    points = {(point.system, point.distractors): point for point in _read(folder / RECORDS)}
    lost = [size for size in sizes if size < present and any((mode, size) not in points for mode in modes)]
    if lost:
        raise UserError(
            f"{index}: holds {present} distractors already, so {lost[0]} cannot be measured any more; "
            f"ask for {present} or more, or choose another --output"
        )
    for size in sizes:
        wanted = [mode for mode in modes if (mode, size) not in points]
        if wanted:
            _grow(index, encoder, distractors, size, documents, progress)
            values = _measure(index, encoder, data, wanted)
            points |= {(mode, size): ScalePoint(data.name, mode, size, value) for mode, value in values.items()}
            _write(folder / RECORDS, list(points.values()))
    return [points[mode, size] for size in sizes for mode in modes]


def plot_scale(points: Sequence[ScalePoint], path: Path) -> None:
    """Draw a line for each system into an SVG file: distractors to the right, nDCG@10 upwards."""
    lines = [
        Series(system, [(point.distractors, point.value) for point in points if point.system == system])
        for system in dict.fromkeys(point.system for point in points)
    ]
    with file_errors(path, "write"):
        path.write_text(whole_file(scale_plot(lines), STYLE.read_text(encoding="utf-8")), encoding="utf-8")


def _check_enough(paths: Sequence[Path], wanted: int) -> None:
    found = sum(1 for _ in islice(read_distractors(paths), wanted))
    if found < wanted:
        raise UserError(
            f"{', '.join(map(str, paths))}: {found} different texts, need {wanted}; "
            "give more files with --distractors, or smaller --sizes"
        )


def _identity(dataset: str | Path, distractors: Sequence[Path], split: str) -> str:
    """Return what a measured point depends on besides the encoder, which the index knows: the files' contents."""
    digest = hashlib.sha256(split.encode())
    files = [file for file in sorted(Path(dataset).rglob("*")) if file.is_file()]
    for path in (*files, *distractors):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _prepare(dataset: str | Path, index: Path, encoder: Encoder, identity: str, progress: bool) -> int:
    """Make the index of the data set alone, or check that it is this experiment's; return the data set's size."""
    found = survey(open_corpus(dataset))
    begun = (index / "index.json").exists()
    if begun:
        with FolderReader.open(index) as reader:
            note = reader.commit_data.note
            load_index_encoder(index, reader.settings.encoder, encoder)
        if note.get(EXPERIMENT, identity) != identity:
            raise UserError(
                f"{index.parent}: an experiment with another data set, split or distractors; choose another --output"
            )
    if not begun or EXPERIMENT not in note:
        index.parent.mkdir(parents=True, exist_ok=True)
        build_index(dataset, index, encoder=encoder, config=INDEXING, resume=begun, progress=progress)
        with IndexWriter.open(index, encoder) as writer:
            writer.folder.commit({**writer.folder.committed.note, EXPERIMENT: identity})
    return found.documents


def _grow(
    index: Path, encoder: Encoder, distractors: Sequence[Path], size: int, documents: int, progress: bool
) -> None:
    """Add distractors to the index, whose data set has `documents`, until there are `size`; each commit lasts."""
    from tqdm import tqdm

    with IndexWriter.open(index, encoder) as writer:
        present = len(writer) - documents
        if present == size:
            return
        missing = enumerate(islice(read_distractors(distractors), present, size), present)
        stream = (NumberedDocument(ordinal, document) for ordinal, document in missing)
        note = dict(writer.folder.committed.note)
        title = f"{size} distractors"
        with tqdm(total=size, initial=present, desc=title, unit=" docs", file=sys.stderr, disable=not progress) as bar:
            write_stream(writer.folder, stream, writer.encoder, INDEXING, lambda _: note, bar.update)
            bar.set_description("commit")
            writer.commit()


def _measure(index: Path, encoder: Encoder, data: Dataset, modes: Sequence[str]) -> dict[str, float]:
    """Return nDCG@10 of each mode on the index as it is."""
    runs: dict[str, dict[str, Ranking]] = {mode: {} for mode in modes}
    with Retriever.open(index, encoder) as retriever:
        for query_id, rankings in retriever.rank_modes(data.queries, 1000, modes=modes):
            for mode, ranking in rankings.items():
                kept = without_self(ranking, query_id, exclude=data.exclude_self)
                runs[mode][query_id] = separate_ties(kept)
    return {mode: evaluate_run(run, data.qrels, measures=[MEASURE]).mean[MEASURE] for mode, run in runs.items()}


def _read(path: Path) -> list[ScalePoint]:
    if not path.exists():
        return []
    try:
        return [ScalePoint(**record) for record in json.loads(path.read_bytes())]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not the points of an experiment ({error}); remove it") from None


def _write(path: Path, points: Sequence[ScalePoint]) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps([point._asdict() for point in points], indent=1) + "\n").encode())
