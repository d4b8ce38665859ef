"""`retriever tune` on the tiny data set; what it fits is tested in test_tuning.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.encoder.load import NoEncoder
from retriever.experiments.tuning import leg_runs
from retriever.index.settings import IndexSettings
from retriever.index.writer import FolderWriter
from retriever.search.fusion.fusion import NORMALISATIONS, FusionConfig
from retriever.search.fusion.stored import store_fusion
from retriever.search.retriever import Retriever
from retriever.types import Query, UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[2] / "data" / "tiny"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def call(*args: object) -> str:
    result = invoke(*args)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def fault(*args: object) -> str:
    result = invoke(*args)
    assert result.exit_code == 1 and result.stdout == "", (result.output, result.exception)
    [line] = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def folder(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "index"
    call("index", TINY, "--index", path, "--encoder", tiny_encoder_folder, "--quiet")
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_it_prints_can_be_pasted(folder: Path, tmp_path: Path) -> None:
    before = snapshot(folder)
    found = json.loads(call("tune", folder, "--dataset", TINY, "--split", "test", "--json"))
    assert found["queries"] == 6 and found["fusion"]["normalisation"] in NORMALISATIONS
    assert sum(found["fusion"]["weights"].values()) == pytest.approx(1)
    low, high = found["interval"]
    assert low <= found["gain"] <= high
    assert found["gain"] == pytest.approx(found["cross_validated"] - found["default"])
    text = call("tune", folder, "--dataset", TINY, "--split", "test")
    assert f"default {found['default']:.4f}, cross-validated {found['cross_validated']:.4f}, gain" in text
    assert snapshot(folder) == before
    for options, value in ((text.splitlines()[-1].split(), found["fitted"]), ([], found["default"])):
        run = tmp_path / "run.trec"
        call("search", folder, "--queries", TINY / "queries.jsonl", "--top-k", 10, "--output", run, *options)
        [measured] = call("evaluate", run, TINY / "qrels" / "test.tsv", "-m", "nDCG@10", "--json").splitlines()
        assert json.loads(measured)["mean"]["nDCG@10"] == pytest.approx(value)


def test_what_is_written_is_what_searches_and_stays(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "index"
    call("index", TINY, "--index", path, "--encoder", tiny_encoder_folder, "--quiet")
    assert "fusion     default" in call("info", path)
    before = call("search", path, "what cats eat", "--json")
    found = json.loads(call("tune", path, "--dataset", TINY, "--split", "test", "--write", "--json"))

    def stored() -> dict[str, object]:
        fusion = json.loads(call("info", path, "--json"))["fusion"]
        return {name: fusion[name] for name in ("weights", "normalisation")}

    options = ["--normalisation", found["fusion"]["normalisation"]]
    options += ["--weights", ",".join(f"{leg}={weight}" for leg, weight in found["fusion"]["weights"].items())]
    assert stored() == found["fusion"]
    assert " ".join(options[:2]) in call("info", path)
    assert call("search", path, "what cats eat", "--json") == call("search", path, "what cats eat", "--json", *options)
    default = ["--weights", ",".join(f"{leg}={weight}" for leg, weight in FusionConfig().weights.items())]
    assert call("search", path, "what cats eat", "--json", *default) == before, "options win over what is stored"
    more = tmp_path / "more.jsonl"
    more.write_text('{"_id": "new", "text": "what cats eat"}\n')
    for step in (
        ["index", TINY, "--index", path, "--encoder", tiny_encoder_folder, "--resume", "--quiet"],
        ["add", path, more, "--quiet"],
        ["delete", path, "new"],
        ["compact", path, "--dense-type", "hnsw"],
    ):
        call(*step)
        assert stored() == found["fusion"], step
    assert "as they were committed" in call("verify", path)


def test_the_document_that_is_the_query_is_no_hit(tiny_corpus: Path, folder: Path) -> None:
    [document, *_] = [json.loads(line) for line in tiny_corpus.read_text(encoding="utf-8").splitlines()]
    query = Query(document["_id"], document["text"])
    with Retriever.open(folder) as retriever:
        whole, others = leg_runs(retriever, [query]), leg_runs(retriever, [query], exclude_self=True)
    for leg, run in whole.items():
        found = run[query.query_id]
        assert len(others[leg][query.query_id]) == len(found) - 1, leg
        assert others[leg][query.query_id] == [hit for hit in found if hit.doc_id != query.query_id], leg


def test_an_open_retriever_sees_what_is_written(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "index"
    call("index", TINY, "--index", path, "--encoder", tiny_encoder_folder, "--quiet")
    given = FusionConfig(weights={"bm25": 1.0})
    with Retriever.open(path) as follows, Retriever.open(path, fusion=given) as told:
        assert follows.fusion == FusionConfig()
        store_fusion(path, FusionConfig(weights={"dense": 1.0}))
        assert follows.reopen() and told.reopen()
        assert follows.fusion.weights == {"dense": 1.0}
        assert told.fusion == given


def test_weights_are_not_written_into_an_index_that_is_not_finished(tmp_path: Path) -> None:
    FolderWriter.create(tmp_path / "index", IndexSettings(NoEncoder.identity)).close()
    with pytest.raises(UserError, match="finish it with `retriever index"):
        store_fusion(tmp_path / "index", FusionConfig())


def test_faults(folder: Path, tmp_path: Path) -> None:
    assert "found 4 judged queries, need 5 or more" in fault("tune", folder, "--dataset", TINY)
    assert "no split 'train'" in fault("tune", folder, "--dataset", TINY, "--split", "train")
    assert "no such folder" in fault("tune", folder, "--dataset", tmp_path / "none")
    assert str(tmp_path / "none") in fault("tune", tmp_path / "none", "--dataset", TINY)
    bm25 = tmp_path / "bm25"
    call("index", TINY, "--index", bm25, "--encoder", "none", "--quiet")
    assert "only bm25 to fuse" in fault("tune", bm25, "--dataset", TINY, "--split", "test")


def test_settings_of_stages_are_chosen(folder: Path) -> None:
    before = snapshot(folder)
    line = "hybrid > feedback(weight=0.5|1) > mmr(0.5|0.9)"
    args = ("tune", folder, "--dataset", TINY, "--split", "test", "--pipeline", line)
    found = json.loads(call(*args, "--json"))
    assert list(found["values"]) == [
        "hybrid",
        *(f"hybrid > feedback(weight={weight}) > mmr({balance})" for weight in (0.5, 1) for balance in (0.5, 0.9)),
    ]
    text = call(*args)
    assert f"gain {found['gain']:+.4f}" in text and f"--pipeline '{found['pipeline']}'" in text
    assert snapshot(folder) == before
    assert invoke(*args, "--write").exit_code == 2
    assert "no stage is called 'nothing'" in fault(*args[:-1], "hybrid > nothing|mmr")
