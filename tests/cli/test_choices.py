"""Every choice that the command line offers is one that the code knows, and no known one is left out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from retriever import names
from retriever.cli.main import cli
from retriever.corpus.corpus import ON_BAD, ON_DUPLICATE
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import PRECISIONS
from retriever.eval.evaluator import DEFAULT_MEASURES
from retriever.eval.measures import parse_measures
from retriever.experiments.experiment import ExperimentConfig
from retriever.experiments.learning import KINDS
from retriever.index.vectors.faiss_types import DENSE_TYPES
from retriever.index.vectors.row_formats import ROW_TYPES
from retriever.network.checkpoint import STORAGE
from retriever.rank.feedback import METHODS as FEEDBACK_METHODS
from retriever.search.fusion.fusion import METHODS, MISSING, NORMALISATIONS
from retriever.search.leg import LEGS
from retriever.search.legs.backends import SPARSE_BACKENDS
from retriever.search.modes import MODES, legs_named

REGISTRIES: dict[str, tuple[str | int, ...]] = {
    "precision": PRECISIONS,
    "query_mode": MoEEncoder.query_modes,
    "query_modes": MoEEncoder.query_modes,
    "sparse_backend": tuple(SPARSE_BACKENDS),
    "fusion": tuple(METHODS),
    "missing": MISSING,
    "dense_type": ("auto", *DENSE_TYPES),
    "rows": tuple(ROW_TYPES),
    "token_bits": names.TOKEN_BITS,
    "on_duplicate": ON_DUPLICATE,
    "on_bad": ON_BAD,
    "storage": STORAGE,
    "view": names.VIEWS,
    "normalisation": tuple(NORMALISATIONS),
    "feedback": tuple(FEEDBACK_METHODS),
    "model": KINDS,
}
PARTS = {("score", "normalisation")}
"""Options that offer some of what there is: only these bring the scores of different teachers together."""


def choices(group: click.Group) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from choices(command)
        for option in command.params:
            if isinstance(option.type, click.Choice):
                assert option.name is not None
                yield name, option.name, tuple(option.type.choices)


@pytest.mark.parametrize(("command", "option", "offered"), [*choices(cli)], ids=str)
def test_a_choice_is_that_of_its_registry(command: str, option: str, offered: tuple[str, ...]) -> None:
    known = REGISTRIES[option]
    if (command, option) in PARTS:
        assert set(offered) < set(known)
    else:
        assert offered == known


def test_each_registry_is_offered() -> None:
    assert {option for _, option, _ in choices(cli)} == set(REGISTRIES)


def test_names_are_those_of_the_heavy_registries() -> None:
    assert tuple(ROW_TYPES) == names.ROW_TYPES
    assert tuple(SPARSE_BACKENDS) == names.SPARSE_BACKENDS
    assert tuple(FEEDBACK_METHODS) == names.FEEDBACK_METHODS
    assert names.LEARNED_MODELS == KINDS
    assert names.BASELINE in LEGS and parse_measures(DEFAULT_MEASURES)


def test_modes_are_offered_and_defaults_are_known() -> None:
    search = cli.commands["search"]
    [mode] = [option for option in search.params if option.name == "mode"]
    assert isinstance(mode, click.Option) and mode.help is not None and mode.help.startswith(", ".join(MODES))
    evaluate = {option.name: option.default for option in cli.commands["evaluate"].params}
    modes = str(evaluate["modes"]).split(",")
    assert [legs_named(one) for one in modes] == [*((leg,) for leg in LEGS), ()]
    assert tuple(modes) == ExperimentConfig().modes
    assert evaluate["measures"] == DEFAULT_MEASURES


def test_help_loads_nothing_heavy() -> None:
    program = "import sys, retriever.cli.main; print(*sorted({'numpy', 'torch', 'faiss', 'jnius'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"
