"""Measures as people type them: MRR@10, ndcg_cut_10, Recall@100 and mAP are names of RR@10, nDCG@10, R@100 and AP."""

from __future__ import annotations

import re
from difflib import get_close_matches

__all__ = ["canonical_names"]

SYNONYMS = {
    "averageprecision": "AP",
    "hit": "Success",
    "hitrate": "Success",
    "hits": "Success",
    "meanaverageprecision": "AP",
    "meanreciprocalrank": "RR",
    "reciprank": "RR",
    "reciprocalrank": "RR",
    "rprecision": "Rprec",
}
"""Names of other tools and of papers, in small letters without what stands between words."""
WRITTEN = re.compile(r"\s*(?P<name>[^(@]+?)\s*(?P<settings>\(.*\))?\s*(?P<cutoff>@.*)?", re.DOTALL)
TREC_CUTOFFS = re.compile(r"[._](\d+(\.\d+)?(,\d+(\.\d+)?)*)$")


def canonical_names(text: str) -> list[str]:
    """Return a name that ir-measures knows; several where trec_eval's form names several cutoffs (P_5,10).

    Raises:
        ValueError: no measure has this name; the message names those that are near.

    >>> canonical_names("p@5"), canonical_names("ndcg_cut_5,10"), canonical_names("hit@1")
    (['P@5'], ['nDCG@5', 'nDCG@10'], ['Success@1'])
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError("the form is NAME(KEY=VALUE)@CUTOFF")
    name, settings, cutoff = found["name"], found["settings"] or "", found["cutoff"] or ""
    if not (settings or cutoff) and (trec := _trec_names(name)):
        return trec
    known = _known(name)
    if known is None and not cutoff and (digits := re.fullmatch(r"(.*?\D)(\d+)", name)):  # nDCG10
        known, cutoff = _known(digits[1]), f"@{digits[2]}"
    if known is None:
        raise ValueError(_unknown(name))
    return [f"{known}{settings}{cutoff}"]


def _known(name: str) -> str | None:
    """Return the name in the registry of ir-measures, whatever case and dashes it is written with."""
    from ir_measures.measures import registry

    if name in registry:
        return name
    by_plain = {_plain(known): known for known in registry}
    plain = _plain(name)
    return by_plain.get(plain) or SYNONYMS.get(plain)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower().replace("α", "alpha")  # noqa: RUF001  # ir-measures knows the Greek letter


def _trec_names(name: str) -> list[str]:
    """Return the measures that trec_eval calls `name`, as in `map`, `P_5` or `ndcg_cut.5,10`; none for other names."""
    import ir_measures

    lower = name.lower()
    spelled = re.sub(r"^(p|rprec|infap|set_p|set_f)(?=[._]|$)", lambda word: TREC_CASE[word[1]], lower)
    if TREC_CUTOFFS.sub("", spelled) not in TREC_NAMES:
        return []
    try:
        found = ir_measures.parse_trec_measure(spelled)
    except (TypeError, ValueError):
        return []
    bare = TREC_CUTOFFS.search(spelled) is None
    return [] if bare and len(found) > 1 else [str(measure) for measure in found]


TREC_CASE = {"p": "P", "rprec": "Rprec", "infap": "infAP", "set_p": "set_P", "set_f": "set_F"}
TREC_NAMES = frozenset((*TREC_CASE.values(), "bpref", "iprec_at_recall", "map", "map_cut", "ndcg", "ndcg_cut", "num_q"))
TREC_NAMES |= {"num_rel", "num_rel_ret", "num_ret", "recall", "recip_rank", "set_map", "set_recall", "set_relative_P"}
TREC_NAMES |= {"success"}


def _unknown(name: str) -> str:
    from ir_measures.measures import registry

    by_plain = {_plain(known): measure.NAME for known, measure in registry.items()} | SYNONYMS
    near = dict.fromkeys(by_plain[plain] for plain in get_close_matches(_plain(name), by_plain, n=3))
    return f"no measure has the name {name}" + (f"; near it are {', '.join(near)}" if near else "")
