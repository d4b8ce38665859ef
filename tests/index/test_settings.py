"""index.json, the write lock and the configuration file."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retriever.index.lock import WriteLock
from retriever.index.settings import IndexSettings, read_settings, write_settings
from retriever.types import EncoderIdentity, UserError

SETTINGS = IndexSettings(EncoderIdentity("ünser-encoder", "ab12", 8, 100), k1=1.2, impact_scale=50)
ROOT = Path(__file__).parents[2]


def test_round_trip(tmp_path: Path) -> None:
    write_settings(tmp_path, SETTINGS)
    assert read_settings(tmp_path) == SETTINGS
    assert [file.name for file in tmp_path.iterdir()] == ["index.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("\xff", "not JSON"),
        ("[]", "retriever-index"),
        ('{"format": "other"}', "retriever-index"),
        ('{"format": "retriever-index", "version": 2}', "version 2"),
        ('{"format": "retriever-index", "version": 1}', "missing or unknown"),
        (None, "unknown"),
    ],
)
def test_damaged_or_foreign_settings(tmp_path: Path, content: str | None, words: str) -> None:
    write_settings(tmp_path, SETTINGS)
    path = tmp_path / "index.json"
    if content is None:
        content = json.dumps(json.loads(path.read_text()) | {"colour": 1})
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=words) as caught:
        read_settings(tmp_path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_and_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such index folder"):
        read_settings(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not an index folder"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"analyzer": "klingon"},
        {"row_dtype": "int3"},
        {"k1": -1.0},
        {"k1": float("nan")},
        {"k1": "high"},
        {"b": 1.5},
        {"impact_scale": 0},
        {"impact_scale": 2.5},
        {"max_terms": 0},
        {"max_terms": 2.5},
        {"min_weight": 0},
        {"min_weight": "few"},
    ],
)
def test_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        dataclasses.replace(SETTINGS, **wrong)  # type: ignore[arg-type]


def test_second_writer_is_told_the_pid(tmp_path: Path) -> None:
    lock = WriteLock(tmp_path)
    with pytest.raises(UserError, match=rf"process {os.getpid()}\b"):
        WriteLock(tmp_path)
    lock.release()
    lock.release()
    WriteLock(tmp_path).release()


def test_lock_of_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from retriever.index.lock import WriteLock\n"
        "lock = WriteLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"):
            WriteLock(tmp_path)
        holder.kill()
    WriteLock(tmp_path).release()
