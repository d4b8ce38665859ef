from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from retriever.experts.report import experts_report
from retriever.experts.routing_stats import entropy, expert_load, pointwise_mutual_information, together
from retriever.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch


def test_load_is_the_share_of_the_choices() -> None:
    assert expert_load(np.array([[0, 1], [0, 3], [0, 1]]), 4).tolist() == [3 / 6, 2 / 6, 0, 1 / 6]


def test_entropy_of_rows() -> None:
    rows = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert entropy(rows).tolist() == [2.0, 0.0, 1.0]


def test_pointwise_mutual_information_is_the_definition() -> None:
    counts = np.random.default_rng(1).integers(0, 5, (7, 3))
    counts[2] = 0  # a token that the sample lacks
    found, total = pointwise_mutual_information(counts), int(counts.sum())
    for x in range(7):
        for y in range(3):
            joint, row, column = int(counts[x, y]), int(counts[x].sum()), int(counts[:, y].sum())
            expected = math.log2(joint / total / (row / total * column / total)) if joint else -math.inf
            assert found[x, y] == pytest.approx(expected)


def test_experts_with_the_same_tokens_are_one_and_unused_ones_are_not() -> None:
    assert together(np.array([[1, 0, 1, 0, 2], [3, 0, 3, 0, 3]])) == [(0, 2), (1,), (3,), (4,)]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps({"_id": str(n), **record}) + "\n" for n, record in enumerate(records)))
    return path


def test_the_report_is_what_a_naive_loop_counts(tiny_encoder_folder: Path, tiny_corpus: Path) -> None:
    import torch
    from tokenizers import Tokenizer

    from retriever.corpus.corpus import open_corpus
    from retriever.network.folder import load_model

    report = experts_report(str(tiny_encoder_folder), tiny_corpus, min_count=4, top=5, field="topic")
    model = load_model(tiny_encoder_folder)
    tokenizer = Tokenizer.from_file(str(tiny_encoder_folder / "tokenizer.json"))
    pairs: Counter[tuple[str, int]] = Counter()
    topics: Counter[tuple[str, int]] = Counter()
    tokens, uncertainty = 0, 0.0
    for record in open_corpus(tiny_corpus):
        assert record.document is not None
        if not record.document.contents:
            continue
        encoding = tokenizer.encode(record.document.contents)
        ids = [encoding.ids[0], *encoding.ids[1:-1][: model.config.max_length - 2], encoding.ids[-1]]
        with torch.no_grad():
            routing = model(torch.tensor([ids])).routings[0]
        tokens += len(ids)
        for token, chosen, logits in zip(ids, routing.expert_ids.tolist(), routing.logits.double(), strict=True):
            shares = [p for p in logits.softmax(0).tolist() if p]
            uncertainty -= sum(p * math.log2(p) for p in shares)
            for expert in chosen:
                pairs[str(tokenizer.id_to_token(token)), expert] += 1
                topics[str(record.document.metadata["topic"]), expert] += 1
    [layer] = report.layers
    assert (report.documents, report.tokens, report.active) == (19, tokens, model.config.expert_shape.active)
    assert int(layer.layer) in model.config.moe_layers and layer.token_entropy == pytest.approx(uncertainty / tokens)
    total = sum(pairs.values())
    for expert, load in enumerate(layer.load):
        assert load == pytest.approx(sum(n for (_, e), n in pairs.items() if e == expert) / total)
    assert layer.load_entropy == pytest.approx(-sum(p * math.log2(p) for p in layer.load if p))
    listed = 0
    for profile in layer.profiles:
        expert = profile.experts[0]
        assert profile.load == pytest.approx(sum(layer.load[e] for e in profile.experts))
        for found, counts, top in ((profile.tokens, pairs, 5), (profile.values, topics, 5)):
            own = sum(n for (_, e), n in counts.items() if e == expert)
            information = {
                name: math.log2(n * total / (own * sum(m for (other, _), m in counts.items() if other == name)))
                for (name, e), n in counts.items()
                if e == expert and n >= 4
            }
            best = sorted(value for value in information.values() if value > 1e-12)[::-1][:top]
            assert [one.pmi for one in found] == pytest.approx(best, abs=1e-8)
            assert all(one.pmi == pytest.approx(information[one.name], abs=1e-8) for one in found)
            assert all(one.count == counts[one.name, expert] for one in found)
            listed += len(found)
    assert listed > 10


def test_slices_of_a_copy_are_reported_as_one(tiny_encoder_folder: Path, tiny_corpus: Path) -> None:
    [layer] = experts_report(str(tiny_encoder_folder), tiny_corpus).layers
    used = [profile.experts for profile in layer.profiles if profile.load]
    assert set(used) <= {(0, 1), (2, 3), (4, 5), (6, 7)} and used


def test_the_context_stands_in_the_text(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "one.jsonl", [{"text": "the bread and the yeast and the bread and the oven"}])
    [layer] = experts_report(str(tiny_encoder_folder), path, min_count=1).layers
    found = [token for profile in layer.profiles for token in profile.tokens if not token.name.startswith("[")]
    assert found
    for token in found:
        assert f"{token.before}{token.name.removeprefix('##')}{token.after}".strip() in (
            "the bread and the yeast and the bread and the oven"
        )


def test_a_sample_is_random_and_repeatable(tiny_encoder_folder: Path, tiny_corpus: Path) -> None:
    def loads(seed: int) -> tuple[int, tuple[float, ...]]:
        report = experts_report(str(tiny_encoder_folder), tiny_corpus, documents=4, seed=seed)
        assert report.documents == 4
        return report.tokens, report.layers[0].load

    assert loads(0) == loads(0) != loads(1)


def test_faults(tiny_encoder_folder: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    folder = str(tiny_encoder_folder)
    with pytest.raises(UserError, match=r"no field 'colour'; its documents have topic, year"):
        experts_report(folder, tiny_corpus, field="colour")
    with pytest.raises(UserError, match="no document with text"):
        experts_report(folder, write(tmp_path / "empty.jsonl", [{"text": " "}]))
    with pytest.raises(UserError, match=r"bad\.jsonl:1: no text"):
        experts_report(folder, write(tmp_path / "bad.jsonl", [{"title": "x"}]))
    for spec in ("none", "st:somewhere"):
        with pytest.raises(UserError, match="has no experts; give an encoder folder"):
            experts_report(spec, tiny_corpus)
    with pytest.raises(UserError, match="no such encoder"):
        experts_report("nowhere", tiny_corpus)


def test_an_encoder_without_experts(tiny_encoder_folder: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    from retriever.network.checkpoint import write_weights
    from retriever.network.folder import load_model
    from retriever.network.model import RetrieverModel

    config = load_model(tiny_encoder_folder).config
    config.moe_layers = []
    config.save_pretrained(tmp_path)
    write_weights(RetrieverModel(config).state_dict(), tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tiny_encoder_folder / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="has no experts; give an encoder with MoE layers"):
        experts_report(str(tmp_path), tiny_corpus)
