"""gunicorn and Celery with forked workers, as docs/how-to/processes.md shows them, and as people do it wrongly."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "processes.md").read_text(encoding="utf-8")
QUERIES = ["bread dough yeast", "leaves turn red"]
PROCESS = 'start_response("200 OK", [("Worker", str(__import__("os").getpid())), '


def page_file(name: str) -> str:
    """Return the block of the page that begins with the name of a file."""
    [text] = re.findall(rf"^```python\n(# {re.escape(name)}\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("servers") / "my-index"
    tiny = str(ROOT / "tests" / "data" / "tiny")
    made = CliRunner().invoke(cli, ["index", tiny, "--index", str(folder), "-e", "none", "-q"])
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def folder(index: Path, tmp_path: Path) -> Path:
    """Return a folder with `my-index` in it, and nothing else: both servers import what lies beside them."""
    (tmp_path / "my-index").symlink_to(index)
    return tmp_path


@pytest.fixture(scope="module")
def expected(index: Path) -> list[list[str]]:
    from retriever import Retriever

    with Retriever.open(index) as retriever:
        return [[hit.doc_id for hit in retriever.search(query, top_k=3, mode="bm25")] for query in QUERIES]


@contextmanager
def started(folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server in a folder; end it and all of its workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"},
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    """Return where gunicorn listens, which it says when it has started."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"Listening at: (http://\S+)", line):
            return found[1]
    raise AssertionError(said)


def gunicorn(*options: str) -> tuple[str, ...]:
    return (
        "gunicorn",
        "--bind",
        "127.0.0.1:0",
        "--timeout",
        "100",
        "--no-control-socket",
        *options,
        "application:application",
    )


def asked(url: str, query: str) -> tuple[str | None, str]:
    """Return which worker answered, and what."""
    try:
        with urlopen(f"{url}/?{urlencode({'q': query})}", timeout=100) as answer:
            return answer.headers["Worker"], answer.read().decode()
    except HTTPError as error:
        return None, error.read().decode()


def test_gunicorn_without_preload(folder: Path, expected: list[list[str]]) -> None:
    text = page_file("application.py").replace('start_response("200 OK", [', PROCESS)
    (folder / "application.py").write_text(text)
    (folder / "gunicorn.conf.py").write_text(page_file("gunicorn.conf.py"))
    with started(folder, *gunicorn("-c", "gunicorn.conf.py")) as process:
        url = address(process)
        workers: set[str | None] = set()
        with ThreadPoolExecutor(8) as threads:
            until = time.monotonic() + 100
            while len(workers) < 2 and time.monotonic() < until:  # the second may start later
                answers = list(threads.map(lambda query: asked(url, query), QUERIES * 4))
                assert [json.loads(answer) for _, answer in answers] == expected * 4
                workers |= {worker for worker, _ in answers}
    assert len(workers) == 2 and str(process.pid) not in workers


def test_gunicorn_with_preload_says_what_is_wrong(folder: Path) -> None:
    """The application opens the index where it is imported, before the workers are forked."""
    text = page_file("application.py").replace("retriever = None", "from retriever import Retriever\nretriever = None")
    text = text.replace("retriever = None", 'retriever = Retriever.open("my-index")')
    text = text.replace("    hits =", "    try:\n        hits =").replace(
        "    start_response",
        "    except ValueError as error:\n"
        '        start_response("500 Error", [])\n'
        "        return [str(error).encode()]\n"
        "    start_response",
    )
    (folder / "application.py").write_text(text)
    with started(folder, *gunicorn("--preload")) as process:
        _, answer = asked(address(process), QUERIES[0])
    assert answer.startswith("this process was forked after this index was opened")
    assert "gunicorn without --preload" in answer


CALLS = """
import json, os, sys
from tasks import app, search
print(json.dumps([search.delay(query).get(timeout=120) for query in json.loads(sys.argv[1])]))
"""


def celery_in(folder: Path, text: str) -> list[list[str]]:
    """Start a worker, ask it, and return its answers; messages and results are files."""
    for name in ("messages", "control", "results"):
        (folder / name).mkdir(exist_ok=True)
    transport = {"data_folder_in": "messages", "data_folder_out": "messages", "control_folder": "control"}
    here = f'broker="filesystem://", broker_transport_options={transport}, backend="file://{folder}/results"'
    (folder / "tasks.py").write_text(text.replace('broker="redis://127.0.0.1", backend="redis://127.0.0.1"', here))
    worker = ("celery", "-A", "tasks", "worker", "--pool", "prefork", "-c", "2", "--without-gossip", "--without-mingle")
    with started(folder, *worker):
        asking = [sys.executable, "-W", "ignore", "-c", CALLS, json.dumps(QUERIES)]
        done = subprocess.run(asking, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_celery_prefork(folder: Path, expected: list[list[str]]) -> None:
    assert celery_in(folder, page_file("tasks.py")) == expected


def test_celery_with_an_index_opened_too_early_says_what_is_wrong(folder: Path) -> None:
    text = page_file("tasks.py").replace("retriever = None", 'retriever = Retriever.open("my-index")')
    text = text.replace("@worker_process_init.connect(weak=False)\n", "")
    text = text.replace("    return [", "    try:\n        return [")
    text += "    except ValueError as error:\n        return [str(error)]\n"
    for [answer] in celery_in(folder, text):
        assert answer.startswith("this process was forked after this index was opened")
