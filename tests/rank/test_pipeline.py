"""Pipelines as text, and what running one means: order, budgets, failures, and what each stage said."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.rank import Duo, Expand, Feedback, LateInteraction, Mmr, Pipeline, Rerank, Rescore
from retriever.rank.scorers import registered_scorer
from retriever.rank.stage import STAGES, Stage, on_top, register
from retriever.search.retriever import Retriever
from retriever.types import Query, ScoredDoc, UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def shortest_first(query: str, texts: Sequence[str]) -> list[float]:
    return [-float(len(text)) for text in texts]


@pytest.mark.parametrize(
    ("line", "pipeline"),
    [
        ("hybrid", Pipeline()),
        ("> mmr", Pipeline(stages=(Mmr(),))),
        ("mmr(0.5)", Pipeline(stages=(Mmr(0.5),))),
        ("bm25+dense>mmr( 0.5 , depth = 20 )", Pipeline("bm25+dense", (Mmr(0.5, 20),))),
        (
            "bm25+dense+sparse > rerank(cross-encoder:a/b-c_1, depth=50) > mmr(0.7)",
            Pipeline("bm25+dense+sparse", (Rerank("cross-encoder:a/b-c_1"), Mmr())),
        ),
        ('dense > duo("cross-encoder:my (old), model", on_error=pass)', None),
        ("bm25 > feedback(rm3, weight=1, terms=none, budget_ms=2.5)", None),
    ],
)
def test_a_line_is_read_and_written(line: str, pipeline: Pipeline | None) -> None:
    read = Pipeline.parse(line)
    assert pipeline is None or read == pipeline
    assert Pipeline.parse(str(read)) == read


def test_yaml_and_a_line_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "mode: bm25+dense\nstages:\n  - feedback\n  - rerank: {model: 'cross-encoder:x', depth: 20}\n  - mmr:\n"
    )
    assert Pipeline.read(file) == Pipeline.parse("bm25+dense > feedback > rerank(cross-encoder:x, 20) > mmr")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "nothing is there"),
        ("hybrid mmr", "need > before a stage at character 8"),
        ("hybrid >", "the name of a stage is missing at its end"),
        ("hybrid > mmr(0.5", "need , or ) at its end"),
        ("hybrid > mmr(0.5 20)", "need , or ) at character 18"),
        ("hybrid > mmr(,)", "a setting is missing at character 14"),
        ("hybrid > mmr(depth=20, 0.5)", "a setting without a name stands behind one with a name"),
        ("hybrid > mmr(depth=)", "the value of depth is missing"),
        ('hybrid > mmr("0.5)', "a quotation mark has no end at character 14"),
        ("hybrid > mmm", "no stage is called 'mmm'; there are feedback, late-interaction, rescore, rerank, duo, mmr"),
        ("wave > mmr", "mode 'wave' is unknown"),
        ("hybrid > mmr(1.5)", "mmr: balance is 1.5; need a number from 0 to 1"),
        ("hybrid > mmr(0.5, 10, 3)", "mmr takes 2 settings without a name: balance, depth"),
        ("hybrid > mmr(0.5, balance=0.5)", "mmr has balance twice"),
        ("hybrid > mmr(lambda=0.5)", "unknown setting 'lambda'"),
        ("hybrid > mmr(high)", "balance is 'high', need float"),
        ("hybrid > rerank", "rerank needs model"),
        ("hybrid > rerank(magic)", "no scorer is called 'magic'"),
        ("hybrid > feedback(more)", "method is 'more'; need one of joint, rm3, rocchio, average"),
        ("hybrid > mmr(on_error=shout)", "on_error is 'shout'; need one of fail, pass"),
        ("hybrid > mmr(budget_ms=0)", "budget_ms is 0; need a number above 0"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(line: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        Pipeline.parse(line)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["stage: []", "stages: mmr", "mode: 3", "stages: [{mmr: 3}]", "stages: [[mmr]]"])
def test_yaml_that_is_no_pipeline_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(UserError, match=r"p\.yaml"):
        Pipeline.read(tmp_path / "p.yaml")


@given(st.text(alphabet='hybrid >mr(0.7,depth=)"+x\n', max_size=40))
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        read = Pipeline.parse(line)
    except UserError:
        return
    assert Pipeline.parse(str(read)) == read


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(-9, 9)), st.lists(st.floats(-9, 9), min_size=6, max_size=6))
def test_what_was_scored_stands_on_top(scores: dict[str, float], old: list[float]) -> None:
    ranking = sorted(
        (ScoredDoc(*pair) for pair in zip("abcdef", old, strict=True)), key=lambda hit: (-hit.score, hit[0])
    )
    found = on_top(scores, ranking)
    assert sorted(hit.doc_id for hit in found) == list("abcdef")
    assert [hit.doc_id for hit in found[: len(scores)]] == sorted(scores, key=lambda name: (-scores[name], name))
    assert [hit.doc_id for hit in found[len(scores) :]] == [hit.doc_id for hit in ranking if hit.doc_id not in scores]
    assert all(one.score >= other.score for one, other in itertools.pairwise(found))


def test_each_stage_says_where_it_puts_a_hit(retriever: Retriever, queries: list[str]) -> None:
    pipeline = Pipeline("bm25+dense+sparse", (Rerank(shortest_first, 20), Mmr(0.6, 10)))
    plain = retriever.search(queries[0], 20)
    hits = retriever.search(queries[0], 20, pipeline=pipeline, explain=True)
    assert {hit.doc_id for hit in hits} == {hit.doc_id for hit in plain}
    assert [hit.stages[-1].rank for hit in hits] == [hit.rank for hit in hits] == list(range(1, 21))
    assert [hit.stages[-1].score for hit in hits] == [hit.score for hit in hits]
    by_length = sorted(plain, key=lambda hit: (len(hit.text), hit.doc_id))
    for hit in hits:
        assert [stage.stage for stage in hit.stages] == ["rerank", "mmr"]
        assert hit.stages[0].score == -len(hit.text)
        assert by_length[hit.stages[0].rank - 1].doc_id == hit.doc_id
        assert all(stage.milliseconds > 0 for stage in hit.stages)
        assert hit.parts and hit.terms
    assert not any(hit.stages for hit in plain)


def test_many_queries_rank_as_each_alone(retriever: Retriever, queries: list[str]) -> None:
    pipeline = Pipeline.parse("feedback(joint) > mmr(0.5, depth=7)")
    asked = [Query(str(n), text) for n, text in enumerate(queries[:8])]
    found = {one.query_id: one.ranking for one in retriever.rank_pipeline(asked, 30, pipeline=pipeline)}
    for query in asked:
        alone = retriever.search(query.text, 30, pipeline=pipeline)
        assert [hit.doc_id for hit in alone] == [hit.doc_id for hit in found[query.query_id]]
        assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in found[query.query_id]], abs=1e-6)


def broken(query: str, texts: Sequence[str]) -> list[float]:
    raise RuntimeError("no such luck")


def slow(query: str, texts: Sequence[str]) -> list[float]:
    time.sleep(0.03)
    return [0.0] * len(texts)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (Rerank(broken, on_error="pass"), "no such luck"),
        (Rerank(slow, budget_ms=5, on_error="pass"), "more than its 5 ms"),
    ],
)
def test_a_stage_that_fails_can_be_passed_over(
    stage: Stage, said: str, retriever: Retriever, queries: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    hits = retriever.search(queries[1], 5, pipeline=Pipeline(stages=(stage, Mmr())))
    assert said in caplog.text
    assert hits == [
        hit._replace(stages=hits[n].stages)
        for n, hit in enumerate(retriever.search(queries[1], 5, pipeline=Pipeline(stages=(Mmr(),))))
    ]
    assert [part.stage for part in hits[0].stages] == ["mmr"]


def test_a_stage_that_fails_ends_the_search_otherwise(retriever: Retriever, queries: list[str]) -> None:
    with pytest.raises(RuntimeError, match="no such luck"):
        retriever.search(queries[1], pipeline=Pipeline(stages=(Rerank(broken),)))
    with pytest.raises(UserError, match=r"rerank needs more than its 5 ms; give it a smaller depth"):
        retriever.search(queries[1], pipeline=Pipeline(stages=(Rerank(slow, budget_ms=5),)))


def test_a_mode_beside_a_pipeline_is_refused(retriever: Retriever) -> None:
    with pytest.raises(UserError, match="names its own"):
        retriever.search("ba000n", mode="bm25", pipeline=Pipeline())


def test_functions_have_names_while_they_are_registered() -> None:
    with registered_scorer("shortest", shortest_first):
        assert Pipeline.parse("bm25 > rerank(shortest)").stages == (Rerank("shortest"),)
        with pytest.raises(ValueError, match="taken"), registered_scorer("shortest", shortest_first):
            pass
    with pytest.raises(UserError, match="no scorer"):
        Pipeline.parse("bm25 > rerank(shortest)")


def test_a_stage_is_registered_once() -> None:
    with pytest.raises(ValueError, match="taken"):
        register(Mmr)
    assert list(STAGES.values())[:7] == [Feedback, LateInteraction, Rescore, Rerank, Duo, Mmr, Expand]


def test_documents_without_hits(retriever: Retriever) -> None:
    for line in ("bm25 > feedback(rm3)", "bm25 > mmr", "bm25 > rerank(cross-encoder:none)"):
        assert retriever.search("zzzz", pipeline=Pipeline.parse(line)) == []
