"""Expander `counting`: questions of how many, born from verified boxes.

A label is asked for only where the number is known: no crowd of it, no box of it that failed a check, and, where the
source states counts, the same number. Which labels are asked for and in which words follows from the record key alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from catalog.errors import UserError
from catalog.keys import fingerprint, key_of
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
    """The shipped questions `counting/v1`, or those of a YAML file; raises UserError."""
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
    """

    most: int = Field(default=2, ge=1)
    least_count: int = Field(default=1, ge=1)
    most_count: int = Field(default=20, ge=1)
    questions: str = "counting/v1"
    counts: str | None = None


class Counting(Expander):
    """Children with `question` and `answer` (digits) for the labels of a picture; needs `boxes` above it."""

    name = "counting"
    version = 1
    Params = CountingParams
    params: CountingParams
    time_limit: ClassVar[float] = 10.0

    @property
    def reads(self) -> tuple[str, ...]:
        """What `boxes` found."""
        return ("verified_boxes", "uncountable")

    def fingerprint_parts(self) -> dict[str, Any]:
        """The wording."""
        wording = load_questions(self.params.questions).model_dump(mode="json", exclude={"about"})
        return {"questions": fingerprint(wording)}

    def expand(self, record: Record) -> Iterable[Child]:
        """One child a question; none where nothing can be counted for sure. Lists of the parent are not copied."""
        fields = record.fields
        counts = countable(record.values["verified_boxes"] or [], record.values["uncountable"] or [])
        stated = fields.get(self.params.counts) if self.params.counts is not None else None
        if isinstance(stated, dict):
            counts = {label: count for label, count in counts.items() if stated.get(label) == count}
        within = range(self.params.least_count, self.params.most_count + 1)
        draw = {label: key_of(b"counting", record.key.encode(), label.encode()) for label in counts}
        chosen = [label for label in sorted(counts, key=lambda label: draw[label]) if counts[label] in within]
        wording = load_questions(self.params.questions)
        kept = {name: value for name, value in fields.items() if not isinstance(value, (list, dict))}
        for label in chosen[: self.params.most]:
            form = wording.questions[int(draw[label][:8], 16) % len(wording.questions)]
            asked = {
                **kept,
                "question": form.replace("{things}", wording.plural(label)),
                "answer": str(counts[label]),
                "label": label,
            }
            if fields.get("id") is not None:
                asked["id"] = f"{fields['id']}#{label}"
            yield Child("counting", asked, record.media)


def countable(boxes: Iterable[dict[str, Any]], uncountable: Iterable[str]) -> dict[str, int]:
    """How many verified boxes each label has, those of unsure number left out."""
    counts = Counter(str(box["label"]) for box in boxes)
    unsure = set(uncountable)
    return {label: count for label, count in counts.items() if label not in unsure}
