"""Random command lines, made from the description that click has of each command: never a traceback, never a hang.

A command ends with 0, 1 and one line that begins with "Error:", or 2; where it fails nothing new stands in the folder,
and what stood there is as it was. `make fuzz` tries many more. Left out are `demo`, `doctor`, the benches,
which measure the machine for minutes, and what serves until it is stopped.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever.cli.main import cli

pytestmark = pytest.mark.filterwarnings("default")  # those of torch, faiss and readers are not what is tested
COUNT = 4 * int(os.environ.get("RETRIEVER_FUZZ", "15"))
TRIED: Counter[str] = Counter()
"""How many command lines were run, for the summary."""
SECONDS = 60
"""No command may take longer; the data are tiny."""
LEFT_OUT = {"demo", "doctor", "bench", "reproduce", "serve", "mcp"}
FILES = {
    "corpus.jsonl": "".join(json.dumps({"_id": f"d{n}", "text": f"river stone {n}", "n": n}) + "\n" for n in range(6)),
    "bad.jsonl": '{"_id": "a", "text": "bread"}\n{"_id": 1.5}\n',
    "corpus.csv": "id,text\na,river\nb,\n",
    "queries.tsv": "q1\triver\nq2\tstone\n",
    "qrels.txt": "q1 0 d1 1\nq2 0 d2 2\n",
    "run.trec": "q1 Q0 d1 1 2.5 t\nq1 Q0 d3 2 1.5 t\nq2 Q0 d2 1 1 t\n",
    "run2.trec": "q1 Q0 d2 1 2.5 t\nq2 Q0 d2 1 1 t\n",
    "pairs.jsonl": "".join(
        json.dumps({"query": f"what {n}", "positive": f"river {n}", "negatives": ["b"]}) + "\n" for n in range(9)
    ),
    "settings.yaml": "batch: 4\n",
    "train.yaml": "base: encoder\noutput: trained\nsources: [{path: pairs.jsonl}]\nsteps: 1\n",
    "bytes.jsonl": "\x00\x01",
    "empty.tsv": "",
    "notes.docx": "x",
}
OUTPUTS = [
    "out",
    "out.jsonl",
    "out.trec",
    "out.html",
    "deep/er/out",
    "corpus.jsonl/x",
    "qrels.txt",
    ".",
    "index",
    "",
    "-",
]
ENCODERS = ["none", "encoder", "absent", "st:", "st:absent", "st:encoder", "", "corpus.jsonl", "./"]
TEXTS = ["", " ", "river", "a,b", "1,2", "1", "0", "-1", "é😀", "'", '"', "=", "bm25=1", "bm25=nan,dense=inf", "9" * 40]
NAMED: dict[str, list[str]] = {
    "encoder": ENCODERS,
    "teacher": ENCODERS,
    "base": ENCODERS,
    "device": ["cpu", "", "cuda:9", "gpu", "cpu,cpu", "cuda"],
    "workers": ["0", "-1", "x"],
    "mode": ["bm25", "dense", "hybrid", "dense+sparse", "bm25+bm25", "", "+"],
    "modes": ["bm25", "bm25,dense", "hybrid,hybrid", "", ",", "x"],
    "measure": ["nDCG@10", "R@5", "RR@10", "x", "", "AP", "P@0", "nDCG@-1", "RBP", "nDCG@10 R@5", "nDCG@"],
    "filter": ["n < 3", "n", "", "n in (1, 2)", "not", "n = 'x", "absent = 1", "(" * 200],
    "weights": ["bm25=1", "bm25=0", "bm25=-1,dense=2", "bm25", "x=1", "bm25=nan,dense=1", "bm25=1e400,dense=1", ""],
    "sizes": ["3", "1,2", "0", "-1", "", "x"],
    "split": ["test", "dev", "", "../x", "/"],
    "dataset": ["set", "absent", "corpus.jsonl", "", "index", "settings.yaml", "hf:", "ir:"],
    "moe_layers": ["0", "1", "0,1", "9", "-1", "", "x", "0,0"],
}
"""Values for parameters by their names; others get any file, and any text."""


def commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}

    def walk(group: click.Group, names: str) -> None:
        for name, command in group.commands.items():
            if name in LEFT_OUT:
                continue
            if isinstance(command, click.Group):
                walk(command, f"{names}{name} ")
            else:
                found[names + name] = command

    walk(cli, "")
    return found


def values(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """Return values for a parameter, most of them such as its description allows."""
    kind, name = parameter.type, str(parameter.name)
    if isinstance(kind, click.Choice):
        return st.sampled_from([*map(str, kind.choices), "x", ""])
    if name in NAMED:
        return st.sampled_from(NAMED[name])
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return st.sampled_from(
            ["1", "2", "3", "7", "0", "-1", "1000000", "0.5", "1e3", "nan", "inf", "9" * 30, "x", ""]
        )
    if name == "output":
        return st.sampled_from(OUTPUTS)
    places = st.sampled_from([*FILES, "index", "encoder", "set", ".", "absent", "-", ""])
    return st.one_of(
        places, likely(name), likely(name), *([] if isinstance(kind, click.Path) else [st.sampled_from(TEXTS)])
    )


def likely(name: str) -> st.SearchStrategy[str]:
    """Return the files that a parameter is for, by its name."""
    right = {
        "folder": "index",
        "index": "index",
        "queries": "queries.tsv",
        "config": "settings.yaml",
        "runs": "run.trec",
    }
    right |= {"qrels": "qrels.txt", "run": "run.trec", "pairs": "pairs.jsonl", "corpus": "corpus.jsonl", "ids": "d1"}
    return st.just(right.get(name, "corpus.jsonl"))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw a command, its arguments (now and then one too few or too many) and some of its options."""
    name = draw(st.sampled_from(sorted(commands())))
    line: list[str] = []
    for parameter in commands()[name].params:
        if isinstance(parameter, click.Option):
            # An encoder is nearly always given: the default one is large.
            chance = 9 if parameter.required or parameter.name == "encoder" else 3
            if draw(st.integers(0, 9)) >= chance:
                continue
            line.append(draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts])))
            if parameter.is_flag or parameter.count:
                continue
            line.append(draw(values(parameter)))
        else:
            few = 1 if parameter.nargs == 1 else draw(st.integers(0, 3))
            few = few if draw(st.integers(0, 19)) else few + draw(st.sampled_from([-1, 1]))
            line += [draw(values(parameter)) for _ in range(few)]
    if draw(st.integers(0, 29)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(st.sampled_from(["--", "--absent", "-x", "--help"])))
    return [*name.split(), *line]


