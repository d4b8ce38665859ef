"""Faults of a user who evaluates: exit code 1, and one line that names the place."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.helpers.faults import TINY, fault, names, snapshot


def test_evaluate_faults(tmp_path: Path) -> None:
    qrels, good = TINY / "qrels" / "test.tsv", tmp_path / "good.trec"
    good.write_text("q01 Q0 d01 1 3.5 t\n")
    bad = tmp_path / "bad.trec"
    assert str(bad) in fault("evaluate", bad, qrels)
    bad.write_text("q01 Q0 d01 1 3.5 t\nq01 Q0 d02 2 high t\n")
    assert f"{bad}:2" in fault("evaluate", bad, qrels)
    missing = tmp_path / "missing.tsv"
    assert str(missing) in fault("evaluate", good, missing)
    missing.write_text("query-id\tcorpus-id\tscore\nq01\td01\tmuch\n")
    assert f"{missing}:2" in fault("evaluate", good, missing)
    assert "nDGC@10" in fault("evaluate", good, qrels, "-m", "nDGC@10")


def test_evaluate_dataset_faults(tmp_path: Path) -> None:
    options = ("--modes", "bm25", "--encoder", "none", "--quiet")
    assert str(tmp_path / "missing") in fault("evaluate", "--dataset", tmp_path / "missing", *options)
    assert "train" in fault("evaluate", "--dataset", TINY, "--split", "train", *options)
    assert "bm52" in fault("evaluate", "--dataset", TINY, "--modes", "bm52", "--encoder", "none", "--quiet")
    copy = tmp_path / "copy"
    shutil.copytree(TINY, copy)
    (copy / "corpus.jsonl").unlink()
    assert str(copy) in fault("evaluate", "--dataset", copy, *options)
    assert names(tmp_path) == ["copy"]
    assert snapshot(copy).keys() < snapshot(TINY).keys()
