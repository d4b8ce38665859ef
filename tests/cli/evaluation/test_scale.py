"""`retriever scale` on the tiny data set: what it measures is what evaluation measures, and it goes on where it was."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.eval.data.distractors import read_distractors
from retriever.index import FolderReader
from retriever.indexing.writer import IndexWriter

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[2] / "data" / "tiny"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def call(*args: object) -> list[dict[str, object]]:
    result = invoke(*args, "--json", "--quiet")
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def fault(*args: object) -> str:
    result = invoke(*args, "--quiet")
    assert result.exit_code == 1 and result.stdout == "", (result.output, result.exception)
    [line] = result.stderr.splitlines()
    return line


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Thirty texts made of the corpus's own words, so that they compete."""
    texts = [json.loads(line)["text"] for line in (TINY / "corpus.jsonl").read_text().splitlines()]
    words = " ".join(texts).split()
    path = tmp_path / "noise.jsonl"
    path.write_text("".join(json.dumps({"positive": " ".join(words[n::31][:40])}) + "\n" for n in range(30)))
    return path


def test_each_size_is_what_a_fresh_index_of_that_size_gives(noise: Path, tmp_path: Path) -> None:
    output = tmp_path / "scale"
    points = call("scale", TINY, "--distractors", noise, "--sizes", "0,10,30", "--encoder", "none", "-o", output)
    assert [(point["system"], point["distractors"]) for point in points] == [("bm25", 0), ("bm25", 10), ("bm25", 30)]
    assert points == json.loads((output / "scale.json").read_text())
    for point in points:
        size = int(str(point["distractors"]))
        together = tmp_path / f"{size}" / "tiny"
        together.mkdir(parents=True)
        for name in ("queries.jsonl", "qrels"):
            (together / name).symlink_to(TINY / name)
        more = [json.loads(line)["positive"] for line in noise.read_text().splitlines()[:size]]
        lines = [json.dumps({"_id": f"n{n}", "text": text}) for n, text in enumerate(more)]
        (together / "corpus.jsonl").write_text((TINY / "corpus.jsonl").read_text() + "\n".join(lines) + "\n")
        index = tmp_path / f"index-{size}"
        [expected] = call("evaluate", "--dataset", together, "--modes", "bm25", "-e", "none", "--index", index)[-1:]
        mean = expected["mean"]
        assert isinstance(mean, dict) and point["value"] == pytest.approx(mean["nDCG@10"])
    assert len({point["value"] for point in points}) > 1
    svg = (output / "scale.svg").read_text()
    assert "bm25" in svg or "<path" in svg


def test_it_goes_on_and_measures_nothing_twice(noise: Path, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    base = ("scale", TINY, "--distractors", noise, "-o", tmp_path / "scale", "--encoder", tiny_encoder_folder)
    first = call(*base, "--sizes", "0,5", "--modes", "dense,bm25+dense")
    records = tmp_path / "scale" / "scale.json"
    # What is there is believed: a value that nothing could measure comes back.
    changed = [point | {"value": 7.0} if point["distractors"] == 5 else point for point in first]
    records.write_text(json.dumps(changed))
    second = call(*base, "--sizes", "0,5,20", "--modes", "dense,bm25+dense")
    assert second[:4] == changed and [point["distractors"] for point in second[4:]] == [20, 20]
    with FolderReader.open(tmp_path / "scale" / "index") as reader:
        assert reader.num_documents == 20 + 20 and reader.commit_data.dense_type == "flat"
    assert call(*base, "--sizes", "5", "--modes", "dense") == [point for point in changed if point["value"] == 7.0][:1]
    assert "holds 20 distractors already, so 5 cannot be measured" in fault(*base, "--sizes", "5", "--modes", "bm25")


def test_what_a_crash_left_is_kept(noise: Path, tmp_path: Path) -> None:
    def options(name: str) -> tuple[object, ...]:
        return ("scale", TINY, "--distractors", noise, "-e", "none", "-o", tmp_path / name, "--sizes")

    call(*options("broken"), "0")
    with IndexWriter.open(tmp_path / "broken" / "index") as writer:
        writer.add(islice(read_distractors([noise]), 7))
        writer.commit()  # as a run towards 12 does now and then
    call(*options("whole"), "0")
    assert call(*options("broken"), "12") == call(*options("whole"), "12")
    with FolderReader.open(tmp_path / "broken" / "index") as reader:
        assert reader.num_documents == 20 + 12


def test_faults_are_one_line(noise: Path, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    base = ("scale", TINY, "--distractors", noise, "-o", tmp_path / "scale")
    assert "30 different texts, need 31; give more" in fault(*base, "--sizes", "31", "-e", "none")
    assert "give numbers of distractors from 0 on" in fault(*base, "--sizes", "-1,2", "-e", "none")
    assert not (tmp_path / "scale" / "index").exists()
    call(*base, "--sizes", "0", "-e", "none")
    assert "an experiment with another data set, split" in fault(*base, "--sizes", "0", "-e", "none", "--split", "dev")
    assert "built with the encoder none" in fault(*base, "--sizes", "0", "-e", tiny_encoder_folder)
    assert "has no dense leg" in fault(*base, "--sizes", "0", "-e", "none", "--modes", "dense")
    (tmp_path / "scale" / "scale.json").write_text("[1]")
    assert "not the points of an experiment" in fault(*base, "--sizes", "0", "-e", "none")


def test_the_table(noise: Path, tmp_path: Path) -> None:
    result = invoke("scale", TINY, "--distractors", noise, "--sizes", "0,4", "-e", "none", "-o", tmp_path / "s", "-q")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["distractors", "0", "4"]
