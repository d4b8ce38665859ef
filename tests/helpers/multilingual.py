"""A tiny multilingual checkpoint: XLM-RoBERTa with random weights and a SentencePiece vocabulary of its own."""

from __future__ import annotations

import json
from pathlib import Path

SENTENCES = (
    "Der Fluss entspringt in den Bergen und mündet nach einer langen Reise durch die Ebene in das Meer.",
    "Die Häuser am Fluss sind alt, und im Haus wohnt eine Familie mit Kindern.",
    "The river rises in the mountains and flows into the sea after a long journey through the plain.",
    "The houses on the river are old, and a family with children lives in the house.",
    "El río nace en las montañas y desemboca en el mar después de un largo viaje por la llanura.",
    "その川は山に源を発し、平野を通る長い旅の後、海に注いでいます。",
    "川沿いの古い家には、かつて多くの家族が住んでいました。",
    "ينبع النهر من الجبال ويصب في البحر بعد رحلة طويلة عبر السهل.",
    "นักเรียนอ่านหนังสือริมแม่น้ำและกลับบ้านหลังฝนตก",
)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
POSITIONS = 48
"""Tokens that the network reads of a text; its table has two rows more."""


def save_tiny_multilingual(folder: Path) -> Path:
    """Write the folder: of the layout of multilingual-e5-small, with XLM-RoBERTa's positions and padding."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    size = _save_tokenizer(folder)
    model = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=POSITIONS + 2,
            type_vocab_size=1,
            pad_token_id=1,
        )
    )
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * 0.3
            value.copy_(1 + noise if name.endswith("LayerNorm.weight") else noise)
    model.save_pretrained(folder)
    kinds = "sentence_transformers.models"
    for name, content in {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{kinds}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kinds}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{kinds}.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
        "sentence_bert_config.json": {"max_seq_length": 514, "do_lower_case": False},
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "2_Normalize").mkdir()
    (folder / "README.md").write_text("---\nlanguage:\n- de\n- en\n- ja\n---\n# Tiny\n", encoding="utf-8")
    return folder


def _save_tokenizer(folder: Path) -> int:
    """Teach a tokeniser and return how many terms it has."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    # The prompts' words, and capitals.
    taught = [*SENTENCES, *map(str.capitalize, " ".join(SENTENCES).split()), *["query: passage: query passage"] * 5]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=list(SPECIAL), unk_token="<unk>")
    tokenizer.train_from_iterator(taught, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=512,
    )
    fast.save_pretrained(folder)
    return len(fast)
