"""Fixtures shared by several test files: the tiny data set, tiny models made on the spot, real ones where they are."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import BertModel, BertTokenizer

    from tests.helpers.warm import WarmPython

# Set before torch is imported, as the command line does: threads that spin while they wait starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Processes of pytest-xdist share the cores as they are.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Or every test with a cache of its own would have an archive of Java's classes made.
os.environ.setdefault("RETRIEVER_CLASS_ARCHIVE", "no")

# A job in the background ignores interrupts, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is; and a run tries what the run before has tried, or one that
# failed would say nothing of the last change. To look for new examples: --hypothesis-profile=default, or `make fuzz`.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TINY = Path(__file__).parent / "data" / "tiny"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]")


LUCENE = {"bench", "cli", "cluster", "docs", "experiments", "index", "indexing", "integrations", "qdrant", "rank"}
LUCENE |= {"complaints", "remote", "search", "serve"}
"""Folders whose tests start a JVM, nearly all of them."""
LUCENE_FILES = {"test_former", "test_made_before", "test_mining", "test_public_api", "test_real_data"}
PROCESSES = {"test_kernel_cache", "test_packaging", "test_processes", "test_servers", "test_workers"}
"""Files whose tests start processes that import everything anew."""
LONG = {"test_examples", "test_interrupted", "test_model", "test_damage", "test_server", "test_upcycle", "test_history"}
"""Files that take ten seconds or more, beside those with tests that are slow or start processes."""
REAL = {"real_base", "real_encoder_folder", "real_texts"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read no file of which no test would be left: what such files import takes longer than all the others' tests."""
    left_out = re.findall(r"not (\w+)", config.getoption("markexpr") or "")
    return True if _markers(collection_path) & set(left_out) else None


def _markers(path: Path) -> set[str]:
    """Return the markers that every test of a file or of a folder here has."""
    tests = Path(__file__).parent
    if tests not in path.parents:
        return set()
    found = {
        "lucene": not LUCENE.isdisjoint(path.relative_to(tests).parts) or path.stem in LUCENE_FILES,
        "browser": path.stem.endswith("_browser"),
        "processes": path.stem in PROCESSES,
    }
    return {name for name, holds in found.items() if holds}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the markers that follow from where it stands and what it asks for; files that take long first.

    Else one process would still be at the last of them, which have few tests, when the other has nothing left.
    """
    for item in items:
        for marker in _markers(item.path):
            item.add_marker(marker)
        if REAL & set(getattr(item, "fixturenames", ())):
            item.add_marker("weights")
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("processes")}
    long |= {item.path for item in items if item.path.stem in LONG}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """Take what was imported out of the garbage collector's sight: to look through it takes half a second each time."""
    gc.collect()
    gc.freeze()


class Parent(NamedTuple):
    """A dense checkpoint to upcycle."""

    model: BertModel
    tokenizer: BertTokenizer


@pytest.fixture(scope="session")
def tiny_corpus() -> Path:
    """Return the corpus file of the tiny data set, 20 documents."""
    return TINY / "corpus.jsonl"


@pytest.fixture(scope="session")
def tiny_texts(tiny_corpus: Path) -> list[str]:
    """Return the texts of the tiny corpus."""
    return [json.loads(line)["text"] for line in tiny_corpus.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def tiny_parent(tiny_texts: list[str]) -> Parent:
    """Return a random BERT of two layers, every parameter drawn (no bias is zero), and a WordPiece of 200 terms."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    words = Counter(re.findall("[a-z]+", " ".join(tiny_texts).lower()))
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    terms = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), ",", ".", *(w for w, _ in words.most_common())]
    tokenizer = BertTokenizer(vocab={term: i for i, term in enumerate(list(dict.fromkeys(terms))[:200])})
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    generator = torch.Generator().manual_seed(1)
    model = BertModel(config)
    model.train(False)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * 0.3
            value.copy_(1 + noise if name.endswith("LayerNorm.weight") else noise)
    return Parent(model, tokenizer)


@pytest.fixture(scope="session")
def tiny_multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random XLM-RoBERTa of two layers, every parameter drawn, and a SentencePiece vocabulary.

    Its tokeniser is a unigram one, put together as transformers does for XLM-RoBERTa, taught on sentences of six
    languages with and without spaces; a sentence-transformers folder with prompts and a card.
    """
    from tests.helpers.multilingual import save_tiny_multilingual

    return save_tiny_multilingual(tmp_path_factory.mktemp("multilingual") / "model")


@pytest.fixture(scope="session")
def tiny_encoder_folder(tiny_parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder folder (float32, 32 dimensions, 200 terms) whose texts have terms of both kinds, on and off."""
    from retriever.network.folder import save_encoder
    from retriever.network.upcycle import UpcycleConfig, upcycle

    settings = UpcycleConfig(num_experts=4, experts_per_token=2, granularity=2, shared_experts=1, router_std=0.5)
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, settings)
    model.sparse_head.scale.data.fill_(0.1)
    model.sparse_head.bias.data.fill_(-0.2)
    return save_encoder(model, tiny_parent.tokenizer, tmp_path_factory.mktemp("tiny") / "encoder", "float32")


@pytest.fixture(scope="session")
def real_base() -> Path:
    """Return the folder of all-MiniLM-L6-v2, or skip."""
    folder = Path(os.environ.get("RETRIEVER_BASE", Path(__file__).parents[1] / ".cache" / "all-MiniLM-L6-v2"))
    if not (folder / "config.json").is_file():
        pytest.skip(f"no base model at {folder} (RETRIEVER_BASE)")
    return folder


@pytest.fixture(scope="session")
def real_encoder_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the default encoder, or one made from the base model where that is there, or skip."""
    from retriever.encoder.load import default_encoder_path
    from retriever.network.folder import save_encoder
    from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint

    if (default_encoder_path() / "config.json").is_file():
        return default_encoder_path()
    model, tokenizer, *_ = upcycle_checkpoint(str(request.getfixturevalue("real_base")), UpcycleConfig())
    return save_encoder(model, tokenizer, tmp_path_factory.mktemp("real") / "encoder", "int8")


@pytest.fixture(scope="session")
def real_texts() -> list[str]:
    """Return 200 passages of NFCorpus, or skip."""
    if "RETRIEVER_DATA" not in os.environ:
        pytest.skip("RETRIEVER_DATA does not name the folder of real data")
    path = Path(os.environ["RETRIEVER_DATA"]) / "eval" / "nfcorpus" / "corpus.jsonl"
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line, _ in zip(lines, range(200), strict=False)]
    return [f"{record['title']} {record['text']}".strip() for record in records]


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython]:
    """Run programs in processes of their own with everything heavy imported; tests/helpers/warm.py says when not to."""
    from tests.helpers.warm import WarmPython

    with WarmPython() as python:
        yield python


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a test a cache folder of its own and return it."""
    from tests.helpers.caches import cache_with_kernels

    folder = cache_with_kernels(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
