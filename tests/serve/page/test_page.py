"""The files of the search page: whole, from here alone, and without anything that a strict browser refuses."""

from __future__ import annotations

import re
from importlib.resources import files

from starlette.testclient import TestClient

from retriever.encoder.load import load_encoder

KINDS = (".js", ".css", ".svg")
NAMES = sorted(file.name for file in files("retriever.serve.page").iterdir() if file.name.endswith(KINDS))


def test_each_file_is_served_and_kept_by_browsers(client: TestClient) -> None:
    for name in ("", "index.html", *NAMES):
        answer = client.get(f"/{name}")
        content = (files("retriever.serve.page") / (name or "index.html")).read_bytes()
        assert answer.status_code == 200 and answer.content == content
        assert client.get(f"/{name}", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    assert client.get("/routes.py").status_code == 404


def test_nothing_comes_from_elsewhere(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    for name in ("index.html", *NAMES):
        text = (files("retriever.serve.page") / name).read_text(encoding="utf-8")
        assert not re.search(r"(https?:)?//(?!www\.w3\.org/2000/svg)[a-z]+\.[a-z]", text), name
        assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write)\b", text), name
    html = client.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", html)
    named = re.findall(r'(?:src|href)="([\w.]+\.\w+)"', html)
    assert {"page.js", "page.css", "icon.svg"} <= set(named)


def test_experts_of_a_query(client: TestClient, tiny_encoder_folder: object) -> None:
    found = client.get("/indexes/tiny/experts", params={"query": "water and bread"}).json()
    encoder = load_encoder(str(tiny_encoder_folder))
    routes = encoder.expert_routes("water and bread")
    assert [(layer["name"], layer["experts"]) for layer in found["layers"]] == list(routes.layers)
    assert [token["text"] for token in found["tokens"]] == [token.text for token in routes.tokens]
    assert client.get("/indexes/tiny/experts", params={"query": " "}).json()["tokens"] == []
