"""The examples of docs/how-to/frameworks.md, run in this process, which has torch and Java already."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_examples import PAGES, blocks

pytestmark = [
    pytest.mark.lucene,
    pytest.mark.weights,
    pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning:pyterrier"),
]
EXAMPLES = [block for block in blocks(PAGES["docs/how-to/frameworks.md"]) if block.kind == "python"]


@pytest.mark.parametrize(
    "text",
    [block.text for block in EXAMPLES if "get_tasks" not in block.text],
    ids=lambda text: re.findall(r"integrations\.(\w+)", text)[0],
)
def test_what_the_page_shows_works(
    text: str,
    guide_index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "my-index").symlink_to(guide_index)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "frameworks.md", "exec"), {})
    assert capsys.readouterr().out.strip()
