"""One data set measured: its indexes, the systems that they give, what each is worth beside the baseline."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.corpus import open_corpus, survey
from retriever.encoder.runtime import numerics
from retriever.eval.comparison import compare
from retriever.eval.data.dataset import ASKED_IN
from retriever.eval.data.qrels import judged_documents
from retriever.eval.data.registry import entry
from retriever.eval.data.runs import write_run
from retriever.eval.evaluator import Evaluation, evaluate_run, others_than_trec_eval
from retriever.eval.measures import parse_measures
from retriever.eval.report.results import DatasetResult, Difference, IndexResult, SparseCosts, SystemResult
from retriever.experiments.examples import FirstHits, choose_examples, first_hits
from retriever.experiments.systems import bytes_per_document, plan_systems, search_legs
from retriever.files import cache_errors, cache_root
from retriever.index.places import is_elsewhere
from retriever.indexing.build import IndexingConfig, build_index, holds, interrupted
from retriever.languages import ENGLISH, LANGUAGES, OTHER, analyzer_named
from retriever.ranking import separate_ties
from retriever.search.leg import views_of
from retriever.search.modes import reads_text_alone
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.corpus.corpus import Survey
    from retriever.eval.data.dataset import Dataset
    from retriever.experiments.experiment import ExperimentConfig
    from retriever.experiments.systems import LegRuns, SystemPlan
    from retriever.types import Encoder, Run

__all__ = ["MeasuredDataset", "cache_folder"]

RECALLS = tuple(f"IPrec@{place / 10}" for place in range(11))


def cache_folder() -> Path:
    """Return the folder where indexes of evaluated data sets are stored between runs."""
    return cache_root() / "indexes"


class MeasuredDataset:
    """One data set, to which the systems of one encoder after the other are added."""

    def __init__(
        self, source: str, data: Dataset, config: ExperimentConfig, output: Path | None, notes: list[str]
    ) -> None:
        self._source, self._data, self._config, self._output, self._notes = source, data, config, output, notes
        self._survey = survey(open_corpus(data.corpus))
        self._indexes: list[IndexResult] = []
        self._costs: list[SparseCosts] = []
        self._systems: list[SystemResult] = []
        self._first_hits: dict[str, FirstHits] = {}
        self.evaluations: dict[str, Evaluation] = {}

    def add(self, label: str, encoder: Encoder, folder: Path | None, *, several: bool, progress: bool) -> None:
        """Index the data set with an encoder and measure the systems that it gives; `several` puts it in their names.

        A mode that reads the queries' texts alone (BM25) is the same with every encoder: it is measured with the first.
        """
        config = self._config
        path, seconds = _index(self._data, self._survey, encoder, folder, _language(self._data, config), progress)
        with Retriever.open(path, encoder, fusion=config.fusion) as retriever:
            known = {mode for mode in config.modes if reads_text_alone(mode) and mode in self.evaluations}
            modes = [mode for mode in dict.fromkeys(config.modes) if mode not in known]
            systems = plan_systems(retriever, encoder, modes, config.query_modes, self._notes)
            self._indexes.append(_index_result(label, retriever, seconds))
            self._note_unknown_documents(retriever)
            if not systems:
                return
            legs = search_legs(retriever, encoder, systems, self._data, config.top_k, fresh=config.fresh)
            self._costs += legs.costs(label, retriever)
            for system in systems:
                own = several and not reads_text_alone(system.mode)
                self._measure(f"{label}/{system.name}" if own else system.name, label, system, legs, retriever)

    def _note_unknown_documents(self, retriever: Retriever) -> None:
        """Judged documents that do not exist are usual in public sets and no error, but they lower what can be had."""
        qrels = self._data.qrels
        unknown = retriever.reader.missing(sorted(judged_documents(qrels)))
        if unknown:
            relevant = sum(grades.get(doc_id, 0) > 0 for grades in qrels.values() for doc_id in unknown)
            self._notes.append(
                f"{self._data.name}: {len(unknown)} judged documents are not in the corpus, such as {unknown[0]!r}; "
                f"{relevant} judgements call them relevant and count as not found"
            )

    def _measure(self, name: str, label: str, system: SystemPlan, legs: LegRuns, retriever: Retriever) -> None:
        ranked = legs.rank(system)
        run = {query_id: separate_ties(ranking) for query_id, ranking in ranked.run.items()}
        whole = evaluate_run(run, self._data.qrels, measures=[*self._config.measures, *RECALLS])
        requested = [str(measure) for measure in parse_measures(self._config.measures)]
        evaluation = _only(whole, requested)
        if others := others_than_trec_eval(evaluation.tools):
            self._notes.append(others)
        self.evaluations[name] = evaluation
        self._first_hits[name] = first_hits(run)
        self._systems.append(
            SystemResult(
                name=name,
                encoder=label if views_of(system.plan.legs) else "",
                query_mode=system.query_mode,
                mode=system.mode,
                mean=evaluation.mean,
                queries_missing=evaluation.queries_missing,
                queries_ignored=evaluation.queries_ignored,
                latency=ranked.latency,
                bytes_per_document=bytes_per_document(retriever, system.plan.legs),
                precision=[whole.mean[recall] for recall in RECALLS],
                differences={},
            )
        )
        if self._output is not None:
            _write_run(self._output, _file_name(f"{self._data.name}-{self._config.split}-{name}"), run, name)

    def result(self) -> DatasetResult:
        """Return what was measured, each system compared with the baseline; raise UserError if nothing was."""
        if not self.evaluations:
            raise UserError(self._notes[0])
        baseline = self._config.baseline if self._config.baseline in self.evaluations else next(iter(self.evaluations))
        if baseline != self._config.baseline:
            self._notes.append(
                f"{self._data.name}: there is no system {self._config.baseline}, so the baseline is {baseline}"
            )
        differences = _differences(self.evaluations, baseline)
        examples_of, examples = choose_examples(
            self._data, self.evaluations, self._first_hits, baseline, Path(self._indexes[0].folder)
        )
        return DatasetResult(
            name=self._data.name,
            source=self._source,
            split=self._config.split,
            exclude_self=self._data.exclude_self,
            documents=self._survey.documents,
            queries_judged=next(iter(self.evaluations.values())).queries_judged,
            corpus_sha256=self._survey.digest,
            indexes=self._indexes,
            costs=self._costs,
            systems=[system._replace(differences=differences.get(system.name, {})) for system in self._systems],
            baseline=baseline,
            examples_of=examples_of,
            examples=examples,
        )


def _language(data: Dataset, config: ExperimentConfig) -> str:
    """Return the language that the documents are to be read in."""
    known = entry(data.name.rpartition(ASKED_IN)[2])
    if config.language is not None:
        return analyzer_named(config.language)
    if known is None:
        return ENGLISH
    return analyzer_named(known.language) if known.language in LANGUAGES else OTHER


def _index(
    data: Dataset, found: Survey, encoder: Encoder, folder: Path | None, language: str, progress: bool
) -> tuple[Path, float | None]:
    """Return the index of a data set, and the seconds that making it took, None if it was there."""
    if folder is None:
        name = encoder.identity.sha256[:12] or encoder.identity.name
        # Vectors of one precision are not those of another, nor are terms of one scale: each has its own index.
        storage = IndexingConfig()
        stored = f"{numerics(encoder)}-{storage.rows}-x{storage.impact_scale}"
        read = "" if language == ENGLISH else f"-{language}"
        corpus = data.name.rpartition(ASKED_IN)[2]
        folder = cache_folder() / _file_name(f"{corpus}-{found.digest[:12]}-{name}-{stored}{read}")
    elsewhere = is_elsewhere(folder)
    begun = (folder / "index.json").exists()
    if not elsewhere and (not begun or interrupted(folder)):
        with cache_errors("indexes"):
            folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.parent.is_dir():
            folder = _until_exit() / folder.name
        how = IndexingConfig(language=language)
        report = build_index(data.corpus, folder, encoder=encoder, config=how, resume=begun, progress=progress)
        return folder, report.seconds
    if not holds(folder, found):
        raise UserError(
            f"{folder}: not the index of {data.corpus} as it is now (another corpus, other policies, or changed "
            "since); give another folder with --index, or none"
        )
    return folder, None


@functools.cache
def _until_exit() -> Path:
    """Make a folder that lasts as long as the process: for indexes that the cache cannot take."""
    folder = Path(tempfile.mkdtemp(prefix="retriever-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _index_result(label: str, retriever: Retriever, seconds: float | None) -> IndexResult:
    reader = retriever.reader
    settings, commit = reader.settings, reader.commit_data
    return IndexResult(
        encoder=label,
        folder=str(reader.path),
        commit=commit.number,
        sizes=reader.sizes(),
        analyzer=settings.analyzer,
        k1=settings.k1,
        b=settings.b,
        impact_scale=settings.impact_scale,
        dense_type=commit.dense_type if reader.has_dense else "none",
        truncated=commit.truncated,
        fusion=dataclasses.asdict(retriever.fusion),
        seconds=seconds,
    )


def _only(evaluation: Evaluation, measures: Sequence[str]) -> Evaluation:
    return evaluation._replace(
        mean={name: evaluation.mean[name] for name in measures},
        per_query={
            query_id: {name: values[name] for name in measures} for query_id, values in evaluation.per_query.items()
        },
        tools={name: evaluation.tools[name] for name in measures},
    )


def _differences(evaluations: Mapping[str, Evaluation], baseline: str) -> dict[str, dict[str, Difference]]:
    """Compare each system with the baseline; p-values are corrected over the systems, measure by measure."""
    if len(evaluations) < 2:
        return {}
    found: dict[str, dict[str, Difference]] = {}
    for measure in evaluations[baseline].mean:
        ordered = {baseline: evaluations[baseline]} | dict(evaluations)
        for one in compare({name: _only(evaluation, [measure]) for name, evaluation in ordered.items()}):
            found.setdefault(one.run, {})[measure] = Difference(
                one.difference,
                *one.interval,
                one.p_randomisation,
                one.effect_size,
                one.wins,
                one.ties,
                one.losses,
            )
    return found


def _file_name(name: str) -> str:
    """Return a name without what separates folders."""
    return name.replace("/", "-")


def _write_run(folder: Path, name: str, run: Run, system: str) -> None:
    """Write a run as TREC's six columns, or as JSON lines where ids hold white space."""
    words = all(
        len(text.split()) == 1 for query_id, hits in run.items() for text in (query_id, *(h.doc_id for h in hits))
    )
    write_run(folder / f"{name}.{'trec' if words else 'jsonl'}", run, f"retriever-{'-'.join(system.split())}")
