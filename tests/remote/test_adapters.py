"""The adapters search a server as they search a folder."""

from __future__ import annotations

import pandas as pd
import pytest

from retriever import RemoteRetriever, Retriever, UserError
from retriever.integrations import langchain, llama_index, pyterrier
from tests.remote.conftest import KEY

pytestmark = pytest.mark.lucene


def test_a_server_gives_what_the_folder_gives(url: str, library: Retriever) -> None:
    with RemoteRetriever(url, index="tiny", key=KEY) as remote:
        here, there = (langchain.HybridRetriever(index=index, search={"explain": True}) for index in (library, remote))
        assert there.invoke("twins look alike") == here.invoke("twins look alike")
        nodes = [llama_index.HybridRetriever(index).retrieve("twins look alike") for index in (library, remote)]
        assert nodes[0] == nodes[1]
        topics = pd.DataFrame({"qid": ["1", "2"], "query": ["twins look alike", "bread"]})
        for text in (False, True):
            frames = [pyterrier.HybridRetriever(index, text=text).transform(topics) for index in (library, remote)]
            pd.testing.assert_frame_equal(*frames)


@pytest.mark.parametrize("open_index", [lambda u: langchain.HybridRetriever(index=u), llama_index.HybridRetriever])
def test_an_address_is_asked_at_once(open_index: object, url: str) -> None:
    assert callable(open_index)
    with pytest.raises(UserError, match="the request has no key"):
        open_index(f"{url}/indexes/tiny")
