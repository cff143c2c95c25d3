"""Parameters of the operator `openai`."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from pipeline.annotations.columns import NAME_PATTERN
from pipeline.annotations.prompt import Prompt, load_prompt
from pipeline.operator import Params

_ENVIRONMENT_NAME = re.compile(r"^[A-Z_][A-Z0-9_]*$")
_SET = ("model", "messages", "temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "response_format")
_OURS = frozenset((*_SET, "stream", "n"))


class Whom(NamedTuple):
    """Who is asked: the address up to and with /v1, the model's name there, and its revision as declared."""

    base_url: str
    model: str
    revision: str


class OpenAIParams(Params):
    """Parameters of `openai`. Those marked `exclude` do not decide an answer, so changing them re-does nothing.

    What is asked: `prompt` (a shipped name/vN, a path of a YAML file, or written out), `inputs` (gap of the prompt ->
    column or field), `role` (of the picture; null sends none) or `roles` (all pictures of each role, in that order; a
    record without one is set aside), then those of `optional_roles` where a record has them, `max_side` in pixels and
    JPEG `quality` of what is sent. `take` names the text in an answer in JSON, in place of the prompt's own `take`.
    `otherwise` names the column or field whose text is copied where there is no `base_url`, and where the answer says
    false of `only_if`.
    Of whom: `base_url` (up to and with /v1), `model`, `revision` as declared and, where the server tells one, compared.
    How: `temperature`, `top_p`, `seed` (null sends none), `max_tokens`, `extra` (further fields of the request).
    How patiently: `concurrency` (questions in flight per worker), `timeout`, `attempts`, `backoff`, `max_wait` in
    seconds. `api_key_env` names the environment variable with the key, null for a server without one. `max_requests`
    and `max_total_tokens` bound one run of the node.
    """

    into: str = Field(default="caption", pattern=NAME_PATTERN)
    model: str | None = Field(default=None, min_length=1)
    revision: str | None = Field(default=None, min_length=1)
    prompt: str | Prompt = Field(exclude=True)
    inputs: dict[str, str] = Field(default_factory=dict)
    role: str | None = "image"
    # What came later is in the fingerprint only where it is used (see `OpenAI.fingerprint_parts`).
    roles: tuple[str, ...] = Field(default=(), exclude=True)
    optional_roles: tuple[str, ...] = Field(default=(), exclude=True)
    take: str | None = Field(default=None, exclude=True)
    only_if: str | None = Field(default=None, exclude=True)
    otherwise: str | None = Field(default=None, exclude=True)
    max_side: int = Field(default=1024, ge=16, le=8192)
    quality: int = Field(default=90, ge=1, le=100)
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    base_url: str | None = Field(default=None, exclude=True)
    token_limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(default="max_tokens", exclude=True)
    api_key_env: str | None = Field(default="OPENAI_API_KEY", exclude=True)
    concurrency: int = Field(default=8, ge=1, le=256, exclude=True)
    timeout: float = Field(default=120.0, gt=0, exclude=True)
    attempts: int = Field(default=5, ge=1, le=20, exclude=True)
    backoff: float = Field(default=1.0, ge=0, exclude=True)
    max_wait: float = Field(default=60.0, ge=0, exclude=True)
    max_requests: int | None = Field(default=None, ge=1, exclude=True)
    max_total_tokens: int | None = Field(default=None, ge=1, exclude=True)

    @field_validator("prompt")
    @classmethod
    def _loaded(cls, value: str | Prompt) -> Prompt:
        return load_prompt(value) if isinstance(value, str) else value

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("write an address like http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("an address holds no user, password or query; name the key's variable in api_key_env")
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _name_not_key(cls, value: str | None) -> str | None:
        if value is not None and not _ENVIRONMENT_NAME.match(value):
            raise ValueError(
                "names an environment variable, in capitals; the key itself belongs there, not in a recipe"
            )
        return value

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in value:
            if name in _OURS:
                raise ValueError(f"{name!r} is set by the factory, or cannot be used")
        return value

    @model_validator(mode="after")
    def _fits(self) -> OpenAIParams:
        assert isinstance(self.prompt, Prompt)
        for gap in self.inputs:
            if gap not in self.prompt.gaps:
                there = ", ".join(self.prompt.gaps) or "none"
                raise ValueError(f"inputs: prompt {self.prompt.name} has no gap {gap!r}; there are: {there}")
        for name, wanted in (("take", self.take), ("only_if", self.only_if)):
            if wanted is not None and wanted not in self.prompt.required:
                there = ", ".join(self.prompt.required) or "none"
                raise ValueError(f"{name}: prompt {self.prompt.name} asks for no {wanted!r}; there are: {there}")
        if self.only_if is not None and self.otherwise is None:
            raise ValueError("only_if: write `otherwise`, the column whose text counts where the answer says false")
        if self.base_url is not None and (self.model is None or self.revision is None):
            raise ValueError("a server is asked for a model by name: write `model` and `revision` beside `base_url`")
        if self.roles and self.role is not None and "role" in self.model_fields_set:
            raise ValueError("write `role` or `roles`, not both")
        pictures = (*self.required_roles, *self.optional_roles)
        if len(set(pictures)) < len(pictures):
            raise ValueError("a role stands twice among those whose pictures are sent")
        return self

    @property
    def required_roles(self) -> tuple[str, ...]:
        """Roles of which a record must have pictures."""
        if self.roles:
            return self.roles
        return () if self.role is None or self._optional_alone else (self.role,)

    @property
    def _optional_alone(self) -> bool:
        """Whether `role` is what it is by default and stands among the optional ones."""
        return "role" not in self.model_fields_set and self.role in self.optional_roles

    @property
    def whom(self) -> Whom | None:
        """Who is asked, None without a server."""
        if self.base_url is None:
            return None
        assert self.model is not None
        assert self.revision is not None
        return Whom(self.base_url, self.model, self.revision)
