from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import yaml

from retriever.eval.data.datasets import load_dataset
from retriever.eval.data.registry import FILE, entries, entry
from retriever.eval.measures import parse_measures


def test_names_of_the_hubs_are_those_of_the_folders() -> None:
    for name in ("arguana", "BeIR/arguana", "mteb/ArguAna", "beir-arguana"):
        found = entry(name)
        assert found is not None and found.name == "arguana" and found.exclude_self
    assert entry("nothing") is None


def test_the_queries_stand_in_the_corpus_of_two_sets() -> None:
    assert [name for name, found in entries().items() if found.exclude_self] == ["arguana", "quora"]


def test_every_figure_is_a_share_with_a_measure_and_a_source() -> None:
    figures = [figure for found in entries().values() for figure in found.figures]
    assert len(figures) > 300
    for figure in figures:
        assert 0 < figure.value < 1 and figure.source and figure.label
        assert [str(measure) for measure in parse_measures([figure.measure])] == [figure.measure]
    used = {figure.system for figure in figures}
    assert used == set(yaml.safe_load(FILE.read_text(encoding="utf-8"))["systems"])
    assert {figure.system for figure in figures if figure.not_comparable} == {"bm25-multifield"}


@pytest.mark.parametrize("system", ["bm25-flat", "bm25-multifield"])
def test_bm25_is_what_pyserini_expects_too(system: str) -> None:
    package = importlib.util.find_spec("pyserini")
    assert package is not None and package.origin is not None
    conditions = yaml.safe_load((Path(package.origin).parent / "2cr" / "beir.yaml").read_text())["conditions"]
    [theirs] = [condition for condition in conditions if condition["name"] == system]
    compared = 0
    for dataset in theirs["datasets"]:
        found = entry(dataset["dataset"])
        assert found is not None
        for figure in found.figures:
            if figure.system == system:
                assert figure.value == dataset["scores"][0][figure.measure], (found.name, figure.measure)
                compared += 1
    assert compared == 2 * 29


@pytest.mark.skipif("RETRIEVER_DATA" not in os.environ, reason="RETRIEVER_DATA does not name the folder of real data")
@pytest.mark.parametrize("name", ["nfcorpus", "cranfield", "cisi"])
def test_real_folders_have_the_sizes_of_the_registry(name: str) -> None:
    dataset, found = load_dataset(Path(os.environ["RETRIEVER_DATA"]) / "eval" / name), entry(name)
    assert found is not None
    with Path(dataset.corpus).open("rb") as lines:
        assert (sum(1 for _ in lines), len(dataset.queries)) == (found.documents, found.queries)
