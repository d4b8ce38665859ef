"""The OpenAPI document is true: whatever fits it, and whatever does not, is answered as it says."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from retriever.serve.app import create_app
from retriever.serve.run import server_config
from retriever.serve.settings import ServeSettings
from retriever.wire import PROBLEM, PROBLEM_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODIES = int(os.environ.get("RETRIEVER_FUZZ", "200"))
EXAMPLES = max(8, BODIES // 25)
"""Of each operation."""
FEW = settings(deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def api(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return the description of a server that takes changes."""
    import schemathesis  # takes two seconds; here, since every process of a parallel run reads this file

    copy = shutil.copytree(served_folder, tmp_path_factory.mktemp("api") / "tiny")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(ServeSettings({"tiny": copy}, write=True)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    try:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json")
    finally:
        server.should_exit = True
        thread.join()


def test_it_is_true(api: Any) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as openapi

    checks = [
        not_a_server_error,
        openapi.status_code_conformance,
        openapi.content_type_conformance,
        openapi.response_headers_conformance,
        openapi.response_schema_conformance,
    ]
    operations = [result.ok() for result in api.get_all_operations()]
    assert len(operations) >= 17
    for operation in operations:

        @given(operation.as_strategy())
        @settings(FEW, max_examples=EXAMPLES)
        def agrees(case: Any) -> None:
            if len(case.path_parameters.get("name", "")) % 4:
                case.path_parameters["name"] = "tiny"  # else nearly all are 404
            case.call_and_validate(checks=checks, timeout=300)

        agrees()


@pytest.fixture(scope="module")
def fuzzed(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    copy = shutil.copytree(served_folder, tmp_path_factory.mktemp("fuzzed") / "tiny")
    with TestClient(create_app(ServeSettings({"tiny": copy}, write=True)), base_url="http://127.0.0.1") as client:
        yield client


names = ("query", "text", "top_k", "mode", "filter", "fusion", "weights", "queries", "query_id", "ids", "texts", "kind")
more = ("documents", "id", "offset", "min_score", "fields", "explain", "metadata", "title", "modes", "dense", "method")
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(("bm25", "x", "d01", "hybrid")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(names + more) | st.text(), inner),
    max_leaves=12,
)
bodies = st.binary() | values.map(lambda value: json.dumps(value).encode())
PATHS = ("search", "search/batch", "encode", "documents", "documents/get", "documents/delete", "documents/d01")
TYPES = ("application/json", "application/x-ndjson", "text/plain", "multipart/form-data; boundary=x", "")


@given(st.sampled_from(PATHS), bodies, st.sampled_from(TYPES), st.sampled_from(("POST", "PUT")))
@settings(FEW, max_examples=BODIES)
def test_any_body_is_answered_or_refused_by_a_problem_document(
    fuzzed: TestClient, path: str, body: bytes, kind: str, method: str
) -> None:
    answer = fuzzed.request(method, f"/indexes/tiny/{path}", content=body, headers={"content-type": kind})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == PROBLEM
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["type"].startswith(PROBLEM_TYPE)
        assert problem["detail"] and "\n" not in problem["detail"]
        assert "/tmp" not in problem["detail"]


def test_its_examples_are_answered(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for name, path in (("SearchRequest", "search"), ("IdsRequest", "documents/get"), ("EncodeRequest", "encode")):
        fields = document["components"]["schemas"][name]["properties"]
        body = {field: value["examples"][0] for field, value in fields.items() if "examples" in value}
        assert client.post(f"/indexes/tiny/{path}", json=body).status_code == 200
