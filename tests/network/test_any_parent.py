"""Sentence-transformers folders of every shape that can be upcycled: the encoder's vectors are the folder's own."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.load import load_encoder
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.spec import parse_spec
from retriever.integrations.export import export_view
from retriever.network.checkpoint import read_settings
from retriever.network.folder import save_encoder
from retriever.network.prompts import lacking_prompts
from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint
from retriever.types import UserError
from tests.helpers.processor import OVERFLOWS, exact_int8
from tests.helpers.sentence_folders import IDENTITY, PROMPTS, SHAPES, Shape, folder_of

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    from tests.conftest import Parent

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch
TEXTS = ["what do cats eat", "a", "trees make wood and wood makes paper " * 20, "Zürich, 東京!", "the river froze"]


SENTENCE = "Represent this sentence for searching relevant passages: "


def theirs(folder: Path, task: str) -> Any:
    from sentence_transformers import SentenceTransformer

    model: SentenceTransformer = SentenceTransformer(str(folder), device="cpu")
    encode = model.encode_query if task == "queries" else model.encode_document
    return encode(TEXTS, normalize_embeddings=True)


def ours(encoder: Any, task: str) -> Any:
    return getattr(encoder, f"encode_{task}")(TEXTS, sparse=False).dense


@pytest.fixture(scope="module", params=SHAPES)
def pair(
    request: pytest.FixtureRequest, tiny_parent: Parent, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return a folder of each shape, and the encoder made of it."""
    folder = tmp_path_factory.mktemp("shape")
    saved = folder_of(SHAPES[request.param], tiny_parent, folder)
    made = upcycle_checkpoint(str(saved), UpcycleConfig())
    assert made.deviation is not None and made.deviation < 1e-5
    return saved, save_encoder(made.model, made.tokenizer, folder / "ours", "float32")


@pytest.mark.parametrize("task", ["queries", "documents"])
def test_vectors_are_those_of_the_folder(pair: tuple[Path, Path], task: str) -> None:
    folder, encoder = pair
    expected = theirs(folder, task)
    found = MoEEncoder(encoder, runtime=RuntimeConfig(precision="float32"))
    assert found.identity.dense_dim == expected.shape[1]
    np.testing.assert_allclose(ours(found, task), expected, atol=1e-5)
    np.testing.assert_allclose(ours(load_encoder(f"st:{folder}"), task), expected, atol=1e-5)


def cosines(one: Any, other: Any) -> Any:
    return (one * other).sum(1)


@pytest.mark.skipif(not exact_int8(), reason=OVERFLOWS)
@pytest.mark.parametrize("task", ["queries", "documents"])
def test_other_precisions_are_near(pair: tuple[Path, Path], task: str) -> None:
    _, encoder = pair
    exact = ours(MoEEncoder(encoder, runtime=RuntimeConfig(precision="float32")), task)
    for precision, least in (("bfloat16", 0.999), ("int8", 0.98)):
        found = MoEEncoder(encoder, runtime=RuntimeConfig(precision=precision))
        assert cosines(ours(found, task), exact).min() > least, precision
    quick = MoEEncoder(encoder, runtime=RuntimeConfig(precision="float32", quick_queries=True))
    assert cosines(ours(quick, task), exact).min() > 0.98


def test_a_prompt_changes_vectors_but_is_no_term(tiny_parent: Parent, tmp_path: Path) -> None:
    made = upcycle_checkpoint(
        str(folder_of(SHAPES["two Dense layers"], tiny_parent, tmp_path)), UpcycleConfig(query_prompt="", seed=1)
    )
    made.model.sparse_head.scale.data.fill_(0.1)
    made.model.sparse_head.bias.data.fill_(-0.2)
    encoder = MoEEncoder(save_encoder(made.model, made.tokenizer, tmp_path / "ours", "float32"))
    with_prompt, without = encoder.encode_documents(TEXTS), encoder.encode_queries(TEXTS)
    assert cosines(with_prompt.dense, without.dense).max() < 0.9999
    assert with_prompt.tokens is not None
    prompt = encoder.vocabulary.index(",")  # of "text, "
    assert not with_prompt.tokens[:, [prompt]].toarray()[[0, 1, 2, 4]].any()


