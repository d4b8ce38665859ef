"""The search page in a real browser: headless Chromium, driven over its own protocol.

RETRIEVER_SCREENSHOTS names a folder for pictures. RETRIEVER_AXE names the file axe.min.js of the npm package axe-core,
which then looks for barriers.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import uvicorn

from retriever.indexing.build import build_index
from retriever.serve.app import create_app
from retriever.serve.security.keys import Key, Keys
from retriever.serve.settings import ServeSettings
from retriever.types import Document

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip
HOSTILE = (
    '<script>document.title = "taken"</script><img src=x onerror=\'document.title = "taken"\'> & "quoted" <b>bold</b>'
)
ARABIC = "الماء يغلي عند مئة درجة مئوية والخبز يحتاج إلى الماء"
SECONDS = 120.0


class Browser:
    """One tab. `evaluate` runs a script and returns its value; `until` waits for one that is true."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=None)
        self._numbers = count(1)
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message["method"] == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif message["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.errors.append(message["params"]["entry"]["text"])

    def evaluate(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> None:
        end = time.monotonic() + SECONDS
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < end, (script, self.evaluate("document.body.innerText"), self.errors)
            time.sleep(0.02)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && document.querySelector('#modes input') !== null")

    def press(self, key: str, text: str = "", modifiers: int = 0) -> None:
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}
        text = "\r" if key == "Enter" else text
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "",
                      windowsVirtualKeyCode=codes.get(key, 0), modifiers=modifiers)  # fmt: skip

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.evaluate(f"[...document.querySelectorAll({selector!r})].map(e => e.innerText.trim())")
        return found

    def look(self, width: int, height: int, scheme: str) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, name: str) -> bytes:
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if folder := os.environ.get("RETRIEVER_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / f"{name}.png").write_bytes(png)
        return png


@contextmanager
def served(settings: ServeSettings) -> Iterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), port=0, lifespan="on", log_config=None, timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of documents that try a page."""
    folder = tmp_path_factory.mktemp("odd") / "odd"
    documents = [
        Document("hostile", f"water {HOSTILE} bread", HOSTILE, {"tag": HOSTILE, "n": 2, "day": "2025-02-03"}),
        Document("arabic", ARABIC, "الماء", {"tag": "ماء", "n": 1, "day": "2024-02-03"}),
        Document("emoji", "😀😀 water e\u0301 water", "", {"tag": "ماء", "n": 3}),
        *(Document(f"more{n}", f"water number {n}", f"Number {n}", {"tag": "more", "n": 10 + n}) for n in range(12)),
    ]
    build_index(documents, folder, encoder="none")
    return folder


@pytest.fixture(scope="module")
def page(served_folder: Path, odd: Path) -> Iterator[str]:
    with served(ServeSettings({"tiny": served_folder, "odd": odd})) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (chromium, chromium-browser, google-chrome)")
    pytest.importorskip("websockets")
    profile = tmp_path_factory.mktemp("profile")
    process = subprocess.Popen([CHROMIUM, *OPTIONS, f"--user-data-dir={profile}"], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + SECONDS
        while not (profile / "DevToolsActivePort").exists() or not (profile / "DevToolsActivePort").read_text():
            assert time.monotonic() < end and process.poll() is None, "Chromium does not start"
            time.sleep(0.05)
        port = (profile / "DevToolsActivePort").read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            [tab] = [tab for tab in json.load(answer) if tab["type"] == "page"]
        yield Browser(tab["webSocketDebuggerUrl"])
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.look(1250, 900, "light")
    chromium.requests.clear()
    chromium.errors.clear()
    yield chromium
    assert chromium.errors == []


HITS = "document.querySelectorAll('.hit').length"


def test_a_search_is_one_request_and_shows_what_was_found(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=tiny")
    browser.until("document.querySelectorAll('#fields fieldset').length")
    browser.requests.clear()
    browser.press("/", "/")
    browser.write("how do vaccines work")
    browser.press("Enter")
    browser.until(HITS)
    assert [url.removeprefix(page).split("?")[0] for url in browser.requests] == ["indexes/tiny/search"]
    assert browser.texts("h3")[0] == "How vaccines train the body"
    assert any(mark.startswith("vaccine") for mark in browser.texts(".hit mark"))
    assert browser.evaluate("location.search") == "?q=how+do+vaccines+work&index=tiny"
    assert all(url.startswith(page) for url in browser.requests), "nothing comes from elsewhere"


def test_the_keyboard_is_enough(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=tiny&q=how+does+dough+rise")
    browser.until(HITS)
    browser.press("/", "/")
    assert browser.evaluate("document.activeElement.id") == "query"
    for _ in range(2):
        browser.press("ArrowDown")
    assert browser.evaluate("document.activeElement.querySelector('.rank').innerText") == "2"
    browser.press("ArrowUp")
    browser.press("Enter")
    browser.until("document.querySelector('.hit .experts .token')")
    rows = browser.texts(".hit:has(.why-button[aria-expanded=true]) .legs tbody th")
    assert rows == ["bm25", "sparse", "dense"]
    assert float(browser.evaluate("parseFloat(getComputedStyle(document.querySelector('.legs .bar span')).width)")) > 0
    assert browser.texts(".experts .expert"), "the tiny encoder has experts"
    browser.press("Escape")
    assert browser.evaluate("document.querySelector('.why').hidden && document.activeElement.matches('.hit')")
    browser.press("Escape")
    assert browser.evaluate("document.activeElement.id") == "query"


def test_why_says_what_the_search_says(browser: Browser, page: str) -> None:
    with urlopen(f"{page}indexes/tiny/search?query=dough+rise&mode=bm25&explain=true") as answer:
        expected = json.load(answer)["hits"][0]["terms"]
    browser.open(f"{page}?index=tiny&q=dough+rise&mode=bm25")
    browser.until(HITS)
    browser.evaluate("document.querySelector('.why-button').click()")
    assert browser.texts(".terms tbody th") == [match["term"] for match in expected]
    weights = [[f"{match['query_weight']:.2f}", f"{match['doc_weight']:.2f}"] for match in expected]
    assert [text.split()[::2] for text in browser.texts(".terms tbody td:nth-child(2)")] == weights


def test_filters_modes_pages_and_the_way_back(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=odd&q=water")
    browser.until(HITS)
    browser.until("document.querySelector('.value')")
    assert browser.texts(".value")[0].split() == ["more", "12"]
    browser.evaluate("document.querySelector('.value input').click()")
    browser.until("location.search.includes('is.tag') && document.querySelector('h3').innerText.startsWith('Number')")
    assert browser.texts("#filter-count") == ["1"]
    browser.evaluate("document.querySelector('#next').click()")
    browser.until("document.querySelector('.rank').innerText === '11'")
    assert browser.evaluate(HITS) == 2 and browser.evaluate("document.querySelector('#next').disabled")
    browser.evaluate("history.back()")
    browser.until("document.querySelector('.rank').innerText === '1'")
    browser.evaluate("history.back()")
    browser.until("!location.search.includes('is.tag') && document.querySelector('#filter-count').innerText === ''")
    assert not browser.evaluate("document.querySelector('.value input').checked")
    browser.open(f"{page}?index=odd&q=water&from.n=2&to.n=3&is.tag={json.dumps('ماء')}")
    browser.until(HITS)
    assert browser.texts(".hit h3") == ["emoji"]
    browser.open(f"{page}?index=odd&q=nothing+of+this")
    browser.until("document.querySelector('.notice')")
    assert "Nothing was found" in browser.texts(".notice")[0]


def test_a_pipeline_is_chosen_and_its_stages_are_shown(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=tiny&q=how+does+dough+rise")
    browser.until(HITS)
    browser.evaluate(
        "(() => { const s = document.getElementById('pipeline'); s.value = 'hybrid > feedback'; "
        "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    browser.until("document.querySelector('.list h2').innerText.startsWith('hybrid > feedback')")
    assert browser.evaluate("new URLSearchParams(location.search).get('mode')") == "hybrid > feedback"
    browser.evaluate("document.querySelector('.why-button').click()")
    assert browser.texts(".stages tbody th") == ["feedback"]
    assert browser.texts(".stages tbody td")[0] == "#1" and browser.texts(".stages tbody td")[3].endswith(" ms")
    assert browser.texts(".legs:not(.stages) tbody th") == ["bm25", "sparse", "dense"]
    browser.evaluate("document.querySelector('#modes input[value=bm25]').click()")
    browser.until(
        "!document.querySelector('.why table') && document.querySelector('.list h2').innerText.startsWith('bm25')"
    )
    assert browser.evaluate("document.getElementById('pipeline').value") == ""
    browser.evaluate("document.querySelector('[data-like]').click()")
    browser.until("document.getElementById('status').innerText.startsWith('Like')")
    assert browser.evaluate("document.getElementById('pipeline-label').hidden")


def test_a_pipeline_beside_a_mode_and_words_of_titles(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=tiny&q=vaccines&compare=hybrid+>+feedback")
    browser.until("document.querySelectorAll('.list').length === 2")
    assert [title.rpartition(" ")[0].rpartition(" ")[0] for title in browser.texts(".list-title")] == [
        "hybrid",
        "hybrid > feedback",
    ]
    assert browser.texts("h3 mark")[0] == "vaccines"


def test_two_modes_side_by_side(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=tiny&q=bread&compare=bm25")
    browser.until("document.querySelectorAll('.list').length === 2")
    assert [title.split()[0] for title in browser.texts(".list-title")] == ["hybrid", "bm25"]
    assert "= #1 there" in browser.texts(".moved")


def test_what_documents_hold_is_text(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=odd&q=water+quoted+%D8%A7%D9%84%D9%85%D8%A7%D8%A1")
    browser.until(HITS)
    assert HOSTILE in browser.texts("h3") and "taken" not in browser.evaluate("document.title")
    assert browser.evaluate("document.querySelectorAll('main script, main img, main b, aside script').length") == 0
    assert "quoted" in browser.texts("mark") and "الماء" in browser.texts("mark")
    arabic = "[...document.querySelectorAll('.hit')].find(e => e.innerText.includes('arabic')).querySelector('.text')"
    assert browser.evaluate(f"getComputedStyle({arabic}).direction") == "rtl"
    emoji = "[...document.querySelectorAll('.hit')].find(e => e.innerText.includes('emoji')).querySelectorAll('mark')"
    assert browser.evaluate(f"[...{emoji}].map(e => e.innerText)") == ["water", "water"]


def test_a_fault_is_said_in_the_servers_words(browser: Browser, page: str) -> None:
    browser.open(f"{page}?index=odd&q=water&filter=nope+%3D+1")
    browser.until("document.querySelector('.problem')")
    assert "the index has no field 'nope'; its fields are" in browser.texts(".problem")[0]
    browser.errors.clear()  # the console's word on the answer 400


def test_a_key_is_asked_for_and_sent(browser: Browser, odd: Path) -> None:
    secret = "correct-horse-battery"
    keys = Keys([Key(sha256(secret.encode()).digest(), "read")])
    with served(ServeSettings({"odd": odd}, keys=keys)) as address:
        browser.call("Page.navigate", url=f"{address}?q=water")
        browser.until("document.activeElement?.id === 'key'")
        assert "the request has no key" in browser.texts(".problem")[0]
        browser.write(secret)
        browser.press("Enter")
        browser.until(HITS)
        assert not any(secret in url for url in browser.requests)
        browser.errors.clear()  # the console's word on the answer 401


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (820, "dark"), (390, "dark"), (390, "light")])
def test_it_fits_and_has_no_barrier(browser: Browser, page: str, width: int, scheme: str) -> None:
    browser.look(width, 850, scheme)
    browser.open(f"{page}?index=tiny&q=how+does+dough+rise")
    browser.until(HITS)
    browser.evaluate("document.querySelector('.why-button').click()")
    browser.until("document.querySelector('.experts .token')")
    assert browser.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
    back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(back[4:].split(",")[0]) < 80) == (scheme == "dark")
    assert browser.picture(f"page-{width}-{scheme}").startswith(b"\x89PNG")
    if axe := os.environ.get("RETRIEVER_AXE"):
        browser.evaluate(Path(axe).read_text(encoding="utf-8") + ";0")
        found = browser.evaluate("axe.run().then(found => found.violations.map(one => [one.id, one.impact]))")
        assert not [one for one in found if one[1] in ("serious", "critical")], found
