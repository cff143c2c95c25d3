from __future__ import annotations

import json
import unicodedata

import pytest

from pipeline.measures.language import guess_language
from pipeline.measures.text import split_words
from tests.pipeline.pictures import CORPORA


def guess(text: str) -> tuple[str | None, str]:
    return guess_language(text, split_words(text))


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("A dog and a cat are playing with the ball in front of their house.", "Latin", "en"),
        ("Ein Hund und eine Katze spielen mit dem Ball vor dem Haus.", "Latin", "de"),
        ("Un chien et un chat jouent avec le ballon devant la maison.", "Latin", "fr"),
        ("Un perro y un gato juegan con la pelota frente a la casa.", "Latin", "es"),
        ("Un cane e un gatto giocano con la palla davanti alla casa.", "Latin", "it"),
        ("Um cão e um gato brincam com a bola em frente da casa.", "Latin", "pt"),
        ("Een hond en een kat spelen met de bal voor het huis.", "Latin", "nl"),
        ("Pies i kot bawią się piłką przed domem, który jest na wsi.", "Latin", "pl"),
        ("Bir köpek ve bir kedi evin önünde top ile oynuyor.", "Latin", "tr"),
        ("Собака и кошка играют с мячом перед домом, но это не их дом.", "Cyrillic", "ru"),
        ("Собака та кішка грають з м'ячем перед будинком, що стоїть у селі.", "Cyrillic", "uk"),
        ("Ένας σκύλος και μια γάτα παίζουν.", "Greek", "el"),
        ("كلب وقطة يلعبان في البيت مع الكرة على العشب", "Arabic", "ar"),
        ("یک سگ و گربه با توپ در خانه بازی می کنند که است", "Arabic", "fa"),
        ("एक कुत्ता और एक बिल्ली घर के सामने खेल रहे हैं", "Devanagari", "hi"),
        ("一只狗和一只猫在房子前面玩球。", "Han", "zh"),
        ("犬と猫が家の前でボールで遊んでいます。", "Kana", "ja"),
        ("개와 고양이가 집 앞에서 놀고 있다.", "Hangul", "ko"),
        ("สุนัขและแมวกำลังเล่น", "Thai", "th"),
        ("Xyzzy plugh qwrt", "Latin", "und"),
        ("de la", "Latin", "und"),
        ("12345 !!!", None, "und"),
        ("", None, "und"),
    ],
)
def test_common_languages_are_told_apart(text: str, script: str | None, language: str) -> None:
    assert guess(text) == (script, language)


def test_decomposed_letters_count_as_composed_ones() -> None:
    text = "für über nächste größte"
    assert guess(unicodedata.normalize("NFD", text)) == guess(text) == ("Latin", "de")


@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="the sample corpora are not beside the project")
def test_nine_in_ten_documents_are_told_and_one_in_fifty_is_mistaken() -> None:
    known = {"arb": "ar", "cmn": "zh", "deu": "de", "ell": "el", "eng": "en", "fin": "fi", "fra": "fr"}
    known |= {"heb": "he", "hin": "hi", "jpn": "ja", "kat": "ka", "rus": "ru", "swh": "sw", "tha": "th"}
    known |= {"tur": "tr", "vie": "vi"}
    lines = [json.loads(line) for line in (CORPORA / "text" / "docs.jsonl").read_text().splitlines()]
    right = wrong = total = 0
    for item in map(json.loads, (CORPORA / "text" / "manifest.jsonl").read_text().splitlines()):
        if item["kind"] == "record" and "lang" in item and "low-quality" not in item["tags"]:
            found = guess(lines[item["line"]]["text"])[1]
            total += 1
            right += found == known[item["lang"]]
            wrong += found not in (known[item["lang"]], "und")
    assert right >= 0.9 * total
    assert wrong <= 0.02 * total
