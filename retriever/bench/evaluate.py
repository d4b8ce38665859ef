"""What measuring a run costs, from files to figures, beside the tools that people use for it, in one run."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EvaluationSpeed", "bench_evaluate", "write_files"]

MEASURES = ("nDCG@10", "R@100")
JUDGED_EVERY = 40  # one hit in so many is judged
RANX = """
import json, sys, time
from ranx import Qrels, Run, evaluate
started = time.perf_counter()
evaluate(Qrels({"q": {"d": 1}}), Run({"q": {"d": 1.0}}), ["ndcg@10", "recall@100"])
compiled = time.perf_counter() - started
qrels, run = Qrels.from_file(sys.argv[1], kind="trec"), Run.from_file(sys.argv[2], kind="trec")
found = evaluate(qrels, run, ["ndcg@10", "recall@100"])
print(json.dumps({"compiled": compiled, "ndcg": float(found["ndcg@10"])}))
"""


class Timed(NamedTuple):
    """One run of one tool."""

    seconds: float
    compiled: float
    ndcg: float


class EvaluationSpeed(NamedTuple):
    """One tool: median of the seconds from start to figures, as a multiple of ours, and the nDCG@10 that it found.

    compile_s: what the tool spent on compiling itself, which is not in `seconds`.
    """

    tool: str
    seconds: float
    ratio: float
    compile_s: float
    ndcg: float


def bench_evaluate(queries: int = 7000, hits: int = 1000, rounds: int = 3) -> list[EvaluationSpeed]:
    """Time the command lines of retriever and ir_measures, and ranx where it is installed, on the same random run.

    The tools take turns, each in a process of its own. Raises UserError if one of them fails.
    """
    tools: dict[str, Callable[[Path, Path], Timed]] = {"retriever": _ours, "ir_measures": _ir_measures}
    if importlib.util.find_spec("ranx") is not None:
        tools["ranx"] = _ranx
    timed: dict[str, list[Timed]] = {tool: [] for tool in tools}
    with tempfile.TemporaryDirectory() as folder:
        qrels, run = write_files(Path(folder), queries, hits)
        for _ in range(rounds):
            for tool, call in tools.items():
                timed[tool].append(call(qrels, run))
    medians = {tool: statistics.median(one.seconds for one in found) for tool, found in timed.items()}
    return [
        EvaluationSpeed(
            tool,
            medians[tool],
            medians[tool] / medians["retriever"],
            statistics.median(one.compiled for one in found),
            found[0].ndcg,
        )
        for tool, found in timed.items()
    ]


def write_files(folder: Path, queries: int, hits: int, seed: int = 0) -> tuple[Path, Path]:
    """Write random judgements, whose grades are 0 to 2, and a TREC run without ties; return qrels and run."""
    if queries < 1 or not 1 <= hits <= 1_000_000:
        raise UserError(
            f"queries {queries} and hits {hits} are out of range; need 1 or more, and a million hits at most"
        )
    random = np.random.default_rng(seed)
    qrels, run = folder / "qrels.txt", folder / "run.trec"
    with qrels.open("w", encoding="utf-8") as judged, run.open("w", encoding="utf-8") as ranked:
        for query in range(queries):
            documents = np.unique(random.integers(0, 8_800_000, 2 * hits))
            documents = random.permutation(documents)[:hits].tolist()
            # In steps that single precision can tell, because trec_eval's ranking is made of such scores.
            scores = (30 - np.cumsum(random.integers(1, 1000, len(documents))) * 2.0**-16).tolist()
            for rank, (document, score) in enumerate(zip(documents, scores, strict=True), start=1):
                ranked.write(f"{query} Q0 {document} {rank} {score!r} bench\n")
            for document in documents[query % JUDGED_EVERY % len(documents) :: JUDGED_EVERY]:
                judged.write(f"{query} 0 {document} {random.integers(0, 3)}\n")
    return qrels, run


def _ours(qrels: Path, run: Path) -> Timed:
    options = [option for measure in MEASURES for option in ("-m", measure)]
    seconds, output = _time("-m", "retriever", "evaluate", str(run), str(qrels), *options, "--json")
    return Timed(seconds, 0.0, json.loads(output.splitlines()[-1])["mean"]["nDCG@10"])


def _ir_measures(qrels: Path, run: Path) -> Timed:
    # Python 3.12 and later warn of what ir_measures reads measures with.
    seconds, output = _time("-W", "ignore", "-m", "ir_measures", str(qrels), str(run), *MEASURES, "--places", "9")
    values = dict(line.split("\t") for line in output.splitlines())
    return Timed(seconds, 0.0, float(values["nDCG@10"]))


def _ranx(qrels: Path, run: Path) -> Timed:
    seconds, output = _time("-c", RANX, str(qrels), str(run))
    found = json.loads(output.splitlines()[-1])
    return Timed(seconds - found["compiled"], found["compiled"], found["ndcg"])


def _time(*arguments: str) -> tuple[float, str]:
    """Return the seconds that a Python process took, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`python {' '.join(arguments)[:60]}...` failed ({reason}); is the tool whole?")
    return seconds, done.stdout
