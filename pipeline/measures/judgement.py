"""Measure `judgement`: what a model's JSON answer says, as columns that rules can read.

The answer is that of an `annotate` node above, whose prompt has a JSON schema:

    judge: {annotate: openai, needs: [licence], network: true, requires: base_url,
            params: {into: edit_judgement, prompt: edit_judge/v1, roles: [source, target], base_url: null, ...}}
    judged: {measure: judgement, needs: [judge], requires: answer,
             params: {answer: edit_judgement, scores: {followed: {field: instruction_followed, low: 1, high: 5}},
                      flags: {no_change: no_change}}}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import orjson
import pyarrow as pa
from pydantic import Field, StringConstraints, model_validator

from pipeline.annotations.columns import NAME_PATTERN
from pipeline.operator import Column, Measure, Params, Quarantine, Record

REASON = "judgement does not fit"
"""Why a record is set aside whose answer is not of the declared shape."""

_SHOWN = 60

_ColumnName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class Score(Params):
    """A number in the answer: the name it has there, its range and its good direction."""

    field: str
    low: float
    high: float
    better: Literal["higher", "lower"] | None = "higher"
    about: str = ""

    @model_validator(mode="after")
    def _range_is_one(self) -> Score:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        return self


class JudgementParams(Params):
    """Parameters of `judgement`: `answer` names the column with the model's JSON object.

    `scores`, `flags` (true or false) and `texts` name the columns written, and the names their values have in it.
    """

    answer: str
    scores: dict[_ColumnName, Score] = Field(default_factory=dict)
    flags: dict[_ColumnName, str] = Field(default_factory=dict)
    texts: dict[_ColumnName, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some_and_once(self) -> JudgementParams:
        names = [*self.scores, *self.flags, *self.texts]
        if not names:
            raise ValueError("name what the answer says in `scores`, `flags` or `texts`")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is written twice")
        return self


class Judgement(Measure):
    """What a model judged of a record. An answer of another shape, or out of range, sets the record aside."""

    name = "judgement"
    version = 1
    Params = JudgementParams
    params: JudgementParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """Scores, then flags, then texts, as the parameters declare them."""
        given = self.params
        return (
            *(
                Column(
                    name, pa.float64(), score.about or _about(score.field, given), score.low, score.high, score.better
                )
                for name, score in given.scores.items()
            ),
            *(Column(name, pa.bool_(), _about(field, given)) for name, field in given.flags.items()),
            *(Column(name, pa.string(), _about(field, given)) for name, field in given.texts.items()),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The answer."""
        return (self.params.answer,)

    def process(self, record: Record) -> Sequence[Any]:
        """The columns; raises Quarantine where the answer does not hold each value in its declared form."""
        return list(self._values(_object(record.values[self.params.answer])))

    def _values(self, told: dict[str, Any]) -> Iterator[Any]:
        for score in self.params.scores.values():
            value = _held(told, score.field)
            # True is a number to Python, and not to a judge.
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise _unfit(f"{score.field!r} is no number: {_brief(value)}")
            if not score.low <= value <= score.high:
                raise _unfit(f"{score.field!r} is {value:g}, declared {score.low:g} to {score.high:g}")
            yield float(value)
        for field in self.params.flags.values():
            value = _held(told, field)
            if not isinstance(value, bool):
                raise _unfit(f"{field!r} is neither true nor false: {_brief(value)}")
            yield value
        for field in self.params.texts.values():
            value = _held(told, field)
            if not isinstance(value, str) or not value.strip():
                raise _unfit(f"{field!r} is no text: {_brief(value)}")
            yield value.strip()


def _about(field: str, params: JudgementParams) -> str:
    return f"{field!r} of the answer in {params.answer}"


def _object(answer: Any) -> dict[str, Any]:
    try:
        told = orjson.loads(answer)
    except (orjson.JSONDecodeError, TypeError) as error:
        raise _unfit(f"not JSON: {_brief(answer)}") from error
    if not isinstance(told, dict):
        raise _unfit(f"no JSON object: {_brief(told)}")
    return told


def _held(told: dict[str, Any], field: str) -> Any:
    if field not in told:
        raise _unfit(f"no {field!r} in {_brief(told)}")
    return told[field]


def _brief(value: Any) -> str:
    return repr(value)[:_SHOWN]


def _unfit(message: str) -> Quarantine:
    return Quarantine(REASON, message)
