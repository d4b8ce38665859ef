"""Measures by the names that ir-measures gives them: nDCG@10, R@100, AP(rel=2), RR@10, RBP(rel=1), alpha_nDCG@20."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from retriever.eval.measure_names import canonical_names
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ir_measures import Measure, Provider

__all__ = ["DIVERSITY", "FAILURES", "JUDGED", "needs_subtopics", "parse_measures", "provider_of"]

JUDGED = "judged"
"""The tool of Judged@k: the share of the hits up to a rank that have a judgement."""
DIVERSITY = "pyndeval"
"""The tool whose measures need judgements by subtopic."""
EXAMPLES = "nDCG@10, R@100, AP, RR@10, P@5, Success@10, Judged@10, nDCG(judged_only=True)@10, P(rel=2)@5"
INSTALL = {"cwl_eval": "pip install cwl-eval", "pyndeval": "pip install pyndeval", "gdeval": "install perl"}
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What the tools raise for parameters or data that they cannot compute with."""


def parse_measures(names: Sequence[str]) -> list[Measure]:
    """Return the measures called `names`, each once, in order; raise UserError that shows examples for a bad name.

    Names are ir-measures', and those that people type for them, such as MRR@10, ndcg_cut_10 and mAP.
    """
    if not names:
        raise UserError(f"no measure given; examples: {EXAMPLES}")
    return list(dict.fromkeys(measure for name in names for measure in _parse(name)))


def needs_subtopics(names: Sequence[str]) -> bool:
    """Return whether one of these measures is of diversity: it reads judgements by subtopic."""
    return any(provider_of(measure).NAME == DIVERSITY for measure in parse_measures(names))


def _parse(name: str) -> list[Measure]:
    try:
        measures = [_evaluate_name(canonical) for canonical in canonical_names(name)]
        for measure in measures:
            _try(measure)
    except (*FAILURES, MemoryError, RecursionError, SyntaxError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"measure {name!r} is not one that can be computed ({reason}); examples: {EXAMPLES}") from None
    return measures


def _try(measure: Measure) -> None:
    """Compute a measure on one judgement, so that what its tool cannot do is known before a run is read."""
    import ir_measures

    # trec_eval ends the whole process, without an exception, when it meets a cutoff of 0.
    if any(type(measure.params.get(name)) is int and measure.params[name] < 1 for name in ("cutoff", "rel")):
        raise ValueError("cutoff and rel start at 1")
    top, low = measure.params.get("max_rel", 1), measure.params.get("min_rel", 0)  # what cwl_eval warns of is there
    qrels = [ir_measures.Qrel("1", doc_id, grade, doc_id) for doc_id, grade in (("d", top), ("e", low))]
    run = [ir_measures.ScoredDoc("1", "d", 2.0), ir_measures.ScoredDoc("1", "e", 1.0)]
    list(provider_of(measure).iter_calc([measure], qrels, run))


def provider_of(measure: Measure) -> Provider:
    """Return the tool of ir-measures that computes a measure: the first of its own order that is installed.

    Raises:
        ValueError: none is.
    """
    import ir_measures

    _check_parameters(measure)
    able = [tool for tool in ir_measures.DefaultPipeline.providers if tool.supports(measure)]
    there: Provider | None = next((tool for tool in able if tool.is_available()), None)
    if there is None:
        hint = next((f"; {INSTALL[tool.NAME]}" for tool in able if tool.NAME in INSTALL), " with these parameters")
        if not able and measure.NAME == "RBP" and "rel" not in measure.params:
            hint += f"; name the least relevant grade, as in {measure(rel=1)}"
        raise ValueError(f"no installed tool computes it{hint}")
    return there


def _check_parameters(measure: Measure) -> None:
    missing = [key for key, info in measure.SUPPORTED_PARAMS.items() if info.required and key not in measure.params]
    if missing == [measure.AT_PARAM]:
        raise ValueError(f"it needs a {missing[0]}, as in {measure.NAME}@{0.1 if missing[0] == 'recall' else 10}")
    if missing:
        shown = ", ".join(f"{key}=..." for key in missing)
        raise ValueError(f"it needs {' and '.join(missing)}, as in {measure.NAME}({shown})")
    measure.validate_params()  # type: ignore[no-untyped-call]


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
    measure = registry.get(tree.id)
    if measure is None:
        raise ValueError(f"no measure has the name {tree.id}")
    if cutoff is not None:
        if measure.AT_PARAM not in measure.SUPPORTED_PARAMS or measure.AT_PARAM in arguments:
            raise ValueError(f"{tree.id} takes no @ here")
        arguments[measure.AT_PARAM] = cutoff
    if any(isinstance(value, bool) and key in ("cutoff", "rel") for key, value in arguments.items()):
        raise ValueError("cutoff and rel are whole numbers")
    return _in_tool_types(measure, arguments)


def _in_tool_types(measure: Measure, arguments: dict[str, object]) -> Measure:
    """Return the measure with whole numbers as floats where it wants these: SetF(beta=2)."""
    kinds = {key: info.dtype for key, info in measure.SUPPORTED_PARAMS.items()}
    typed = {
        key: float(value) if kinds.get(key) is float and type(value) is int else value
        for key, value in arguments.items()
    }
    built: Measure = measure(**typed)
    return built
