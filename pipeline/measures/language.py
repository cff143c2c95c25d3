"""A small, exact guess of a text's language: the script of its letters, then common short words.

It needs no model and gives the same answer on every machine. It knows the languages below and no others,
cannot tell close relatives apart in short texts, and then says `und`; who needs more writes a measure with a
detector.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

DETECTOR = "script-stopword v1"
"""Name and version of the guess; another word list is another version."""

UNDETERMINED = "und"

LEAD = 1.25
"""How many times the runner-up's score the best language must have."""

_SCRIPTS = {
    "Latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Armenian": "\u0531-\u0587",
    "Hebrew": "\u05d0-\u05ea",
    "Arabic": "\u0620-\u064a\u066e-\u06d3\u0750-\u077f",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Gurmukhi": "\u0a00-\u0a7f",
    "Gujarati": "\u0a80-\u0aff",
    "Tamil": "\u0b80-\u0bff",
    "Telugu": "\u0c00-\u0c7f",
    "Kannada": "\u0c80-\u0cff",
    "Malayalam": "\u0d00-\u0d7f",
    "Sinhala": "\u0d80-\u0dff",
    "Thai": "\u0e01-\u0e4e",
    "Lao": "\u0e81-\u0eda",
    "Tibetan": "\u0f40-\u0fbc",
    "Myanmar": "\u1000-\u109f",
    "Georgian": "\u10a0-\u10ff",
    "Ethiopic": "\u1200-\u135a",
    "Khmer": "\u1780-\u17b3",
    "Kana": "\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff",
    "Hangul": "\u1100-\u11ff\uac00-\ud7a3",
    "Han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
}

_ONE_LANGUAGE = {
    "Greek": "el",
    "Armenian": "hy",
    "Hebrew": "he",
    "Bengali": "bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Tibetan": "bo",
    "Myanmar": "my",
    "Georgian": "ka",
    "Ethiopic": "am",
    "Khmer": "km",
    "Kana": "ja",
    "Hangul": "ko",
}
"""Scripts that are taken for their most common language without looking at words."""

_STOP_WORDS = {
    "Latin": {
        "en": "a an the of and to in is are was were on at with for from by that this it its as his her "
        "their there has have be not or which he she they you your who next while two some one "
        "into up down over out",
        "de": "der die das und ist ein eine einen einem einer den dem des mit auf von zu im in für "
        "nicht sich auch es an als wird sind bei oder nach aus wie über er sie hat haben zum zur "
        "vor werden war am durch jeder",
        "fr": "le la les de des du et est un une dans sur pour que qui au aux avec par pas plus ce "
        "cette ces son sa ses il elle ont à en ne se ou sont comme nous vous leur mais l'on d'un "
        "d'une tout toute",
        "es": "el la los las de del y en un una que es con por para se su sus al no lo como más o pero "
        "este esta sobre sin son fue ha hay tiene entre dos muy toda derecho",
        "it": "il lo la gli le di del della dei delle e è un una in con per che si su non al alla da "
        "dal nel nella sono come più anche ha ogni questo questa ma suo sua dell ed i degli",
        "pt": "o a os as de do da dos das e em um uma que é com para por se não no na nos nas ao à mais "
        "como sua seu são ou foi ser tem pelo pela sobre dois muito todo",
        "nl": "de het een en van in is op te met voor dat die zijn niet aan er om ook als bij door naar "
        "uit over of heeft wordt deze dit maar zich tot werd hij ieder twee geen",
        "sv": "och att det en ett som är på av för med till den har inte om de i var sig men från vid "
        "eller han hon kan ska så nu två utan skall varje",
        "da": "og at det en et som er på af for med til den har ikke om de i var sig men fra ved eller "
        "han hun kan skal så nu to uden enhver der",
        "no": "og at det en et som er på av for med til den har ikke om de i var seg men fra ved eller "
        "han hun kan skal så nå to uten enhver",
        "fi": "ja on ei se että oli kun niin mutta tai joka hän ovat myös kuin hänen ole sekä jos vain "
        "olla sen ne kanssa mukaan jokaisella oikeus kaksi",
        "pl": "i w na z do się nie jest że to o jak po za od przez dla są ale czy lub oraz jego jej być "
        "ma tym który która dwa każdy",
        "cs": "a v na se je že s z do to o jako po za od pro ale nebo podle být má jeho její ve ze při "
        "který která jsou není dva každý",
        "tr": "bir ve bu da de için ile çok olarak gibi daha ne ya o olan sonra kadar her ki mi var "
        "değil en iki üzerinde hakkı",
        "id": "dan yang di ke dari dengan untuk pada ini itu adalah tidak dalam oleh akan atau juga ada "
        "sebuah seorang mereka dua orang setiap hak",
        "vi": "và của là có trong một các không được cho với những này người đã khi để từ trên đến như "
        "cũng hay về mọi quyền hai",
        "ro": "și de la în cu pe un o este nu care din pentru mai sau că sunt al ale fi prin ca lui dar "
        "această două orice dreptul",
        "hu": "a az és egy hogy nem is van meg de ez volt mint csak el még ki vagy már minden joga két által szerint",
        "sw": "na ya wa kwa ni za katika la cha kila mtu haki au kuwa hii hiyo yake kama bila wote ana "
        "huu vya watu zake wake mbili",
    },
    "Cyrillic": {
        "ru": "и в не на что с по как это из у за от для он она они его её но или к быть о также был "
        "так при все каждый человек имеет право",
        "uk": "і в не на що з та як це із у за від для він вона вони його її але або до бути про також "
        "є був так при кожна людина має право",
        "bg": "и в не на че с по как това от у за той тя те го но или към да се е са също при всеки "
        "човек има право със един",
        "sr": "и у не на што са по како је из за од он она они его али или да се су такође при сваки има право није",
    },
    "Arabic": {
        "ar": "في من على إلى أن لا ما هذا هذه التي الذي عن مع أو كل كان لكل وفي حق هو هي بين شخص الحق",
        "fa": "در از به که را با این آن است برای یا هر تا بر های می حق شود دارد کس",
        "ur": "اور کے کی میں ہے کا سے کو پر نے کہ اس یہ ہر ہیں بھی حق شخص یا",
    },
    "Devanagari": {
        "hi": "और के का की में है से को पर यह कि एक हैं नहीं ने भी या इस तथा प्रत्येक व्यक्ति अधिकार किसी",
        "mr": "आणि च्या आहे या ते व हा ही हे नाही मध्ये एक किंवा प्रत्येक असा करण्याचा",
        "ne": "र को मा छ ले लाई यो पनि हुने वा एक गर्ने प्रत्येक व्यक्तिलाई छैन",
    },
}


