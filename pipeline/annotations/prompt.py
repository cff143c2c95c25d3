"""A prompt: versioned text with gaps, kept in a YAML file, whose hash stands beside every answer it got.

Shipped prompts lie in `prompts/` and are named `caption_short/v1`; a recipe may also give the path of a YAML file, or
write the prompt out. A shipped text that changes must get a new version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from catalog.keys import canonical, fingerprint
from pipeline.annotations.columns import NAME_PATTERN, as_text
from pipeline.operator import Quarantine

SHIPPED = Path(__file__).parent / "prompts"

_GAP = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_SHIPPED_NAME = re.compile(r"^([a-z][a-z0-9_]*)/v([1-9][0-9]*)$")
_OWN_GAPS = ("min_words", "max_words")


class Prompt(BaseModel):
    """What a model is asked.

    `user` is a list of paragraphs with gaps like `{text}`; a paragraph with a gap that has no value for a record is
    left out. `{min_words}` and `{max_words}` are filled from the prompt itself. With a JSON `schema` the answer must be
    an object that has its `required` names; `take` says which of them is the text, otherwise the whole object is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field(pattern=NAME_PATTERN)
    version: int = Field(ge=1)
    about: str = ""
    system: str = ""
    user: tuple[str, ...] = Field(min_length=1)
    min_words: int | None = Field(default=None, ge=1)
    max_words: int | None = Field(default=None, ge=1)
    answer_schema: dict[str, JsonValue] | None = Field(default=None, alias="schema")
    take: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Prompt:
        if _GAP.search(self.system):
            raise ValueError("system: only user paragraphs may have gaps")
        for gap in _OWN_GAPS:
            if gap in _gaps(self.user) and getattr(self, gap) is None:
                raise ValueError(f"user: {{{gap}}} has no value; write {gap}")
        if all(set(_gaps([part])) - set(_OWN_GAPS) for part in self.user):
            raise ValueError("user: every paragraph has a gap; a record without values would be asked nothing")
        if self.answer_schema is not None and self.answer_schema.get("type") != "object":
            raise ValueError("schema: describe an object (type: object)")
        if self.take is not None and self.take not in self.required:
            raise ValueError(f"take: {self.take!r} is not among the schema's required names")
        return self

    @property
    def gaps(self) -> tuple[str, ...]:
        """What a recipe may fill in, in order of appearance."""
        return tuple(gap for gap in _gaps(self.user) if gap not in _OWN_GAPS)

    @property
    def required(self) -> tuple[str, ...]:
        """Names an answer in JSON must have."""
        names = (self.answer_schema or {}).get("required")
        return tuple(str(name) for name in names) if isinstance(names, list) else ()

    @property
    def hash(self) -> str:
        """The key of everything that decides what is asked; `about` does not."""
        return fingerprint(self.model_dump(mode="json", exclude={"about"}))

    @property
    def label(self) -> str:
        """name/vVERSION#hash, as the catalog stores it."""
        return f"{self.name}/v{self.version}#{self.hash[:12]}"

    def text(self, values: Mapping[str, Any]) -> str:
        """The user's text for one record, gaps filled."""
        known = {gap: as_text(getattr(self, gap)) for gap in _OWN_GAPS}
        known |= {gap: " ".join(as_text(value).split()) for gap, value in values.items()}
        parts = [
            _GAP.sub(lambda match: known[match[1]], part)
            for part in self.user
            if all(known.get(gap) for gap in _gaps([part]))
        ]
        return "\n\n".join(parts)

    def read(self, answer: str, finish: str, take: str | None = None, only_if: str | None = None) -> str | None:
        """The text of an answer; raises Quarantine for an empty one, or one that is not the JSON that was asked for.

        `take` goes before the prompt's own. Without either, the text of an answer in JSON is its canonical JSON. None
        where the answer says false of `only_if`.
        """
        take = take or self.take
        text = answer.strip()
        if not text:
            raise Quarantine("empty answer", f"the model wrote nothing (finish: {finish})")
        if self.answer_schema is None:
            return text
        try:
            told = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            cut = "; it was cut at max_tokens" if finish == "length" else ""
            raise Quarantine("unparseable answer", f"not JSON at character {error.pos}{cut}") from None
        if not isinstance(told, dict):
            raise Quarantine("unparseable answer", "not a JSON object")
        for name in self.required:
            if name not in told:
                raise Quarantine("unparseable answer", f"{name!r} is missing")
        if only_if is not None:
            if not isinstance(told[only_if], bool):
                raise Quarantine("unparseable answer", f"{only_if!r} is neither true nor false")
            if not told[only_if]:
                return None
        if take is None:
            return canonical(told).decode()
        taken = told[take]
        if not isinstance(taken, str) or not taken.strip():
            raise Quarantine("unparseable answer", f"{take!r} is not a text")
        return taken.strip()


def _gaps(parts: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(gap for part in parts for gap in _GAP.findall(part)))


def shipped_names() -> list[str]:
    """The prompts that come with the factory."""
    return sorted(f"{prompt.name}/v{prompt.version}" for prompt in map(_read, SHIPPED.glob("*.yaml")))


def load_prompt(wanted: str) -> Prompt:
    """A shipped prompt by name, or the one in a YAML file; raises ValueError naming the place."""
    if match := _SHIPPED_NAME.match(wanted):
        for path in sorted(SHIPPED.glob("*.yaml")):
            prompt = _read(path)
            if (prompt.name, str(prompt.version)) == match.groups():
                return prompt
    if not wanted.endswith((".yaml", ".yml")):
        known = ", ".join(shipped_names())
        raise ValueError(f"there is no prompt {wanted!r}; there are: {known}, or give a path that ends in .yaml")
    return _read(Path(wanted))


@lru_cache(maxsize=64)
def _read(path: Path) -> Prompt:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"prompt {path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"prompt {path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"prompt {path}: a prompt is a mapping with name, version, user")
    try:
        return Prompt.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"prompt {path}: {f'{where}: ' if where else ''}{what}") from None
