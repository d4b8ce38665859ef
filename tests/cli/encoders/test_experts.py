"""`retriever experts report`: the table, the records and the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch
VOID = ("meta", "br", "link", "img")


class Page(HTMLParser):
    """Checks that every element is closed, and collects what a browser would fetch and what it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        links = [str(value) for name, value in attrs if name in ("src", "href")]
        self.fetched += [link for link in links if not link.startswith("#")]  # those lead elsewhere on the page

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def output(tiny_encoder_folder: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    options = ["--field", "topic", "--min-count", "3", "--output", str(folder), "--quiet"]
    result = CliRunner().invoke(cli, ["experts", "report", str(tiny_encoder_folder), str(tiny_corpus), *options])
    assert result.exit_code == 0, (result.output, result.exception)
    (folder / "stdout.txt").write_text(result.stdout)
    return folder


def test_the_table_has_a_line_for_each_expert(output: Path) -> None:
    first, header, *rest = (output / "stdout.txt").read_text().splitlines()
    assert first.endswith("tokens of 19 documents, 4 routed experts for each")
    assert header.split() == ["layer", *(f"e{n}" for n in range(8)), "H(load)", "H(router)"]
    records = json.loads((output / "experts.json").read_text())
    shown = [line.split()[0] for line in rest if line.startswith("  ")]
    assert shown == ["+".join(map(str, record["experts"])) for record in records]
    assert sum(record["load"] for record in records) == pytest.approx(1)


def test_json_prints_what_the_file_holds(tiny_encoder_folder: Path, tiny_corpus: Path, output: Path) -> None:
    options = ["--field", "topic", "--min-count", "3", "--json", "--quiet"]
    result = CliRunner().invoke(cli, ["experts", "report", str(tiny_encoder_folder), str(tiny_corpus), *options])
    assert [json.loads(line) for line in result.stdout.splitlines()] == json.loads(
        (output / "experts.json").read_text()
    )


def test_the_page_is_whole_and_needs_nothing_else(output: Path) -> None:
    page = Page()
    page.feed((output / "experts.html").read_text(encoding="utf-8"))
    assert not page.open and not page.fetched
    style = (output / "experts.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in style and "@import" not in style and "url(" not in style
    shown = " ".join(page.text)
    for record in json.loads((output / "experts.json").read_text()):
        assert f"{100 * record['load']:.1f}% of choices" in shown
        for token in record["tokens"]:
            assert token["name"] in shown


def test_markup_in_texts_stays_text(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    record = {"_id": "a", "text": "bread & yeast " * 20, "topic": "<script>alert(1)</script>"}
    corpus.write_text(json.dumps(record) + "\n" + json.dumps(record | {"_id": "b", "topic": "&"}) + "\n")
    options = ["--field", "topic", "--min-count", "1", "--output", str(tmp_path), "--quiet"]
    result = CliRunner().invoke(cli, ["experts", "report", str(tiny_encoder_folder), str(corpus), *options])
    assert result.exit_code == 0, (result.output, result.exception)
    page = Page()
    page.feed((tmp_path / "experts.html").read_text(encoding="utf-8"))
    assert not page.open and "<script" not in (tmp_path / "experts.html").read_text(encoding="utf-8")


def test_vocabulary_experts_are_made_and_shown(tiny_encoder_folder: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    new = str(tmp_path / "new")
    made = ["experts", "cluster", str(tiny_encoder_folder), "--clusters", "8", "--per-token", "2", "--output", new]
    assert CliRunner().invoke(cli, made).output.strip() == new
    result = CliRunner().invoke(cli, ["experts", "report", new, str(tiny_corpus), "--quiet", "--documents", "3"])
    assert result.exit_code == 0, (result.output, result.exception)
    shown = re.search(r"8 vocabulary experts of (\d+) to (\d+) terms, 2 for each token", result.stdout)
    assert shown is not None and 1 <= int(shown[1]) <= int(shown[2])


def test_a_model_without_a_sparse_head_has_no_vocabulary_to_cut(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["experts", "cluster", "st:all-MiniLM-L6-v2", "--output", str(tmp_path / "new")])
    assert result.exit_code == 1 and "has no sparse head; give an encoder folder, or 'default'" in result.output