@pytest.mark.parametrize("name", ["like leaf-ir", "prompt left out of the maximum", "Dense, cut"])
def test_what_is_exported_gives_the_same_vectors(tiny_parent: Parent, tmp_path: Path, name: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder = folder_of(SHAPES[name], tiny_parent, tmp_path)
    made = upcycle_checkpoint(str(folder), UpcycleConfig())
    encoder = save_encoder(made.model, made.tokenizer, tmp_path / "ours", "float32")
    view = SentenceTransformer(str(export_view(str(encoder), "dense", tmp_path / "view")), trust_remote_code=True)
    np.testing.assert_allclose(view.encode_query(TEXTS), theirs(folder, "queries"), atol=1e-5)
    np.testing.assert_allclose(view.encode_document(TEXTS), theirs(folder, "documents"), atol=1e-5)
    assert view.get_embedding_dimension() == len(view.encode("trees"))


def changed(folder: Path, name: str, **values: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def with_module(folder: Path, kind: str, place: int) -> Path:
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    modules.insert(place, {"idx": 9, "name": "9", "path": f"9_{kind}", "type": f"sentence_transformers.models.{kind}"})
    path.write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda f: changed(f, "2_Dense/config.json", activation_function="torch.nn.modules.activation.ReLU"),
            "with ReLU",
        ),
        (lambda f: changed(f, "2_Dense/config.json", module_input_name="token_embeddings"), "has a Dense module"),
        (lambda f: changed(f, "2_Dense/config.json", in_features=31), "weights and config.json do not fit"),
        (lambda f: changed(f, "config_sentence_transformers.json", similarity_fn_name="dot"), "by 'dot'"),
        (lambda f: changed(f, "config_sentence_transformers.json", similarity_fn_name="manhattan"), "'manhattan'"),
        (lambda f: changed(f, "1_Pooling/config.json", pooling_mode="lasttoken"), "pools by 'lasttoken'"),
        (lambda f: changed(f, "1_Pooling/config.json", pooling_mode=["cls", "mean"]), r"'cls\+mean'"),
        (lambda f: with_module(f, "LayerNorm", 2), "has a LayerNorm module"),
        (lambda f: with_module(f, "WordWeights", 1), "begins with the modules Transformer and WordWeights"),
        (lambda f: with_module(f, "Normalize", 2), "behind a Normalize module"),
        (lambda f: (f / "2_Dense" / "model.safetensors").unlink() or f, "its weights cannot be read"),
        (lambda f: (f / "2_Dense" / "model.safetensors").write_bytes(b"x" * 99) and f, "its weights cannot be read"),
        (lambda f: (f / "modules.json").unlink() or f, "which says what they are, is missing"),
        (lambda f: (f / "modules.json").write_text("{}") and f, "is missing"),
    ],
)
def test_what_has_no_place_is_refused_in_one_line(tiny_parent: Parent, tmp_path: Path, change: Any, words: str) -> None:
    shape = Shape("mean", [(48, True, IDENTITY), (20, True, IDENTITY)], prompts=PROMPTS, truncate_dim=12)
    folder = change(folder_of(shape, tiny_parent, tmp_path))
    with pytest.raises(UserError, match=words) as caught:
        upcycle_checkpoint(str(folder), UpcycleConfig())
    assert "\n" not in str(caught.value)


def test_a_prompt_that_leaves_no_room_is_refused(tiny_parent: Parent, tmp_path: Path) -> None:
    folder = folder_of(SHAPES["like bge-small"], tiny_parent, tmp_path)
    with pytest.raises(UserError, match="has 60 tokens, the network reads 48"):
        upcycle_checkpoint(str(folder), UpcycleConfig(query_prompt="a " * 60))


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("bge-small-en-v1.5", {"query_prompt": SENTENCE}),
        ("intfloat/e5-small-v2", {"query_prompt": "query: ", "document_prompt": "passage: "}),
        ("/models/snowflake-arctic-embed-s/", {"query_prompt": SENTENCE}),
        ("all-MiniLM-L6-v2", {}),
        ("gte-small", {}),
        ("my-e5-small-v2-tuned", {}),
    ],
)
def test_known_models_whose_folder_lacks_the_prompt(tmp_path: Path, name: str, prompts: dict[str, str]) -> None:
    none = {"query_prompt": "", "document_prompt": ""}
    assert lacking_prompts(name, tmp_path, none) == prompts
    assert not lacking_prompts(name, tmp_path, {"query_prompt": "a", "document_prompt": "b"})
    assert not lacking_prompts(name, tmp_path, none, given=tuple(none))


def test_a_model_is_known_by_what_it_calls_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_name_or_path": "/root/.cache/BAAI_bge-small-en"}')
    lacking = lacking_prompts(str(tmp_path), tmp_path, {"query_prompt": "", "document_prompt": "passage: "})
    assert lacking == {"query_prompt": SENTENCE}


def test_the_command_says_how_near_the_encoder_is(tiny_parent: Parent, tmp_path: Path) -> None:
    folder = folder_of(SHAPES["like bge-small"], tiny_parent, tmp_path).rename(tmp_path / "bge-small-en-v1.5")
    found = CliRunner().invoke(cli, ["upcycle", str(folder), "-o", str(tmp_path / "ours")])
    assert found.exit_code == 0, found.output
    assert "give --query-prompt 'Represent this sentence for searching relevant passages: '" in found.stderr
    words = r"difference from .* on twenty texts: at most \d\.\de-\d\d; stored as int8: cosine 0\.\d{6}"
    assert re.search(words, found.stdout)
    arguments = ["upcycle", str(folder), "-o", str(tmp_path / "other"), "--query-prompt", "find: "]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 0 and not found.stderr
    assert read_settings(tmp_path / "other")["query_prompt"] == "find: "


def test_sentence_transformers_with_prompts_of_ones_own(
    tiny_parent: Parent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = folder_of(Shape(prompts={"passage": "text, "}), tiny_parent, tmp_path).rename(tmp_path / "e5-small-v2")
    plain = load_encoder(f"st:{folder}")
    assert "give --encoder 'st:" in caplog.text and "e5-small-v2;query=query: '" in caplog.text
    caplog.clear()
    spec = f"st:{folder};query=find: ;document="
    prompted = load_encoder(spec)
    assert not caplog.text
    assert prompted.identity.name == spec and prompted.identity.sha256 != plain.identity.sha256
    model = SentenceTransformer(str(folder), device="cpu")
    for found, prompt in (
        (ours(plain, "queries"), ""),
        (ours(plain, "documents"), "text, "),
        (ours(prompted, "queries"), "find: "),
        (ours(prompted, "documents"), ""),
    ):
        np.testing.assert_allclose(found, model.encode(TEXTS, prompt=prompt, normalize_embeddings=True), atol=1e-6)


def test_prompts_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UserError, match=r"query_prompt is .* not UTF-8"):
        UpcycleConfig(query_prompt="find\udcff: ")
    with pytest.raises(UserError, match="names a prompt twice"):
        parse_spec("st:a/b;query=x;query=y").models()
