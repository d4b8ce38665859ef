"""The choice among pipelines, against evaluating each of them by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retriever.eval.data.datasets import load_dataset
from retriever.experiments.experiment import ExperimentConfig, evaluate
from retriever.experiments.pipeline_tuning import MOST, candidates, tune_pipeline
from retriever.indexing.build import build_index
from retriever.rank import Pipeline
from retriever.rank.grammar import alternatives
from retriever.search.retriever import Retriever
from retriever.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = Path(__file__).parents[1] / "data" / "tiny"
LINE = "hybrid > feedback(joint|rocchio, weight=0.25|4, keep=2) > mmr(0.2|1)"


def test_a_line_with_alternatives_is_all_of_them() -> None:
    assert alternatives("hybrid > mmr") == ["hybrid > mmr"]
    assert alternatives('hybrid >rerank( "a|b" ,depth=3|4)') == [
        'hybrid >rerank( "a|b" ,depth=3)',
        'hybrid >rerank( "a|b" ,depth=4)',
    ]
    found = [str(pipeline) for pipeline in candidates(LINE)]
    assert len(found) == 8 and found[0] == "hybrid > feedback(weight=0.25, keep=2) > mmr(0.2)"
    assert found[-1] == "hybrid > feedback(rocchio, weight=4, keep=2) > mmr(1)"
    with pytest.raises(UserError, match=f"stands for {3**6} pipelines, at most {MOST}"):
        candidates("hybrid > mmr(0.1|0.2|0.3, 1|2|3) > mmr(0.1|0.2|0.3, 1|2|3) > mmr(0.1|0.2|0.3, 1|2|3)")


def test_it_chooses_what_evaluation_finds_best(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    build_index(TINY, tmp_path / "index", encoder=str(tiny_encoder_folder))
    data = load_dataset(TINY, "test")
    with Retriever.open(tmp_path / "index") as retriever:
        found = tune_pipeline(retriever, data, pipelines=candidates(LINE))
        modes = ("hybrid", *map(str, candidates(LINE)))
        results = evaluate(data, retriever, config=ExperimentConfig(modes=modes))
        means = {mode: result.mean["nDCG@10"] for mode, result in results.items()}
        assert found.values == pytest.approx(means)
        assert len({round(value, 6) for value in means.values()}) > 3
        assert found.before == pytest.approx(means["hybrid"])
        assert found.fitted == pytest.approx(max(means.values())) and means[found.pipeline] == max(means.values())
        values = np.array([[of["nDCG@10"] for of in result.per_query.values()] for result in results.values()])
        fold = np.random.default_rng(0).permutation(values.shape[1]) % 5
        chosen = [int(np.argmax(np.round(values[:, fold != own].mean(1), 12))) for own in fold]
        wanted = values[chosen, np.arange(values.shape[1])].mean()
        assert found.cross_validated == pytest.approx(wanted)
        assert found.gain == pytest.approx(wanted - means["hybrid"], abs=1e-9)
        with pytest.raises(UserError, match="found the modes bm25, dense, need one"):
            tune_pipeline(retriever, data, pipelines=[Pipeline("dense"), Pipeline("bm25")])
