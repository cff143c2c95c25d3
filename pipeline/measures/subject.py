"""Measure `subject`: whether a picture shows people or rendered text, so that a quota can boost them.

The pool of the LLaDA2.0-Uni report boosts pictures of human bodies and of rendered text (section 3, image generation).
Words of a caption tell most of it; where faces or the share of text were measured above, they tell too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.operator import Column, Measure, Params, Quarantine, Record

PEOPLE, TEXT, OTHER = "people", "text", "other"

_PEOPLE = re.compile(
    r"\b(?:people|persons?|man|men|wom[ae]n|boys?|girls?|child(?:ren)?|kids?|bab(?:y|ies)|toddlers?|teenagers?|adults?"
    r"|ladies|lady|gentlem[ae]n|guys?|crowds?|famil(?:y|ies)|couples?|friends|players?|surfers?|skiers?|skaters?"
    r"|snowboarders?|riders?|cyclists?|pedestrians?|soldiers?|dancers?|singers?|workers?|students?|teachers?|chefs?"
    r"|passengers|vendors?|tourists?|batters?|pitchers?|catchers?|umpires?|bride|groom"
    r"|astronauts?|fisherm[ae]n|farmers?|portraits?|selfies?|faces?|human|somebody|someone)\b",
    re.IGNORECASE,
)
_TEXT = re.compile(
    r"\b(?:text|letters?|lettering|words?|writing|written|handwriting|sign(?:s|posts?|age)?|billboards?|posters?|logos?"
    r"|label(?:s|led|ed)?|printed|captions?|headlines?|slogans?|banners?|neon sign|graffiti|typograph\w*"
    r"|documents?|receipts?|newspapers?|charts?|diagrams?|screenshots?|infographics?|menus?|reads|says|titled?"
    r"|book covers?|license plates?)\b"
    r"|[\"\u201c\u201e\u00ab][^\"\u201c\u201d\u201e\u00ab\u00bb]{2,80}[\"\u201d\u00bb]",
    re.IGNORECASE,
)


class SubjectParams(Params):
    """Parameters of `subject`.

    `text` names the column or field with the caption. `faces` and `text_share` name columns of measures above, null
    where there are none. `least_text_share`: from this share of the picture on, text is its subject.
    """

    text: str = "text"
    faces: str | None = None
    text_share: str | None = None
    least_text_share: float = Field(default=0.02, gt=0, le=1)


class Subject(Measure):
    """What a picture is boosted for. Text comes before people: fewer pictures have it, and models draw it worse."""

    name = "subject"
    version = 1
    Params = SubjectParams
    params: SubjectParams

    @property
    def reads(self) -> tuple[str, ...]:
        """The caption and what was measured."""
        given = self.params
        return tuple(name for name in (given.text, given.faces, given.text_share) if name is not None)

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        about = "`text`, `people` or `other`, by the English words of the caption and, where measured, by the picture"
        return (Column("subject", pa.string(), about),)

    def process(self, record: Record) -> Sequence[Any]:
        """The subject; a picture without a caption of which nothing was measured is `other`."""
        given = self.params
        caption = record.values[given.text] or ""
        if not isinstance(caption, str):
            raise Quarantine("text is not a string", f"{given.text!r} holds {type(caption).__name__}")
        share = 0.0 if given.text_share is None else record.values[given.text_share] or 0.0
        faces = 0 if given.faces is None else record.values[given.faces] or 0
        if share >= given.least_text_share or _TEXT.search(caption):
            return (TEXT,)
        return (PEOPLE if faces or _PEOPLE.search(caption) else OTHER,)
