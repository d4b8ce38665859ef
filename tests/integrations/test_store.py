from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retriever import Document, Retriever, UserError
from retriever.integrations.store import Store

pytestmark = pytest.mark.lucene


def test_threads_add_delete_and_search_one_store(new_index: Callable[[], Path]) -> None:
    store = Store(new_index())

    def work(thread: int) -> None:
        for round_ in range(4):
            names = [f"{thread}-{round_}-{n}" for n in range(3)]
            store.add(Document(name, "the same text", metadata={"thread": thread}) for name in names)
            assert set(names) <= set(store.ids(f"thread = {thread}"))
            assert store.delete(names[:1]) == 1 and list(store.documents(names)) == names[1:]
            assert len(store.retriever.search("same text", 100, mode="bm25")) >= 2

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(store) == len(store.ids()) == 4 * 4 * 2
    with Retriever.open(store.path) as retriever:
        assert len(retriever.search("same text", 100, mode="bm25")) == 32, "all of it is committed"
    store.close()


def test_a_store_is_made_where_nothing_is_and_keeps_its_encoder(tmp_path: Path) -> None:
    first = Store(tmp_path / "new", "none")
    first.add([Document("d1", "text")])
    first.close()
    with Retriever.open(tmp_path / "new") as retriever:
        assert retriever.legs == ("bm25",)
    again = Store(tmp_path / "new")
    assert again.ids() == ["d1"] and again.ids("id = x") == []
    again.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(UserError, match="no index"):
        Store(tmp_path / "other")
