"""Associations learned from a small network, against a loop over tokens, and the command that makes them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np
import yaml
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.vocabulary.query_terms import read_query_terms
from retriever.train.associations import ALONE, SHARE, learn_associations, lone_terms
from retriever.train.experts.vocabulary_experts import LEAST_WEIGHT, wins
from tests.network.test_vocabulary_experts import network, texts

if TYPE_CHECKING:
    from pathlib import Path

PER_TERM = 3


def test_a_row_is_the_average_of_what_its_tokens_win() -> None:
    model = network(vocabulary_experts=0)
    stem = model.sparse_head.stem.tolist()
    alone = lone_terms(model, (2, 3))
    assert all(text[0] == 2 and text[2] == 3 and stem[text[1]] == text[1] for text in alone)
    found = learn_associations(model, wins(model, texts()), wins(model, alone), per_term=PER_TERM)
    won: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    seen: Counter[int] = Counter()
    for times, some in ((1, texts()), (ALONE, alone)):
        for part in wins(model, some):
            own = [stem[token] for token in part.own.tolist()]
            seen.update(own if times == 1 else [])
            for token, term, weight in zip(part.token.tolist(), part.term.tolist(), part.weight.tolist(), strict=True):
                won[own[token]][term] += times * (weight + LEAST_WEIGHT)
    scale = 1 / float(model.lexical.expansion.detach())
    for word, (terms, weights) in enumerate(zip(found.terms.tolist(), found.weights, strict=True)):
        average = {term: sum_ * scale / (ALONE + seen[word]) for term, sum_ in won[word].items()}
        own_weight = average.pop(word, 0.0)
        assert terms[0] == (word if own_weight else -1)
        others: list[float] = sorted(average.values(), reverse=True)[:PER_TERM]
        expected = [own_weight, *(SHARE * weight for weight in others), *[0.0] * (PER_TERM - len(others))]
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
        added = [term for term in terms[1:] if term >= 0]
        assert len(set(added)) == len(added) == len(others) and set(added) <= set(average)


def test_the_command(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    """A copy of the folder with a table, which says what it is."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"query": f"word {i}", "positive": f"text {i}"}) + "\n" for i in range(9)))
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"sources": [{"path": str(pairs)}], "base": "x", "output": "y"}))
    arguments = ["associate", str(tiny_encoder_folder), "--config", str(config), "--per-term", "2", "--most-terms", "7"]
    result = CliRunner().invoke(cli, [*arguments, "--output", str(tmp_path / "made")])
    assert result.exit_code == 0, result.output
    size = len(json.loads((tmp_path / "made" / "tokenizer.json").read_text())["model"]["vocab"])
    found = read_query_terms(tmp_path / "made", size)
    assert found is not None and found.terms.shape == (size, 1 + 2) and found.most == 7
    again = CliRunner().invoke(cli, [*arguments, "--output", str(tmp_path / "made")])
    assert again.exit_code == 1 and "not empty" in again.output
