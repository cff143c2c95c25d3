"""Annotate `openai`: text that a model behind an OpenAI-compatible server writes about a record.

Every answer is stored the moment it arrives and looked up before asking (see `answers`), so that a killed run asks
nothing twice, and a run that is planned anew under other thresholds neither. Without a server a node may copy the text
of a column instead, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from catalog.errors import UserError
from catalog.keys import fingerprint
from catalog.storage import Storage
from pipeline.annotations.answers import Answer, Question, find, keep
from pipeline.annotations.budget import Budget
from pipeline.annotations.client import Client, Patience, Stopped, is_loopback, told_revision
from pipeline.annotations.columns import Annotation, annotation_columns
from pipeline.annotations.params import OpenAIParams, Whom
from pipeline.annotations.prompt import Prompt
from pipeline.annotations.sent import asked_about, digest_of, made_ready, picture_part
from pipeline.media import MediaRef
from pipeline.operator import BatchMeasure, Column, Quarantine, Record

SOURCE_TEXT = "source text"
"""What `_by` and the list of stand-ins say of a text that was copied for want of a server."""

ROUNDS = 4
"""Records a batch, in multiples of `concurrency`: the slowest of a batch keeps the others waiting less often."""


@dataclass(frozen=True)
class _Work:
    """A question that has no stored answer yet, and a record that asks it."""

    question: Question
    record: Record
    text: str
    pictures: tuple[MediaRef, ...]


class OpenAI(BatchMeasure):
    """Asks a server about each record, many at a time, each question once."""

    name = "openai"
    version = 1
    Params = OpenAIParams
    params: OpenAIParams

    def __init__(self, params: OpenAIParams) -> None:
        super().__init__(params)
        assert isinstance(params.prompt, Prompt)
        self.prompt: Prompt = params.prompt
        self._client: Client | None = None

    # -- what the plan asks ------------------------------------------------------------------------------------------

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that fill the prompt's gaps, and the one that is copied."""
        copied = self.params.otherwise
        if copied is not None and self._copied is not None:
            return (copied,)
        perhaps = () if copied is None or self.params.only_if is None else (copied,)
        return tuple(dict.fromkeys([*self.params.inputs.values(), *perhaps]))

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/annotations.md."""
        return annotation_columns(self.params.into)

    def fingerprint_parts(self) -> dict[str, Any]:
        """The prompt, and of the parameters that came later those that are used."""
        parts: dict[str, Any] = {"prompt": self.prompt.hash}
        for name in ("roles", "optional_roles", "take"):
            if value := getattr(self.params, name):
                parts[name] = value
        if self._copied is not None:
            parts["copied"] = self._copied
        elif self.params.only_if is not None:
            parts["only_if"] = [self.params.only_if, self.params.otherwise]
        return parts

    @property
    def _copied(self) -> str | None:
        """The column that stands in for a model's text, None where a server is given."""
        return self.params.otherwise if self.params.whom is None else None

    @property
    def stands_in(self) -> str | None:
        """What is copied where no server is given."""
        return None if self._copied is None else f"no base_url given: the text is that of {self._copied!r}"

    @property
    def embedded(self) -> tuple[str, ...]:
        """A text that no model wrote."""
        return () if self._copied is None else (SOURCE_TEXT,)

    @property
    def batch(self) -> int:  # type: ignore[override]
        """Records that are asked together."""
        return ROUNDS * self.params.concurrency

    @property
    def time_limit(self) -> float:  # type: ignore[override]
        """Seconds a batch may take when every question takes as long as it can."""
        return ROUNDS * self._patience.longest

    @property
    def needs_network(self) -> bool:
        """Whether the server lies beyond this machine: then the recipe must say `network: true`."""
        return self.params.base_url is not None and not is_loopback(self.params.base_url)

    @property
    def missing(self) -> str | None:
        """The server, or the key that was promised and is not there."""
        if self.params.whom is None:
            return None if self._copied is not None else "no base_url given"
        name = self.params.api_key_env
        if name is None or self._key() is not None:
            return None
        needed = self.needs_network or "api_key_env" in self.params.model_fields_set
        return f"the environment variable {name} is not set (api_key_env)" if needed else None

    def refuse(self, records: int) -> str | None:
        """Why so many records would break the budget even if nothing had to be asked twice."""
        if self._copied is not None:
            return None
        most = self.params.max_requests
        if most is not None and records > most:
            return f"{records} records need {records} requests, max_requests is {most}"
        most = self.params.max_total_tokens
        needed = records * self.params.max_tokens
        if most is not None and needed > most:
            return (
                f"{records} records of up to max_tokens {self.params.max_tokens} need up to {needed} tokens, "
                f"max_total_tokens is {most}"
            )
        return None

    def preflight(self, storage: Storage) -> None:
        """Before a run, on the driver: the server serves this model and revision, the budget counts from nothing.

        Raises UserError before any question is asked.
        """
        if self._copied is not None:
            return
        client = self._connect()
        try:
            self._check_served(client.models())
        finally:
            client.close()
        if (budget := self._budget(storage)) is not None:
            budget.begin_run()

    def _check_served(self, entries: list[dict[str, Any]]) -> None:
        served = {str(entry.get("id")): entry for entry in entries}
        place, wanted, declared = self._whom
        if wanted not in served:
            names = ", ".join(sorted(served)) or "none"
            raise UserError(f"{place}: does not serve model {wanted!r}; it serves: {names}")
        told = told_revision(served[wanted])
        if told is not None and told != declared:
            raise UserError(f"{place}: serves {wanted} at revision {told!r}, the recipe declares {declared!r}")

    # -- what a worker does ------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Open the connections; raises UserError where the key is missing."""
        if self.missing is not None:
            raise UserError(f"openai: {self.missing}")
        if self._copied is None:
            self._client = self._connect()

    def close(self) -> None:
        """End the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def process_batch(self, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The annotations of some records, in their order; records that ask the same question share one answer."""
        if not records:
            return []
        if self._copied is not None:
            return [self._copy_or_not(record) for record in records]
        storage = records[0].reader.storage()
        asked = [self._prepare(record) for record in records]
        works = {work.question.key: work for work in asked if isinstance(work, _Work)}
        answers = self._answers(storage, list(works.values()))
        return [
            work if isinstance(work, Quarantine) else self._row(answers[work.question.key], work.record)
            for work in asked
        ]

    def _prepare(self, record: Record) -> _Work | Quarantine:
        try:
            values = {gap: record.values.get(column) for gap, column in self.params.inputs.items()}
            text = self.prompt.text(values)
            pictures = asked_about(record, self.params)
            media = tuple(digest_of(record, ref) for ref in pictures)
        except Quarantine as verdict:
            return verdict
        except OSError as error:
            return Quarantine("unreadable medium", error.strerror or type(error).__name__)
        question = Question(
            provider=self.name,
            model=self._whom.model,
            revision=self._whom.revision,
            prompt=self.prompt.label,
            prompt_hash=self.prompt.hash,
            sampling=self._sampling,
            media=media,
            picture=made_ready(self.params, len(media)),
            text=text,
        )
        return _Work(question, record, text, pictures)

    def _answers(self, storage: Storage, works: list[_Work]) -> dict[str, Answer | Quarantine]:
        """Answers by key of the question: stored ones first, then those that are asked now."""
        assert self._client is not None, "setup was not called"
        self._client.resume()
        budget = self._budget(storage)
        with ThreadPoolExecutor(self.params.concurrency, "ask") as pool:
            found = list(pool.map(lambda work: find(storage, work.question), works))
            answers: dict[str, Answer | Quarantine] = {
                work.question.key: answer for work, answer in zip(works, found, strict=True) if answer is not None
            }
            open_works = [work for work, answer in zip(works, found, strict=True) if answer is None]
            granted = len(open_works)
            if budget is not None:
                granted = budget.claim(len(open_works), self.params.max_tokens)
            futures = [pool.submit(self._ask, storage, budget, work) for work in open_works[:granted]]
            # Every future is waited for: an answer on its way is paid for, and shall be stored.
            failure: UserError | None = None
            for work, future in zip(open_works, futures, strict=False):
                try:
                    answers[work.question.key] = future.result()
                except UserError as error:
                    failure = failure or error
                except Stopped:
                    pass
        if failure is not None:
            raise failure
        if granted < len(open_works):
            raise UserError(f"openai: the budget of this run is used up ({self._limits}); answers so far are kept")
        return answers

    def _ask(self, storage: Storage, budget: Budget | None, work: _Work) -> Answer | Quarantine:
        """Ask one question and store the answer."""
        assert self._client is not None
        sent, tokens = 0, 0

        def may_retry() -> bool:
            return budget is None or budget.claim(1, 0) == 1

        try:
            try:
                body = self._body(work)
            except OSError as error:
                return Quarantine("unreadable medium", error.strerror or type(error).__name__)
            sent = 1
            told = self._client.complete(body, may_retry)
            answer = self._understood(told)
            tokens = answer.tokens
            return keep(storage, work.question, answer)
        except Quarantine as verdict:
            return verdict
        except BaseException:
            self._client.stop()
            raise
        finally:
            if budget is not None:
                budget.settle(sent - 1, tokens - self.params.max_tokens)

    def _understood(self, told: dict[str, Any]) -> Answer:
        """The answer in a chat completion; raises Quarantine when it is none, UserError when another model spoke."""
        try:
            choice = told["choices"][0]
            text = choice["message"].get("content") or ""
            usage = told.get("usage") or {}
            answer = Answer(
                text=_string(text),
                finish=_string(choice.get("finish_reason") or "unknown"),
                prompt_tokens=_count(usage.get("prompt_tokens")),
                completion_tokens=_count(usage.get("completion_tokens")),
                served_model=told.get("model"),
                system_fingerprint=told.get("system_fingerprint"),
            )
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Quarantine("no answer from the server", "its answer is not a chat completion") from None
        if answer.served_model not in (None, self._whom.model):
            raise UserError(
                f"{self._whom.base_url}: model {answer.served_model!r} answered for {self._whom.model!r}; "
                "write the name of the one that answers as `model`"
            )
        return answer

    def _row(self, answer: Answer | Quarantine, record: Record) -> Sequence[Any] | Quarantine:
        if isinstance(answer, Quarantine):
            return answer
        try:
            text = self.prompt.read(answer.text, answer.finish, self.params.take, self.params.only_if)
            if text is None:
                return self._copy(record)._replace(prompt=self.prompt.label, tokens=answer.completion_tokens)
        except Quarantine as verdict:
            return verdict
        by = f"{self.name}:{self._whom.model}@{self._whom.revision}"
        return Annotation(text, by, self.prompt.label, answer.finish, answer.completion_tokens)

    def _copy_or_not(self, record: Record) -> Annotation | Quarantine:
        try:
            return self._copy(record)
        except Quarantine as verdict:
            return verdict

    def _copy(self, record: Record) -> Annotation:
        """The text of `otherwise` as it stands; raises Quarantine where it has none."""
        value = record.values.get(str(self.params.otherwise))
        if not isinstance(value, str) or not value.strip():
            raise Quarantine("nothing to say", f"{self.params.otherwise} has no text to copy")
        return Annotation(value, SOURCE_TEXT, None, "stop", None)

    # -- the request -------------------------------------------------------------------------------------------------

    @cached_property
    def _sampling(self) -> dict[str, Any]:
        names = ("temperature", "top_p", "seed", "max_tokens")
        sampling: dict[str, Any] = {name: getattr(self.params, name) for name in names}
        return {**sampling, "extra": self.params.extra}

    def _body(self, work: _Work) -> dict[str, Any]:
        sent = zip(work.pictures, work.question.media, strict=True)
        content = [picture_part(work.record, ref, digest, self.params) for ref, digest in sent]
        content.append({"type": "text", "text": work.text})
        system = [{"role": "system", "content": self.prompt.system}] if self.prompt.system else []
        body: dict[str, Any] = {
            "model": self._whom.model,
            "messages": [*system, {"role": "user", "content": content}],
            self.params.token_limit_name: self.params.max_tokens,
            **self.params.extra,
        }
        for name in ("temperature", "top_p", "seed"):
            if (value := getattr(self.params, name)) is not None:
                body[name] = value
        if self.prompt.answer_schema is not None:
            schema = {"name": self.prompt.name, "schema": self.prompt.answer_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    # -- the server --------------------------------------------------------------------------------------------------

    @cached_property
    def _whom(self) -> Whom:
        whom = self.params.whom
        assert whom is not None, "nobody is asked without a server"
        return whom

    @cached_property
    def _patience(self) -> Patience:
        return Patience(self.params.timeout, self.params.attempts, self.params.backoff, self.params.max_wait)

    def _key(self) -> str | None:
        key = os.environ.get(self.params.api_key_env, "").strip() if self.params.api_key_env is not None else ""
        return key or None

    def _connect(self) -> Client:
        key = self._key()
        if key is not None and not (key.isascii() and key.isprintable()):
            raise UserError(f"the environment variable {self.params.api_key_env} holds no key: it has odd characters")
        return Client(self._whom.base_url, key, self.params.api_key_env, self._patience, self.params.concurrency)

    @property
    def _limits(self) -> str:
        return f"max_requests {self.params.max_requests}, max_total_tokens {self.params.max_total_tokens}"

    def _budget(self, storage: Storage) -> Budget | None:
        if self.params.max_requests is None and self.params.max_total_tokens is None:
            return None
        name = fingerprint({"params": self.params.model_dump(mode="json"), **self.fingerprint_parts()})
        return Budget(storage, name, self.params.max_requests, self.params.max_total_tokens)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
