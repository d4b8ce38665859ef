from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from retriever.eval.data.distractors import read_distractors
from retriever.types import UserError


def test_the_forms_of_records_and_each_text_once(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    records: list[dict[str, str]] = [
        {"_id": "x", "title": "T", "text": "one"},
        {"query": "q", "positive": "two"},
        {"contents": "three"},
        {"text": "  "},
    ]
    first.write_text("".join(json.dumps(record) + "\n" for record in records))
    second.write_bytes(gzip.compress(b'{"text": "three"}\n{"text": "four"}\n'))
    found = list(read_distractors([first, second]))
    assert [document.doc_id for document in found] == [f"distractor-{n}" for n in range(4)]
    assert [document.contents for document in found] == ["T one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "not JSON"), ('{"query": "q"}', "found 'query', need a string under text or"), ("[1]", "found a list")],
)
def test_a_record_without_text_names_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(UserError, match=rf"a\.jsonl:2: {message}"):
        list(read_distractors([path]))
