from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from retriever.eval.data.datasets import load_dataset
from retriever.eval.data.registry import FILE, entries, entry, families
from retriever.eval.measures import parse_measures


def test_names_of_the_hubs_are_those_of_the_folders() -> None:
    for name in ("arguana", "BeIR/arguana", "mteb/ArguAna", "beir-arguana"):
        found = entry(name)
        assert found is not None and found.name == "arguana" and found.exclude_self
    assert entry("nothing") is None


@pytest.mark.parametrize(
    ("name", "known_as", "language"),
    [
        ("miracl-ar", "miracl-ar", "ar"),
        ("miraclretrieval-ar", "miracl-ar", "ar"),
        ("mr-tydi-sw", "mr-tydi-sw", "sw"),
        ("neuclir-2022-zh", "neuclir-2022-zh", "zh"),
        ("xquad-de", "xquad-de", "de"),
        ("neuclir2022retrieval-zho", "neuclir-2022-zh", "zh"),
        ("mrtidy-swahili", "mr-tydi-sw", "sw"),
        ("clirudit-fr", "clirudit-fr", "fr"),
        ("bsardretrieval", "bsard-fr", "fr"),
        ("clips/beir-nl-nfcorpus", "beir-nl-nfcorpus", "nl"),
        ("beir-nl-nfcorpus", "beir-nl-nfcorpus", "nl"),
        ("clarin-knext/arguana-pl", "arguana-pl", "pl"),
        ("mteb/scifact", "scifact", "en"),
    ],
)
def test_data_sets_in_other_languages(name: str, known_as: str, language: str) -> None:
    found = entry(name)
    assert found is not None and (found.name, found.language) == (known_as, language)
    assert found.exclude_self == ("arguana" in name)


def test_translations_have_the_sizes_of_the_original_and_no_figures() -> None:
    original, dutch = entry("nfcorpus"), entry("beir-nl-nfcorpus")
    assert original is not None and dutch is not None and original.figures and not dutch.figures
    assert (dutch.documents, dutch.queries, dutch.split) == (original.documents, original.queries, original.split)
    assert entry("beir-nl-nothing") is None


def test_families_have_the_sizes_of_ir_datasets() -> None:
    ir_datasets = pytest.importorskip("ir_datasets")
    catalogue = json.loads((Path(ir_datasets.__file__).parent / "etc" / "metadata.json").read_text())
    compared = 0
    for found in families().values():
        match = re.match(r"ir:([^/,]+(?:/1)?/[a-z]+)/([\w-]+)", found.give)
        if match:
            documents, queries = (catalogue[name] for name in (match[1], f"{match[1]}/{match[2]}"))
            assert (documents["docs"]["count"], queries["queries"]["count"]) == (found.documents, found.queries)
            compared += 1
    assert compared >= 35


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
