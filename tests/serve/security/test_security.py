"""Who is let in, by which name, with which key, and what an answer gives away."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from retriever.serve.app import create_app
from retriever.serve.security.access import needed_scope
from retriever.serve.security.keys import Keys, read_keys
from retriever.serve.settings import Limits, ServeSettings, named_indexes
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

READ, WRITE = "r" * 20, "w" * 20
SEARCH = "/indexes/tiny/search"
CHANGES = {"add_documents", "put_document", "delete_document", "delete_documents"}
OPEN = {"healthz", "readyz"}


@pytest.fixture(scope="module")
def keyed(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# ours\nread {READ}\n\nwrite {WRITE}\n")
    limits = Limits(query=50, top_k=20, depth=100, batch=3, ranked=40, body=2000, waiting=4)
    settings = ServeSettings(
        {"tiny": served_folder},
        keys=read_keys(file, {}),
        host="0.0.0.0",
        host_names=("Search.example.org",),
        origins=("https://app.example.org",),
        limits=limits,
    )
    with TestClient(create_app(settings), base_url="http://search.example.org") as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_every_route_asks_for_the_key_that_it_should(keyed: TestClient) -> None:
    operations = {
        (method.upper(), path.replace("{name}", "tiny").replace("{doc_id}", "d01")): operation["operationId"]
        for path, methods in keyed.get("/openapi.json").json()["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations.values()) >= CHANGES | OPEN
    for (method, path), operation in operations.items():
        scope = "write" if operation in CHANGES else None if operation in OPEN else "read"
        assert needed_scope(method, path) == scope, path
        if scope is not None:
            answer = keyed.request(method, path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"
        if scope == "write":
            assert keyed.request(method, path, headers=bearer(READ)).json()["type"].endswith("key-refused")
            assert keyed.request(method, path, headers=bearer(WRITE)).json()["type"].endswith("read-only")


@pytest.mark.parametrize("headers", [bearer(READ), bearer(WRITE), {"x-api-key": READ}])
def test_keys_that_are_known(keyed: TestClient, headers: dict[str, str]) -> None:
    assert keyed.get(SEARCH, params={"query": "bread"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer(READ[:-1]),
        bearer(READ + "r"),
        bearer(READ.upper()),
        bearer(""),
        {"authorization": READ},
        {"authorization": f"Basic {READ}"},
        {"x-api-key": "é" * 20},
        {**bearer(READ), "x-api-key": READ},
    ],
    ids=str,
)
def test_keys_that_are_none(keyed: TestClient, headers: dict[str, str]) -> None:
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    answer = keyed.get(SEARCH, params={"query": "bread"}, headers=sent)
    assert answer.status_code == 401
    assert READ not in answer.text


def test_a_path_that_looks_open_is_not(keyed: TestClient) -> None:
    for path in (
        "/indexes/",
        "//indexes/tiny",
        "/indexes/tiny/",
        "/healthz/../indexes",
        "/metrics/x",
        "/%69ndexes/tiny",
    ):
        assert keyed.get(path).status_code in (401, 404), path
    assert "bread" not in keyed.get("//indexes/tiny/search?query=bread").text


@pytest.mark.parametrize("host", ["evil.example.org", "search.example.org.evil.org", "", "localhost.evil.org", "[::1"])
def test_names_that_are_not_ours(keyed: TestClient, host: str) -> None:
    answer = keyed.get("/healthz", headers={"host": host})
    assert answer.status_code == 421
    assert answer.json()["type"] == "urn:retriever:problem:unknown-host"


@pytest.mark.parametrize(
    "host", ["search.example.org:8000", "SEARCH.example.org.", "localhost", "10.1.2.3:80", "[::1]:8"]
)
def test_names_that_are_ours(keyed: TestClient, host: str) -> None:
    assert keyed.get("/healthz", headers={"host": host}).status_code == 200


def test_on_the_loopback_only_its_own_names_count(client: TestClient) -> None:
    for host, status in (("127.0.0.1", 200), ("localhost:8000", 200), ("[::1]:8000", 200), ("10.0.0.1", 421)):
        assert client.get("/healthz", headers={"host": host}).status_code == status


def test_pages_of_other_sites(client: TestClient, keyed: TestClient) -> None:
    for origin in ("https://evil.org", "null", "http://127.0.0.1.evil.org", "file://"):
        answer = client.get("/healthz", headers={"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert client.get("/healthz", headers={"origin": "http://127.0.0.1"}).status_code == 200
    named = keyed.get("/healthz", headers={"origin": "https://app.example.org"})
    assert named.headers["access-control-allow-origin"] == "https://app.example.org"
    asked = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
    assert keyed.options(SEARCH, headers=asked).status_code == 200
    assert keyed.get("/healthz", headers={"origin": "https://evil.org"}).status_code == 403


def test_pages_of_other_sites_have_nothing_fetched_by_a_browser(client: TestClient) -> None:
    for site in ("cross-site", "same-site"):
        for path in (SEARCH + "?query=bread", "/indexes", "/metrics"):
            answer = client.get(path, headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"})
            assert answer.status_code == 403 and answer.json()["type"].endswith("other-site"), path
        assert client.get("/", headers={"sec-fetch-site": site}).status_code == 200
    for site in ("same-origin", "none"):
        assert client.get(SEARCH + "?query=bread", headers={"sec-fetch-site": site}).status_code == 200
    assert client.get("/").headers["cross-origin-resource-policy"] == "same-origin"


def test_a_site_that_is_named_may_fetch(keyed: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "origin": "https://app.example.org", **bearer(READ)}
    assert keyed.get(SEARCH + "?query=bread", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"query": "x" * 51}, 400, "query: found 51 characters; this server reads at most 50; shorten it"),
        ({"query": "x", "top_k": 21}, 400, "top_k: found 21; this server allows at most 20; ask for less at a time"),
        ({"query": "x", "offset": 95}, 400, "offset + top_k: found 105; this server allows at most 100"),
        ({"query": "x", "filter": "y" * 51}, 400, "filter: found 51 characters"),
        ({"query": "x", "top_k": "5"}, 422, "top_k: found '5'; input should be a valid integer"),
        ({"query": "x", "top_k": 0}, 422, "top_k: found 0; input should be greater than or equal to 1"),
        ({"query": "x", "topk": 5}, 422, "topk: no such field; leave it out, or take one that"),
        ({"top_k": 5}, 422, "query: is missing; give it"),
        ({"query": "x", "fields": ["a"] * 4}, 400, "fields: found 4; this server allows at most 3"),
        ({"query": "x", "filter": "z" * 3000}, 413, "the body has"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_limits(keyed: TestClient, asked: dict[str, Any], status: int, said: str) -> None:
    answer = keyed.post(SEARCH, json=asked, headers=bearer(READ))
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(said)


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/x-www-form-urlencoded", b'{"query": "x"}', "send it as Content-Type: application/json"),
        ("application/json", b"[]", "the body is no JSON object; send one"),
        ("application/json", b"", "the body is no JSON object; send one"),
    ],
)
def test_a_body_that_is_no_object(keyed: TestClient, kind: str, body: bytes, said: str) -> None:
    answer = keyed.post(SEARCH, content=body, headers={"content-type": kind, **bearer(READ)})
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith(said)


def test_limits_of_batches(keyed: TestClient) -> None:
    for path, body in (
        ("search/batch", {"queries": [{"query_id": str(i), "text": "x"} for i in range(4)]}),
        ("search/batch", {"queries": [], "modes": ["bm25"] * 4}),
        ("search/batch", {"queries": [{"query_id": "1", "text": "x"}] * 2, "modes": ["bm25"] * 2, "top_k": 11}),
        ("encode", {"texts": ["x"] * 4}),
        ("encode", {"texts": ["x" * 51]}),
        ("documents/get", {"ids": ["x"] * 4}),
    ):
        answer = keyed.post(f"/indexes/tiny/{path}", json=body, headers=bearer(READ))
        assert answer.status_code == 400, path
        assert "this server" in answer.json()["detail"]


WRONG = {
    "items": ("search", b'{"query": "a", "fields": [' + b"[]," * 1_000_000 + b"[]]}"),
    "unknown fields": ("search", b'{"query": "a"' + b"".join(b',"%x":1' % i for i in range(300_000)) + b"}"),
    "ids": ("documents/get", b'{"ids": [' + b"0," * 1_500_000 + b"0]}"),
    "queries": ("search/batch", b'{"queries": [' + b'{"a":1},' * 400_000 + b"1]}"),
    "texts": ("encode", b'{"texts": [' + b"0," * 1_500_000 + b"0]}"),
    "weights": ("search", b'{"query": "a", "fusion": {"weights": {' + b'"a":0,' * 300_000 + b'"b":""}}}'),
    "unequal weights": (
        "search",
        b'{"query": "a", "fusion": {"weights": {"a":""' + b"".join(b',"%x":""' % i for i in range(200_000)) + b"}}}",
    ),
    "depth": ("search", b'{"query": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "too much depth": ("search", b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "digits": ("search", b'{"query": "a", "top_k": ' + b"9" * 1_000_000 + b"}"),
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the most memory is Linux's to say")
@pytest.mark.parametrize("name", WRONG)
def test_a_million_errors_are_not_all_written_down(client: TestClient, name: str) -> None:
    path, body = WRONG[name]
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    answer = client.post(f"/indexes/tiny/{path}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and len(answer.text) < 500
    assert answer.json()["detail"]
    assert memory("VmHWM") - before < 250 * 1024


def memory(name: str) -> int:
    """Return what this process holds, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def test_answers_say_nothing_of_the_machine(keyed: TestClient, served_folder: Path) -> None:
    for path in ("/indexes", "/indexes/tiny", "/openapi.json", "/metrics", "/nowhere", "/indexes/tiny/documents/x"):
        text = keyed.get(path, headers=bearer(READ)).text
        assert str(served_folder.parent) not in text
        assert "/tmp" not in text
    for asked in ({"query": "x", "mode": "bm25+sparse", "filter": "no = 1"}, {"query": "x", "mode": "/etc/passwd"}):
        assert str(served_folder.parent) not in keyed.post(SEARCH, json=asked, headers=bearer(READ)).text


