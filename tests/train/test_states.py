"""The cache of a frozen trunk's states."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import torch

from retriever.network.model import RetrieverModel, pack
from retriever.network.upcycle import UpcycleConfig, upcycle
from retriever.train.states import StateCache, trunk_key
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.conftest import Parent

Opener: TypeAlias = "Callable[..., StateCache]"
TEXTS = [[2, 7, 8, 9, 3], [2, 40, 3], [2, 50, 60, 70, 80, 90, 100, 3], [2, 40, 3], [2, 11, 3]]


@pytest.fixture
def model(tiny_parent: Parent) -> RetrieverModel:
    return upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig())


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Return what opens the cache of a folder for a rank, and closes it in the end."""
    caches = []

    def open_cache(folder: Path, rank: int = 0) -> StateCache:
        caches.append(StateCache(folder, 32, rank))
        return caches[-1]

    yield open_cache
    for cache in caches:
        cache.close()


def check(cache: StateCache, model: RetrieverModel, texts: Sequence[list[int]] = TEXTS) -> None:
    """Compare with each text run alone."""
    found = cache.states(model, texts)
    hidden = dict(zip(found.order, found.hidden.split([len(texts[i]) for i in found.order]), strict=True))  # type: ignore[no-untyped-call]
    assert [len(texts[i]) for i in found.order] == sorted(map(len, texts))
    assert found.packed.input_ids.tolist() == [token for i in found.order for token in texts[i]]
    with torch.no_grad():
        for i, text in enumerate(texts):
            packed = pack([text])
            last, mixed, _ = model.trunk(packed)
            torch.testing.assert_close(hidden[i], mixed, rtol=1e-3, atol=2e-3)  # float16
            torch.testing.assert_close(found.dense[i], model.pool(last, packed)[0], rtol=1e-3, atol=1e-3)


def no_trunk(*_: Any) -> None:
    raise AssertionError("computed again")


def test_states_are_the_trunks(opened: Opener, model: RetrieverModel, tmp_path: Path) -> None:
    cache = opened(tmp_path / "new" / "states")
    check(cache, model)
    check(cache, model, [[2, 99, 3], *TEXTS[::-1]])


def test_seen_texts_are_not_computed_again(
    opened: Opener, model: RetrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(tmp_path)
    before = cache.states(model, TEXTS)
    cache.close()
    monkeypatch.setattr(model, "trunk", no_trunk)
    again = opened(tmp_path)
    after = again.states(model, TEXTS)
    assert torch.equal(before.hidden, after.hidden) and torch.equal(before.dense, after.dense)
    with pytest.raises(AssertionError, match="computed again"):
        again.states(model, [[2, 12, 3]])


@pytest.mark.parametrize("damage", ["torn line", "line without its end", "rows missing", "rows too many"])
def test_what_a_kill_left_behind_is_cut_off(
    opened: Opener,
    model: RetrieverModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    cache = opened(tmp_path)
    cache.states(model, TEXTS[:2])
    cache.states(model, TEXTS[2:])
    cache.close()
    log, rows = tmp_path / "states.jsonl", tmp_path / "states.f16"
    lines, content = log.read_bytes(), rows.read_bytes()
    if damage == "torn line":
        log.write_bytes(lines[:-9])
    elif damage == "line without its end":
        log.write_bytes(lines[:-1])
    elif damage == "rows missing":
        rows.write_bytes(content[:-100])
    else:
        rows.write_bytes(content + b"half of a text")
    cache = opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(model, "trunk", no_trunk)
        cache.states(model, TEXTS[:2])  # was whole
    check(cache, model)
    cache.close()
    assert (log.read_bytes(), rows.read_bytes()) == (lines, content)


def test_another_trunk_is_refused(opened: Opener, model: RetrieverModel, tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.states(model, TEXTS)
    cache.close()
    heads = copy.deepcopy(model)
    with torch.no_grad():
        heads.sparse_head.scale.add_(1)
        heads.lexical.gain.add_(1)
    cache = opened(tmp_path)
    check(cache, heads)  # the heads are not the trunk
    cache.close()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.embeddings.norm.bias[0] += 1e-3
    mixed = copy.deepcopy(model)
    mixed.config.sparse_layers = [2]
    pooled = copy.deepcopy(model)
    pooled.config.pooling = "cls"
    assert len({trunk_key(each) for each in (model, heads, other, mixed, pooled)}) == 4
    for stranger in (other, mixed, pooled):
        cache = opened(tmp_path)
        with pytest.raises(UserError, match="holds the states of another trunk"):
            cache.states(stranger, TEXTS)
        cache.close()


def test_states_without_a_key_are_refused(opened: Opener, model: RetrieverModel, tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.states(model, TEXTS)
    cache.close()
    (tmp_path / "trunk.key").unlink()
    with pytest.raises(UserError, match=r"\(key none, .*name another folder under `states`"):
        opened(tmp_path).states(model, TEXTS)


def test_one_run_at_a_time_and_each_process_its_own_files(
    opened: Opener, model: RetrieverModel, tmp_path: Path
) -> None:
    first = opened(tmp_path)
    with pytest.raises(UserError, match="another run has these states open"):
        opened(tmp_path)
    second = opened(tmp_path, rank=1)
    check(first, model)
    check(second, model, TEXTS[1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "states-1.f16",
        "states-1.jsonl",
        "states.f16",
        "states.jsonl",
        "trunk.key",
    ]
    first.close()
    check(opened(tmp_path), model)
