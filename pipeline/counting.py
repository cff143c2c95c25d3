"""Expanders `counting` and `finding`: questions of how many and of where, born from verified boxes.

A label is asked for only where all of its things are known: no crowd of it, no box of it that failed a check, and,
where the source states counts, the same number. Which labels are asked for and in which words follows from the record
key alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from catalog.errors import UserError
from catalog.keys import fingerprint, key_of
from pipeline.boxes import Box, grid_text
from pipeline.operator import Child, Expander, Params, Record

SHIPPED = Path(__file__).parent / "questions"


class Questions(BaseModel):
    """A versioned file of questions: `{things}` stands for the label in the plural, irregular ones in `plurals`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    about: str = ""
    questions: tuple[str, ...] = Field(min_length=1)
    plurals: dict[str, str] = Field(default_factory=dict)

    @field_validator("questions")
    @classmethod
    def _have_the_gap(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for question in value:
            if "{things}" not in question:
                raise ValueError(f"{question!r} has no {{things}}")
        return value

    @property
    def hash(self) -> str:
        """The key of everything that decides what is asked."""
        return fingerprint(self.model_dump(mode="json", exclude={"about"}))

    def plural(self, label: str) -> str:
        """A label in the plural: the last word of it, by the table or the regular rules of English."""
        head, _, last = label.rpartition(" ")
        if last in self.plurals:
            last = self.plurals[last]
        elif last.endswith(("s", "x", "ch", "sh")):
            last += "es"
        elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
            last = f"{last[:-1]}ies"
        else:
            last += "s"
        return f"{head} {last}".strip()


@lru_cache(maxsize=16)
def load_questions(name: str) -> Questions:
    """Shipped questions (`counting/v1`, `finding/v1`), or those of a YAML file; raises UserError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else SHIPPED / f"{name.partition('/')[0]}.yaml"
    try:
        found = Questions.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"questions {name!r}: {path.name} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise UserError(f"questions {name!r}: {path.name}: {str(error).splitlines()[0]}") from error
    if path.parent == SHIPPED and name != f"{found.name}/v{found.version}":
        raise UserError(f"questions {name!r}: shipped are {found.name}/v{found.version}")
    return found


class CountingParams(Params):
    """Parameters of `counting`.

    At most `most` questions a picture, each for `least_count` to `most_count` things. `questions`: a shipped
    name/vVERSION or the path of a YAML file. `counts`: a field with the source's own {label: number}, which must agree.
    `boxes` and `uncountable` name the columns read; those of `opinion` are `agreed_boxes` and `agreed_uncountable`.
    """

    most: int = Field(default=2, ge=1)
    least_count: int = Field(default=1, ge=1)
    most_count: int = Field(default=20, ge=1)
    questions: str = "counting/v1"
    counts: str | None = None
    boxes: str = "verified_boxes"
    uncountable: str = "uncountable"


class FindingParams(CountingParams):
    """Parameters of `finding`, as those of `counting`; a list of boxes is long, so fewer things are asked for."""

    most_count: int = Field(default=10, ge=1)
    questions: str = "finding/v1"


class Counting(Expander):
    """Children with `question` and `answer` (digits) for the labels of a picture; needs `boxes` above it."""

    name = "counting"
    version = 1
    Params = CountingParams
    params: CountingParams
    time_limit: ClassVar[float] = 10.0

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns with boxes and unsure labels."""
        return (self.params.boxes, self.params.uncountable)

    def fingerprint_parts(self) -> dict[str, Any]:
        """The wording."""
        return {"questions": load_questions(self.params.questions).hash}

    def expand(self, record: Record) -> Iterable[Child]:
        """One child a question; none where nothing can be counted for sure. Lists of the parent are not copied."""
        fields = record.fields
        found = countable(record.values[self.params.boxes] or [], record.values[self.params.uncountable] or [])
        stated = fields.get(self.params.counts) if self.params.counts is not None else None
        if isinstance(stated, dict):
            found = {label: boxes for label, boxes in found.items() if stated.get(label) == len(boxes)}
        within = range(self.params.least_count, self.params.most_count + 1)
        draw = {label: key_of(self.name.encode(), record.key.encode(), label.encode()) for label in found}
        chosen = [label for label in sorted(found, key=lambda label: draw[label]) if len(found[label]) in within]
        wording = load_questions(self.params.questions)
        kept = {name: value for name, value in fields.items() if not isinstance(value, (list, dict))}
        for label in chosen[: self.params.most]:
            form = wording.questions[int(draw[label][-8:], 16) % len(wording.questions)]
            question = form.replace("{things}", wording.plural(label))
            asked = {**kept, "question": question, "answer": self.answer(found[label]), "label": label}
            if fields.get("id") is not None:
                asked["id"] = f"{fields['id']}#{self.name}-{label}"
            yield Child(self.name, asked, record.media)

    @staticmethod
    def answer(boxes: Sequence[Box]) -> str:
        """How many there are."""
        return str(len(boxes))


class Finding(Counting):
    """Children with `question` and `answer` (boxes on the 0 to 1000 grid); needs `boxes` above it."""

    name = "finding"
    Params = FindingParams

    @staticmethod
    def answer(boxes: Sequence[Box]) -> str:
        """The boxes from left to right, then from top to bottom."""
        return grid_text(sorted(boxes))


def countable(boxes: Iterable[dict[str, Any]], uncountable: Iterable[str]) -> dict[str, list[Box]]:
    """The boxes of each label, labels of unsure number left out."""
    found: dict[str, list[Box]] = defaultdict(list)
    unsure = set(uncountable)
    for box in boxes:
        if box["label"] not in unsure:
            found[box["label"]].append(Box(**box))
    return dict(found)
