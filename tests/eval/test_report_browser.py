"""The report in a real browser: headless Chromium lays it out, and its picture is kept.

RETRIEVER_SCREENSHOTS names the folder for the pictures; without it they stay in pytest's temporary folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from tests.helpers.caches import cache_with_kernels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[1] / "data" / "tiny"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# Added to a copy of the page: the report itself has no script.
PROBE = """<pre id="probe"></pre><script>
const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.right, r.width, r.height].map(Math.round); };
const all = s => [...document.querySelectorAll(s)].map(box);
const seen = { tables: all("table"), pictures: all("svg"), headings: all("h2"), window: innerWidth,
  page: document.documentElement.scrollWidth, background: getComputedStyle(document.body).backgroundColor };
document.querySelector("#probe").textContent = JSON.stringify(seen);
</script>"""


@pytest.fixture(scope="module")
def report(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the report of an evaluation with everything that a report can have."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (chromium, chromium-browser, google-chrome)")
    folder = tmp_path_factory.mktemp("browser")
    modes = "bm25,sparse,dense,dense+sparse,bm25+dense,hybrid"
    options = [
        "--dataset",
        TINY,
        "--encoder",
        tiny_encoder_folder,
        "--modes",
        modes,
        "--output",
        folder,
        "-q",
        "--baseline",
        "sparse",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_with_kernels(folder / "cache")))
        result = CliRunner().invoke(cli, ["evaluate", *map(str, options)])
    assert result.exit_code == 0, (result.output, result.exception)
    flat = {"dataset": "tiny", "system": "bm25"}
    (folder / "diagnostics.json").write_text(json.dumps([flat | {"bias": "brevity", "value": 0.5}]))
    (folder / "scale.json").write_text(json.dumps([flat | {"distractors": n, "value": 0.5} for n in (0, 9000)]))
    assert CliRunner().invoke(cli, ["report", str(folder)]).exit_code == 0
    yield folder / "report.html"


def chromium(page: Path, *options: str) -> str:
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run([*command, profile, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def laid_out(page: Path, *options: str) -> dict[str, Any]:
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    dom = chromium(probed, "--dump-dom", *options)
    found: dict[str, Any] = json.loads(dom.split('<pre id="probe">')[1].split("</pre>")[0])
    return found


@pytest.mark.parametrize("width", [1250, 600])
def test_tables_and_pictures_are_on_the_page(report: Path, width: int) -> None:
    seen = laid_out(report, f"--window-size={width},900")
    assert seen["window"] == width
    assert len(seen["headings"]) == 8
    # Bars of five systems, precision, two kinds of cost, the growing collection.
    assert len(seen["pictures"]) == 5 + 1 + 2 + 1
    assert len(seen["tables"]) >= 12
    assert all(wide > 60 and high > 40 for _, _, wide, high in seen["tables"])
    for left, right, wide, high in seen["pictures"]:
        assert 0 <= left < right <= width and wide >= 200 and high >= 80
    assert seen["page"] <= width, "wide tables scroll by themselves, the page does not"


def test_light_and_dark(report: Path) -> None:
    assert laid_out(report)["background"] == "rgb(255, 255, 255)"
    assert laid_out(report, "--blink-settings=preferredColorScheme=0")["background"] == "rgb(20, 24, 31)"


def test_a_picture_of_the_page_is_kept(report: Path, tmp_path: Path) -> None:
    folder = Path(os.environ.get("RETRIEVER_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "report.png"
    chromium(report, f"--screenshot={picture}", "--window-size=1250,6000")
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 100_000, "an empty page of this size takes 20 kB"
