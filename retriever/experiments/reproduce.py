"""Named experiments, what they should find, and whether they found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.config import from_mapping, load_yaml
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.eval.evaluator import Evaluation

__all__ = ["Check", "Reproduction", "check", "choose", "reproductions"]

FILE = Path(__file__).parents[1] / "configs" / "eval" / "reproduce.yaml"


@dataclass(frozen=True)
class Reproduction:
    """One experiment.

    dataset: the folder's name. hub: what `load_dataset` takes where there is no folder, "" for none.
    query_mode: "" for the encoder's own. expected: mode -> measure -> value. tolerance: how far a value may be off.
    source: who measured the expected values.
    """

    name: str
    dataset: str
    expected: Mapping[str, Mapping[str, float]]
    source: str
    hub: str = ""
    split: str = "test"
    encoder: str = "default"
    precision: str = "auto"
    query_mode: str = ""
    tolerance: float = 0.001

    @property
    def measures(self) -> tuple[str, ...]:
        """Return all measures that some mode expects."""
        return tuple(dict.fromkeys(measure for values in self.expected.values() for measure in values))


class Check(NamedTuple):
    """One figure beside the value that was expected."""

    experiment: str
    mode: str
    measure: str
    expected: float
    tolerance: float
    found: float
    drifted: bool


def reproductions(file: Path = FILE) -> dict[str, Reproduction]:
    """Return the experiments of a YAML file by name; raise UserError for one that is not whole."""
    found = {}
    for name, values in load_yaml(file).items():
        missing = {"dataset", "expected", "source"} - values.keys()
        if missing:
            raise UserError(f"{file}: {name} has no {min(missing)}; each experiment needs dataset, expected and source")
        found[name] = from_mapping(Reproduction, {"name": name} | values, f"{file}: {name}")
    return found


def choose(known: Mapping[str, Reproduction], names: Sequence[str]) -> list[Reproduction]:
    """Return the experiments called `names`, all of them for none; raise UserError for an unknown name."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"no experiment is called {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())


def check(experiment: Reproduction, evaluations: Mapping[str, Evaluation]) -> list[Check]:
    """Compare what was found, by mode, with what was expected."""
    return [
        Check(
            experiment=experiment.name,
            mode=mode,
            measure=measure,
            expected=expected,
            tolerance=experiment.tolerance,
            found=evaluations[mode].mean[measure],
            # Both are printed with four places: half of the last one is no drift.
            drifted=abs(evaluations[mode].mean[measure] - expected) > experiment.tolerance + 0.00005,
        )
        for mode, values in experiment.expected.items()
        for measure, expected in values.items()
    ]
