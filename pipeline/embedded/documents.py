"""The records of `text`: documents put together from sentences written here, and documents with one fault each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.embedded.item import EXACT, KEPT, NEAR, TEXT, End, Row, dropped
from pipeline.embedded.picture import Origin, seeded
from pipeline.embedded.sentences import PROSE, SINGLE

INDEX = "docs.jsonl"
_ORIGIN = Origin(path="pipeline/embedded/sentences.py")
_COUNTS = {"en": 10, "de": 6, "fr": 4, "es": 4, "it": 3, "ru": 3, "zh": 3}


def documents() -> Iterator[Row]:
    """All of them, in manifest order."""
    for language, count in _COUNTS.items():
        for index in range(count):
            yield _row(f"{language}_{index:02d}", language, story(language, index), KEPT, ("good",))
    for language, text in SINGLE.items():
        yield _row(f"{language}_00", language, text, KEPT, ("good",))
    yield from _faulty()
    yield from _copies()


def story(language: str, index: int) -> str:
    """Two paragraphs of that language, of five to seven sentences together."""
    rng = seeded(f"text {language} {index}")
    prose = PROSE[language]
    count = 5 + index % 3
    order = rng.permutation(len(prose.sentences))[:count]
    gaps = {name: [str(each) for each in rng.permutation(np.array(words))] for name, words in prose.gaps.items()}
    told = []
    for place in order:
        sentence = prose.sentences[place]
        for name, words in gaps.items():
            if f"{{{name}}}" in sentence:
                sentence = sentence.replace(f"{{{name}}}", words[0])
                words.append(words.pop(0))
        told.append(sentence)
    blank = "" if language == "zh" else " "
    return f"{blank.join(told[: count // 2])}\n{blank.join(told[count // 2 :])}"


def _faulty() -> Iterator[Row]:
    """Documents that one rule drops."""
    for index, text in enumerate(("Closed on Monday.", "See the next page for more.", "")):
        yield _row(f"short_{index}", "en", text, dropped("length"), ("short",))
    for index, text in enumerate(_UNKNOWN):
        yield _row(f"unknown_{index}", "und", text, dropped("language"), ("unknown language",))
    yield _row("swedish_0", "sv", _SWEDISH, dropped("language"), ("language",))
    yield _row("table_0", "en", _table(), dropped("letters"), ("table",))
    for index in range(2):
        yield _row(f"shouted_{index}", "en", story("en", 20 + index).upper(), dropped("capitals"), ("capitals",))
    for index, (language, times) in enumerate((("en", 5), ("de", 4), ("zh", 6))):
        first = story(language, 30 + index).split("\n")[0]
        text = " ".join([first] * times)
        yield _row(f"repeated_{index}", language, text, dropped("repetition"), ("repetitive",))
    yield _row("refrain_0", "en", _refrain(), dropped("repeated_lines"), ("repetitive",))
    for index, text in enumerate((_links(), _markup())):
        yield _row(f"links_{index}", "en", text, dropped("links"), ("links",))
    for index, sign in enumerate(("\ufffd", "\u202e", "\x07\x07\x07")):
        text = story("en", 40 + index)
        yield _row(f"damaged_{index}", "en", text[:60] + sign + text[60:], dropped("encoding"), ("damaged",))
    for index, (language, kind) in enumerate((("de", "latin-1"), ("fr", "cp1252"), ("es", "latin-1"))):
        text = story(language, 50 + index).encode().decode(kind, errors="replace").replace("\ufffd", "?")
        yield _row(f"mojibake_{index}", language, text, dropped("mojibake"), ("mojibake",))
    for index in range(3):
        yield _row(f"scanned_{index}", "en", _scanned(index), dropped("scanning"), ("scan",))
    for index, lines in enumerate(_MENUS):
        yield _row(f"menu_{index}", "en", "\n".join(lines), dropped("menus"), ("menu",))
    for index in range(2):
        text = story("en", 60 + index)[: 180 + 7 * index].rpartition(" ")[0].replace("\n", " ").rstrip(".,")
        yield _row(f"torn_{index}", "en", text, dropped("whole"), ("cut off",))
    for index, licence in enumerate(("CC-BY-NC-SA-4.0", None)):
        terms = replace(_ORIGIN, licence=licence, note="stated for the test")
        end = dropped("licence" if licence else "no licence")
        yield _row(f"terms_{index}", "en", story("en", 70 + index), end, ("good",), terms)


def _copies() -> Iterator[Row]:
    """Copies of kept documents. Of near-equal ones the longest stays: the copies lack a little."""
    for index, language in enumerate(("en", "fr", "zh")):
        group = f"{language}_00"
        yield _row(f"{group}_exact", language, story(language, 0), EXACT, ("copy",), near_dup_group=group)
        if index < 2:
            group = f"{language}_01"
            text = story(language, 1).removesuffix(".").rpartition(" ")[0] + "."
            yield _row(f"{group}_shorter", language, text, NEAR, ("near-duplicate",), near_dup_group=group)


def _row(
    name: str, language: str, text: str, end: End, tags: tuple[str, ...], origin: Origin = _ORIGIN, **more: Any
) -> Row:
    facts = {"purpose": ["text quality", "language id", "dedup"], "lang": language, "tags": list(tags), **more}
    facts["chars"] = len(text)
    return Row(INDEX, name, {"id": f"text/{name}", "text": text}, {TEXT: end}, origin, facts)


def _table() -> str:
    rng = seeded("text table")
    rows = [f"{name} {' '.join(f'{value:.2f}' for value in rng.uniform(0, 99, 5))} and over" for name in
            ("The north", "The south", "The east", "The west", "The rest")]  # fmt: skip
    return "\n".join(rows)


def _refrain() -> str:
    """A long cry between short lines: so few words that no run of three comes again."""
    between = ("It is the fog.", "They call from the shore.", "Who is there now?", "We row on.", "A lamp goes out.",
               "It was the last of them.")  # fmt: skip
    return "\n".join(line for each in between for line in (each, "Notwithstanding, harbourmaster!"))


def _links() -> str:
    pages = [f"https://pictures.example/gallery/{number}/the-harbour-in-the-evening.html" for number in range(4)]
    return "Here are the pictures of the week, and there is more to come:\n" + "\n".join(f"{page} ." for page in pages)


def _markup() -> str:
    cells = "".join(f'<td class="cell-{number}"><a href="/page/{number}">the {number} of them</a></td>' for number in
                    range(12))  # fmt: skip
    return f"<table><tr>{cells}</tr></table> There is a table for each of the houses and this is it."


def _scanned(index: int) -> str:
    """Words as bad character recognition leaves them: signs and digits inside every second word."""
    rng = seeded(f"scan {index}")
    found = []
    for number, word in enumerate(story("en", 80 + index).split()):
        misread = number % 2 and len(word) > 3 and word.isalpha()
        place = int(rng.integers(1, len(word) - 1)) if misread else 0
        found.append(f"{word[:place]}{'~|^10'[int(rng.integers(5))]}{word[place:]}" if misread else word)
    return " ".join(found)


_UNKNOWN = (
    "Vilo tar omu selke brani, do kervu lasti mompa. Tirel osku benda, vashi nolu tarim pelko sudri. Makri velt ombu "
    "tasni, gorlu finde parso keltim undra.",
    "Zentu palori mesk tavu, rindo kelba sortu. Umbra felki dostan, mirelu pakto venshi. Lorvu tisna kembo, aldri "
    "sontu vekla prindo marsu talke.",
)
_SWEDISH = (
    "På morgonen ligger dimman över hamnen och båtarna väntar vid stranden. Bagaren öppnar sin dörr när klockan har "
    "slagit åtta. Barnen går till skolan genom trädgården och räknar fåglar. Ingen vet vem som byggde kvarnen, men "
    "alla tycker om den."
)
_MENUS = (
    ("Home", "About the house", "What is on", "The garden", "Rooms and prices", "How to find us", "Opening hours",
     "Pictures of the week", "Contact", "Terms", "The shop"),
    ("Log in", "Your account", "The basket", "All of the offers", "New in this week", "Shoes", "Coats and hats",
     "Gifts for the home", "Help", "Send it back", "Jobs with us", "Imprint"),
)  # fmt: skip
