"""Measures by the names that ir-measures gives them: nDCG@10, R@100, AP(rel=2), P@5, Judged@10."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ir_measures import Measure

__all__ = ["JUDGED", "parse_measures"]

JUDGED = "Judged"
"""The one measure that is not trec_eval's: the share of the hits up to a rank that have a judgement."""
EXAMPLES = "nDCG@10, R@100, AP, RR, P@5, Success@10, Judged@10, nDCG(judged_only=True)@10, P(rel=2)@5"


def parse_measures(names: Sequence[str]) -> list[Measure]:
    """Return the measures called `names`, each once, in order; raise UserError that shows examples for a bad name."""
    if not names:
        raise UserError(f"no measure given; examples: {EXAMPLES}")
    return list(dict.fromkeys(_parse(name) for name in names))


def _parse(name: str) -> Measure:
    import ir_measures

    try:
        measure = _evaluate_name(name)
        provider = ir_measures.judged if measure.NAME == JUDGED else ir_measures.pytrec_eval
        if not provider.supports(measure):
            raise ValueError("trec_eval cannot compute it")
        # trec_eval ends the whole process, without an exception, when it meets a cutoff of 0.
        if any(type(value) is int and value < 1 for value in measure.params.values()):
            raise ValueError("cutoff and rel start at 1")
        provider.evaluator([measure], {"q": {"d": 1}})
    except (AssertionError, KeyError, NameError, SyntaxError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"measure {name!r} is not one that can be computed ({reason}); examples: {EXAMPLES}") from None
    return measure


def _evaluate_name(name: str) -> Measure:
    """Build a measure from NAME, NAME@CUTOFF, NAME(KEY=VALUE, ...) or NAME(...)@CUTOFF.

    `ir_measures.parse_measure` says the same with `ast.Num`, which Python 3.12 warns of and 3.14 has no more.
    """
    from ir_measures.measures import registry

    tree = ast.parse(name.strip(), mode="eval").body
    arguments: dict[str, object] = {}
    cutoff: object = None
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.MatMult):
        cutoff = ast.literal_eval(tree.right)
        tree = tree.left
    if isinstance(tree, ast.Call) and not tree.args:
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
        tree = tree.func
    if not isinstance(tree, ast.Name):
        raise ValueError("the form is NAME(KEY=VALUE)@CUTOFF")
    if tree.id not in registry:
        raise ValueError(f"no measure has the name {tree.id}")
    measure: Measure = registry[tree.id]
    if cutoff is not None:
        if measure.AT_PARAM is None or measure.AT_PARAM in arguments:
            raise ValueError(f"{tree.id} takes no @ here")
        arguments[measure.AT_PARAM] = cutoff
    built: Measure = measure(**arguments)
    return built
