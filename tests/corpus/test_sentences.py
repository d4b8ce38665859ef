"""Where sentences end, in languages other than English."""

from __future__ import annotations

import pytest

from retriever.corpus.sentences import sentences


@pytest.mark.parametrize(
    "parts",
    [
        ["Das gilt z. B. für Brot, bzw. Brötchen, vgl. Abb. 2 und Nr. 7. ", "Hefe lebt."],
        ["El Sr. Pérez y la Sra. Díaz leen la pág. 5. ", "¿Por qué? ", "Nadie lo sabe."],
        ["Mme. Curie et Mlle. Noir sont parties. ", "Pourquoi ? ", "On ne sait pas."],
        ["パンが膨らむのはなぜか。", "酵母が「糖を分解する。」", "それだけです！", "本当？", "はい｡", "終わり"],  # noqa: RUF001
        ["水是什么？", "水是液体。", "结束"],  # noqa: RUF001
        ["لماذا يرتفع الخبز؟ ", "الخميرة تنتج الغاز. ", "هذا كل شيء."],
        ["रोटी क्यों फूलती है? ", "खमीर गैस बनाता है। ", "बस।"],
        ["למה הלחם תופח? ", "השמרים יוצרים גז."],
    ],
    ids=["de", "es", "fr", "ja", "zh", "ar", "hi", "he"],
)
def test_sentences_of_a_text(parts: list[str]) -> None:
    text = "".join(parts)
    assert [text[start:end] for start, end in sentences(text)] == parts