def test_headers_of_every_answer(keyed: TestClient) -> None:
    for answer in (
        keyed.get("/healthz"),
        keyed.get("/nowhere"),
        keyed.get("/indexes"),
        keyed.get("/indexes", headers=bearer(READ)),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
    assert keyed.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert keyed.get("/healthz", headers={b"x-request-id": 'a"\u00e9'.encode()}).headers["x-request-id"] != 'a"\u00e9'


def test_the_log_has_requests_and_no_secrets(keyed: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "retriever.access"):
        keyed.get(SEARCH, params={"query": "sourdough"}, headers=bearer(READ))
        keyed.get(SEARCH, params={"query": "sourdough"}, headers=bearer("guess" * 5))
    found = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert [fields["status"] for fields in found] == [200, 401]
    assert found[0] | {"index": "tiny", "mode": "hybrid", "hits": 10, "method": "GET", "path": SEARCH} == found[0]
    assert len(found[0]["key"]) == 8
    assert found[1]["key"] is None
    text = json.dumps(found)
    assert not any(secret in text for secret in (READ, "guess", "sourdough"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("read short\n", ":1: the key has 5 characters, need 16 or more"),
        ("admin " + "a" * 20, ":1: no key that is used so"),
        ("a" * 20, ":1: no key that is used so"),
        ("# nothing\n", ": holds no key"),
    ],
)
def test_key_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UserError, match="keys") as error:
        read_keys(file, {})
    assert str(error.value).startswith(f"{file}{said}")
    assert "a" * 20 not in str(error.value)