def guess_language(text: str, words: Sequence[str]) -> tuple[str | None, str]:
    """Script of most letters (None without letters) and ISO 639-1 code (`und` when unsure).

    `words`: the text's words as `text.split_words` gives them.
    """
    if text.isascii():
        return ("Latin", _by_words("Latin", words)) if any(map(str.isalpha, text)) else (None, UNDETERMINED)
    counts = {script: len(pattern.findall(text)) for script, pattern in _patterns().items()}
    # Japanese mixes kana and Han; a tenth of kana rules Chinese out.
    kana = counts["Kana"]
    if kana * 10 >= counts["Han"] and kana:
        counts["Kana"] += counts.pop("Han")
    script = max(counts, key=lambda name: counts[name])
    if counts[script] == 0:
        return None, UNDETERMINED
    if script == "Han":
        return script, "zh"
    if script in _ONE_LANGUAGE:
        return script, _ONE_LANGUAGE[script]
    return script, _by_words(script, words)


def _by_words(script: str, words: Sequence[str]) -> str:
    """The language whose common words the text uses most; a word of several counts for each in part."""
    scores: dict[str, float] = defaultdict(float)
    for word in words:
        languages = _index(script).get(_bare(word), ())
        for language in languages:
            scores[language] += 1 / len(languages)
    ranked = [*sorted(scores.items(), key=lambda item: (-item[1], item[0])), (UNDETERMINED, 0.0)]
    if len(ranked) == 1 or ranked[0][1] < LEAD * ranked[1][1]:
        return UNDETERMINED
    return ranked[0][0]


def _bare(word: str) -> str:
    """A word without the punctuation around it, in lower case."""
    bare = word.strip(".,;:!?\"'()[]{}«»„“”‘’–—-…*/|<>،؛؟।").casefold()
    return bare if bare.isascii() else unicodedata.normalize("NFC", bare)


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {script: re.compile(f"[{ranges}]") for script, ranges in _SCRIPTS.items()}


@cache
def _index(script: str) -> dict[str, tuple[str, ...]]:
    """Languages by common word."""
    index: dict[str, tuple[str, ...]] = {}
    for language, listed in _STOP_WORDS[script].items():
        for word in dict.fromkeys(listed.split()):
            index[word] = (*index.get(word, ()), language)
    return index
