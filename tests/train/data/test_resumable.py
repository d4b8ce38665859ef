"""Rewriting pairs: killed anywhere, the next run ends with the same file."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retriever.train.data.pairs import PairRecord
from retriever.train.data.resumable import Rewriting
from retriever.train.data.vectors import VectorStore
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = 4
RECORDS = 18


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"query": f"q{i}", "positive": f"p{i % 7}", "kept": i}) for i in range(RECORDS)]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def numbered(rewriting: Rewriting, blocks: int = 100) -> Callable[[list[PairRecord]], list[dict[str, Any]]]:
    """Return work whose records say which row of a store their positive has; it is killed in block number `blocks`."""
    store = rewriting.vectors("rows", 2)
    begun = 0

    def work(records: list[PairRecord]) -> list[dict[str, Any]]:
        nonlocal begun
        begun += 1
        for record in records:
            missing = store.missing([record.example.positive])
            store.append(missing, np.full((len(missing), 2), len(store), dtype=np.float32))
        if begun > blocks:
            raise Killed
        return [record.fields | {"row": store.vectors([record.example.positive])[0].tolist()} for record in records]

    return work


def rewrite(pairs: Path, output: Path, blocks: int = 100) -> int:
    with Rewriting(pairs, output, {"setting": 1}, block=BLOCK) as rewriting:
        rewriting.run(numbered(rewriting, blocks))
        return rewriting.finish()


def test_every_record_is_written_in_order(pairs: Path, tmp_path: Path) -> None:
    assert rewrite(pairs, tmp_path / "out.jsonl") == RECORDS
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == [
        {"query": f"q{i}", "positive": f"p{i % 7}", "kept": i, "row": [i % 7, i % 7]} for i in range(RECORDS)
    ]
    assert not (tmp_path / "out.jsonl.part").exists()


@pytest.mark.parametrize("blocks", range(5))
@pytest.mark.parametrize("torn", [b"", b'{"query": "q', b'{"half": 1}\n{"written": 2}\n'])
def test_a_killed_run_goes_on_to_the_same_file(pairs: Path, tmp_path: Path, blocks: int, torn: bytes) -> None:
    rewrite(pairs, tmp_path / "whole.jsonl")
    with pytest.raises(Killed):
        rewrite(pairs, tmp_path / "out.jsonl", blocks)
    for name in ("records.jsonl", "vectors-rows"):
        with (tmp_path / "out.jsonl.part" / name).open("ab") as file:
            file.write(torn)
    assert rewrite(pairs, tmp_path / "out.jsonl") == RECORDS
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_is_done_is_not_done_again(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        rewrite(pairs, tmp_path / "out.jsonl", 2)
    seen: list[str] = []

    def work(records: list[PairRecord]) -> list[dict[str, Any]]:
        seen.extend(record.example.query for record in records)
        return [record.fields for record in records]

    with Rewriting(pairs, tmp_path / "out.jsonl", {"setting": 1}, block=BLOCK) as rewriting:
        rewriting.run(work)
    assert seen == [f"q{i}" for i in range(2 * BLOCK, RECORDS)]


def test_a_packed_file_is_the_same_each_time(pairs: Path, tmp_path: Path) -> None:
    for name in ("plain.jsonl", "a.jsonl.gz", "b.jsonl.gz"):
        rewrite(pairs, tmp_path / name)
    packed = (tmp_path / "a.jsonl.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "plain.jsonl").read_bytes()
    assert packed == (tmp_path / "b.jsonl.gz").read_bytes()


def test_what_would_mix_two_runs_is_refused(pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(Killed):
        rewrite(pairs, output, 2)
    with pytest.raises(UserError, match="begun with setting 1, cannot continue with 2"):
        Rewriting(pairs, output, {"setting": 2}, block=BLOCK)
    pairs.write_text('{"query": "q", "positive": "p"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="begun with pairs"):
        Rewriting(pairs, output, {"setting": 1}, block=BLOCK)
    with Rewriting(pairs, tmp_path / "other.jsonl", {}), pytest.raises(UserError, match="another writer"):
        Rewriting(pairs, tmp_path / "other.jsonl", {})
    output.touch()
    with pytest.raises(UserError, match="exists"):
        Rewriting(pairs, output, {"setting": 1}, block=BLOCK)


def test_vectors_come_back_by_their_text_and_only_the_first_rows_count(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    store = VectorStore(path, 3, 0)
    assert store.vectors([]).shape == (0, 3)
    assert store.missing(["a", "b", "a"]) == ["a", "b"]
    store.append(["a", "b"], np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32))
    store.append(["c"], np.array([[7, 8, 9]], dtype=np.float32))
    assert store.vectors(["c", "a", "c"]).tolist() == [[7, 8, 9], [1, 2, 3], [7, 8, 9]]
    again = VectorStore(path, 3, 2)
    assert (len(again), again.missing(["a", "b", "c"])) == (2, ["c"])
    assert again.vectors(["b"]).tolist() == [[4, 5, 6]]
    with pytest.raises(ValueError, match="need vectors"):
        again.append(["c"], np.zeros((1, 2), dtype=np.float32))