def test_keys_of_the_environment() -> None:
    keys = read_keys(None, {"RETRIEVER_READ_KEYS": f"{READ}, {WRITE}", "RETRIEVER_WRITE_KEYS": WRITE})
    found = [keys.find(secret) for secret in (READ, WRITE, "x" * 20)]
    assert [key and key.scope for key in found] == ["read", "write", None]
    assert READ not in repr(keys)
    assert not Keys()


def test_what_would_be_unsafe_is_refused(served_folder: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "search.example.org"):
        with pytest.raises(UserError, match="no key is asked for"):
            create_app(ServeSettings({"tiny": served_folder}, host=host))
        create_app(ServeSettings({"tiny": served_folder}, host=host, without_keys=True))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"origins": ("example.org",)}, "'example.org': no site"),
        ({"origins": ("https://example.org/",)}, "no site"),
        ({"origins": ("*",)}, "no site"),
        ({"host_names": ("example.org:80",)}, "no name of a host"),
        ({"host_names": ("https://example.org",)}, "no name of a host"),
        ({"host": ""}, "the host is empty"),
        ({"indexes": {}}, "no index to serve"),
    ],
    ids=str,
)
def test_settings_that_could_never_work_are_refused(served_folder: Path, wrong: dict[str, Any], said: str) -> None:
    settings: dict[str, Any] = {"indexes": {"tiny": served_folder}, **wrong}
    with pytest.raises(UserError, match=said):
        ServeSettings(**settings).check()


def test_names_of_indexes(tmp_path: Path) -> None:
    assert named_indexes([str(tmp_path / "a"), f"b={tmp_path}/x y"]) == {"a": tmp_path / "a", "b": tmp_path / "x y"}
    with pytest.raises(UserError, match="an address, not a folder"):
        named_indexes(["http://127.0.0.1:8000"])
    for given in (["x/a", "y/a"], ["a/b c"], ["=x"], ["a%=x"]):
        with pytest.raises(UserError, match="NAME=DIR"):
            named_indexes(given)