State = dict[str, tuple[int, int]]


def state(folder: Path) -> State:
    """Return the size and time of every file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def outside(found: State) -> State:
    """Leave out the index, which has a commit of its own: what lies beyond it is cut off at the next opening."""
    return {name: entry for name, entry in found.items() if not name.startswith("index/")}


@pytest.fixture(scope="module")
def template(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with something of each kind that commands read."""
    folder = tmp_path_factory.mktemp("commands") / "template"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content)
    shutil.copytree(tiny_encoder_folder, folder / "encoder")
    (folder / "set" / "qrels").mkdir(parents=True)
    shutil.copy(folder / "corpus.jsonl", folder / "set" / "corpus.jsonl")
    (folder / "set" / "queries.jsonl").write_text('{"_id": "q1", "text": "river"}\n')
    (folder / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    made = [
        "index",
        str(folder / "corpus.jsonl"),
        "--index",
        str(folder / "index"),
        "-q",
        "-e",
        str(folder / "encoder"),
    ]
    result = CliRunner().invoke(cli, made)
    assert result.exit_code == 0, result.output
    return folder


@contextmanager
def limit(line: list[str]) -> Iterator[None]:
    """Raise after SECONDS; print where, and end the process, if nothing can be raised there."""

    def stop(_signal: int, _frame: object) -> None:
        raise AssertionError(f"more than {SECONDS} s: {line}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(SECONDS * 3, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def check(line: list[str], result: Any, before: State, after: State) -> None:
    shown = f"retriever {' '.join(map(repr, line))}\n{result.output[-1500:]}"
    assert result.exception is None or isinstance(result.exception, SystemExit), (shown, result.exc_info)
    assert result.exit_code in (0, 1, 2), (result.exit_code, shown)
    assert "Traceback" not in result.output, shown
    if result.exit_code == 1:
        said = result.stderr.splitlines()
        assert sum(text.startswith("Error: ") for text in said) == 1 and said[-1].startswith("Error: "), shown
    if result.exit_code:
        assert outside(after) == outside(before), (shown, set(outside(after).items()) ^ set(outside(before).items()))


@pytest.mark.usefixtures("own_cache")
def test_any_command_line_ends_well(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def fresh() -> State:
        """Put the folder back as it was, which stays the working directory."""
        for path in work.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(template, work, dirs_exist_ok=True)
        return state(work)

    before, codes = fresh(), Counter[int]()

    @settings(max_examples=COUNT, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(line=command_lines())
    def tried(line: list[str]) -> None:
        nonlocal before
        with limit(line):
            result = CliRunner().invoke(cli, line, input="")
        after = state(work)
        if after != before or {path.name for path in work.iterdir()} != {path.name for path in template.iterdir()}:
            start, before = before, fresh()
        else:
            start = before
        codes[result.exit_code] += 1
        TRIED["command lines"] += 1
        check(line, result, start, after)

    tried()
    sys.stdout.write(f"exit codes: {dict(codes)}\n")
    assert set(codes) == {0, 1, 2}, "the lines are too much alike to show anything"
