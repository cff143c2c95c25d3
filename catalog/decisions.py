"""Decisions a recipe can name, and how each judges records: pure functions of the catalog and the recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import selectors
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from catalog.keys import key_of
from catalog.rules import Rule, verdicts

Verdicts = Iterator[tuple[str, pl.DataFrame]]

LEADING = ("record_key", "state", "reason", "failing", "representative", "distance", "value")


class Inputs(Protocol):
    """The records that enter a decision, bucket by bucket."""

    @property
    def buckets(self) -> Sequence[str]:
        """Bucket names, in key order."""

    def frame(self, bucket: str, columns: Sequence[str]) -> pl.DataFrame:
        """`record_key` and the named columns of one bucket, sorted by key."""


class Decision(BaseModel):
    """What every decision has: the nodes whose survivors it judges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs: tuple[str, ...] = ()


class Rules(Decision):
    """Conditions under which a record stays."""

    decide: Literal["rules"]
    rules: dict[str, Rule] = Field(min_length=1)

    @field_validator("rules", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`name: condition` is short for `name: {keep: condition}`."""
        if isinstance(value, Mapping):
            return {name: {"keep": rule} if isinstance(rule, str) else rule for name, rule in value.items()}
        return value


class Route(Decision):
    """Sends each record down the first route whose condition holds; what fits none is dropped as `otherwise`."""

    decide: Literal["route"]
    routes: dict[str, str] = Field(min_length=1)
    otherwise: str = "no_route"


class Licence(Decision):
    """Keeps records whose licence matches one of the allowed names or patterns (`CC-BY-*`)."""

    decide: Literal["licence"]
    allow: tuple[str, ...] = Field(min_length=1)
    field: str = "licence"


class Near(BaseModel):
    """Near-duplicates: candidates by perceptual hash, verified by comparing the two pictures.

    Full hashes (`column`) are compared with one another and with every hash in the `variants` columns, these across
    columns (mirror images with windows), and of list columns the hashes at the `aligned` positions with those at the
    same position (windows that leave a caption band out).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = "phash"
    distance: int = Field(default=4, ge=0, le=16)
    variants: tuple[str, ...] = ()
    aligned: tuple[int, ...] = ()
    verify: str | None = None
    per_record: int = Field(default=8, ge=1)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of hashes."""
        return (self.column, *self.variants)


class NearTexts(BaseModel):
    """Near-duplicates by MinHash: texts whose sets of shingles overlap by `jaccard` or more (catalog.near_texts)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = "minhash"
    jaccard: float = Field(ge=0.3, le=1)

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of signatures."""
        return (self.column,)


class NearEmbeddings(BaseModel):
    """Near-duplicates by meaning: embeddings with a cosine of `cosine` or more (catalog.near_embeddings).

    Records are compared within `clusters` seeded clusters; without a number in one up to 20,000 records, and above in
    one for every 2,500.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = "embedding"
    cosine: float = Field(ge=0.5, le=1)
    clusters: int | None = Field(default=None, ge=1)
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of embeddings."""
        return (self.column,)


def _kind_of_near(value: Any) -> str:
    if isinstance(value, Mapping):
        return "texts" if "jaccard" in value else "embeddings" if "cosine" in value else "pictures"
    return (
        "texts" if isinstance(value, NearTexts) else "embeddings" if isinstance(value, NearEmbeddings) else "pictures"
    )


AnyNear = Annotated[
    Annotated[Near, Tag("pictures")]
    | Annotated[NearTexts, Tag("texts")]
    | Annotated[NearEmbeddings, Tag("embeddings")],
    Discriminator(_kind_of_near),
]


class Duplicates(Decision):
    """Keeps the first of each set of equal or near-equal records, in the stated order; ties by key.

    Equal are pictures of one digest, or, where `exact` names a column, records with one value of it. `else: skip`
    leaves `near` out where the model behind its columns is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    decide: Literal["duplicates"]
    role: str = "image"
    order: tuple[str, ...] = ()
    exact: bool | str = True
    placeholder_sources: int | None = Field(default=None, ge=2)
    placeholder_field: str = "url"
    near: AnyNear | None = None
    otherwise: Literal["skip"] | None = Field(default=None, alias="else")

    @field_validator("order")
    @classmethod
    def _directions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            if not re.fullmatch(r"\w+( (asc|desc))?", item):
                raise ValueError(f"{item!r}: write `column` or `column desc`")
        return value


class Split(Decision):
    """Assigns whole split groups to train, validation and test by a hash of the group."""

    decide: Literal["split"]
    validation: float = Field(default=0.0, ge=0.0, lt=1.0)
    test: float = Field(default=0.0, ge=0.0, lt=1.0)
    salt: str = "split"

    @model_validator(mode="after")
    def _some_train(self) -> Split:
        if self.validation + self.test >= 1.0:
            raise ValueError("validation and test together must leave something to train on")
        return self


class Quota(Decision):
    """Keeps at most so many records of each stratum, those with the lowest hash.

    `least` boosts strata: each named one shall make up that share of what is kept, so others are cut, all by one
    hash, until it does. At most `most_cut` of the others goes, and a stratum without records asks for nothing: a share
    that is out of reach must not empty a corpus.
    """

    decide: Literal["quota"]
    by: str
    limits: dict[str, int] = Field(default_factory=dict)
    default: int | None = Field(default=None, ge=0)
    least: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    most_cut: float = Field(default=0.5, ge=0, le=1)
    salt: str = "quota"

    @model_validator(mode="after")
    def _shares_leave_room(self) -> Quota:
        if sum(self.least.values()) >= 1:
            raise ValueError(f"least: the shares come to {sum(self.least.values()):g}, must be below 1")
        return self


AnyDecision = Annotated[Rules | Route | Licence | Duplicates | Split | Quota, Field(discriminator="decide")]


def hash_rank(keys: pl.Series, salt: str) -> npt.NDArray[np.uint64]:
    """A uniform 64-bit number per key that depends on key and salt alone (a keyed splitmix64 of the key's head)."""
    mixed = keys.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64).to_numpy().astype(np.uint64)
    mixed = mixed ^ np.uint64(int(key_of(salt.encode())[:16], 16))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def finish(frame: pl.DataFrame, values: Sequence[str] = (), **given: Any) -> pl.DataFrame:
    """A verdict frame: the leading columns, missing ones filled with null, then the values that were read."""
    kinds: dict[str, Any] = {
        "state": pl.String,
        "reason": pl.String,
        "failing": pl.List(pl.String),
        "representative": pl.String,
        "distance": pl.Int32,
        "value": pl.String,
    }
    frame = frame.with_columns(**given)
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in kinds.items() if name not in frame.columns]
    return frame.with_columns(missing).select(*LEADING, *[name for name in values if name not in LEADING])


def decide_rules(rules: Sequence[tuple[str, str, Any]], inputs: Inputs, columns: Sequence[str]) -> Verdicts:
    """Judge by (name, condition, on_null) rules whose missing-model branches are already taken."""
    for bucket in inputs.buckets:
        frame = inputs.frame(bucket, columns)
        yield bucket, finish(verdicts(frame, rules) if rules else frame.with_columns(state=pl.lit("passed")), columns)


def decide_route(decision: Route, inputs: Inputs, columns: Sequence[str]) -> Verdicts:
    """`value` is the route taken. A record is undecided, by the name of a route, if none before that one holds."""
    routes = [(name, pl.sql_expr(sql)) for name, sql in decision.routes.items()]
    first = pl.coalesce(
        [
            pl.when(holds.is_null()).then(pl.lit(f"null {name}")).when(holds).then(pl.lit(f"true {name}"))
            for name, holds in routes
        ]
    )
    taken = pl.col("value").str.strip_prefix("true ")
    unknown = pl.col("value").str.starts_with("null ")
    for bucket in inputs.buckets:
        frame = inputs.frame(bucket, columns)
        judged = frame.with_columns(selectors.float().fill_nan(None)).with_columns(value=first)
        yield (
            bucket,
            finish(
                judged,
                columns,
                value=pl.when(~unknown).then(taken),
                state=pl.when(unknown)
                .then(pl.lit("undecided"))
                .when(pl.col("value").is_null())
                .then(pl.lit("dropped"))
                .otherwise(pl.lit("passed")),
                reason=pl.when(unknown)
                .then(pl.col("value").str.strip_prefix("null "))
                .when(pl.col("value").is_null())
                .then(pl.lit(decision.otherwise)),
            ),
        )


def decide_licence(decision: Licence, inputs: Inputs) -> Verdicts:
    """A record without a licence is dropped as `no licence`, others as `licence`."""
    for bucket in inputs.buckets:
        frame = inputs.frame(bucket, [decision.field])
        licence = pl.col(decision.field)
        allowed = [
            name
            for name in frame[decision.field].drop_nulls().unique()
            if any(fnmatchcase(name, pattern) for pattern in decision.allow)
        ]
        held = licence.is_in(pl.Series(allowed, dtype=pl.String).implode())
        state = pl.when(held).then(pl.lit("passed")).otherwise(pl.lit("dropped"))
        reason = pl.when(licence.is_null()).then(pl.lit("no licence")).when(~held).then(pl.lit("licence"))
        yield bucket, finish(frame.with_columns(state=state, reason=reason), [decision.field])


def decide_split(decision: Split, inputs: Inputs) -> Verdicts:
    """`value` is train, validation or test; everything derived from one root has one split."""
    test = np.uint64(int(decision.test * 2**64))
    validation = np.uint64(min(int((decision.test + decision.validation) * 2**64), 2**64 - 1))
    for bucket in inputs.buckets:
        frame = inputs.frame(bucket, ["split_group"])
        rank = hash_rank(frame["split_group"], decision.salt)
        value = np.where(rank < test, "test", np.where(rank < validation, "validation", "train"))
        yield (
            bucket,
            finish(frame.with_columns(value=pl.Series(value.tolist(), dtype=pl.String)), state=pl.lit("passed")),
        )


def decide_quota(decision: Quota, inputs: Inputs) -> Verdicts:
    """The records of lowest hash in each stratum pass; the others are dropped as `quota STRATUM`."""
    cuts = _quota_cuts(decision, inputs)
    others = _others_cut(decision, inputs, cuts)
    for bucket in inputs.buckets:
        frame, strata, rank = _ranked(decision, inputs, bucket)
        named = [cuts.get(name, _UNLIMITED) for name in strata]
        cut = [
            min(own, _UNLIMITED if name in decision.least else others) for name, own in zip(strata, named, strict=True)
        ]
        passed = [value <= limit for value, limit in zip(rank.tolist(), cut, strict=True)]
        frame = frame.with_columns(stratum=strata, passed=pl.Series(passed, dtype=pl.Boolean))
        state = pl.when("passed").then(pl.lit("passed")).otherwise(pl.lit("dropped"))
        reason = pl.when(~pl.col("passed")).then(pl.format("quota {}", "stratum"))
        yield bucket, finish(frame.with_columns(state=state, reason=reason), [decision.by])


_UNLIMITED = 2**64
_NONE = -1


def _ranked(decision: Quota, inputs: Inputs, bucket: str) -> tuple[pl.DataFrame, pl.Series, npt.NDArray[np.uint64]]:
    """A bucket with the stratum and the rank of each of its records."""
    frame = inputs.frame(bucket, [decision.by])
    strata = frame[decision.by].cast(pl.String).fill_null("null")
    return frame, strata, hash_rank(frame["record_key"], decision.salt)


def _quota_cuts(decision: Quota, inputs: Inputs) -> dict[str, int]:
    """Per limited stratum the largest rank that still passes."""
    kept: dict[str, npt.NDArray[np.uint64]] = {}
    for bucket in inputs.buckets:
        _, strata, rank = _ranked(decision, inputs, bucket)
        names = strata.to_numpy().astype(str)
        for name in np.unique(names):
            limit = decision.limits.get(name, decision.default)
            if limit is None:
                continue
            both = np.concatenate([kept.get(name, np.empty(0, np.uint64)), rank[names == name]])
            kept[name] = np.sort(both)[:limit]
    return {name: int(ranks[-1]) if len(ranks) else _NONE for name, ranks in kept.items()}


def _others_cut(decision: Quota, inputs: Inputs, cuts: Mapping[str, int]) -> int:
    """The largest rank at which a stratum that `least` does not name still passes."""
    if not decision.least:
        return _UNLIMITED
    counts = dict.fromkeys(decision.least, 0)
    ranks: list[npt.NDArray[np.uint64]] = []
    for bucket in inputs.buckets:
        _, strata, rank = _ranked(decision, inputs, bucket)
        for name in strata.unique().to_list():
            mine = rank[(strata == name).to_numpy()]
            if (cut := cuts.get(name, _UNLIMITED)) != _UNLIMITED:
                mine = mine[[value <= cut for value in mine.tolist()]]
            if name in counts:
                counts[name] += len(mine)
            else:
                ranks.append(mine)
    others = np.sort(np.concatenate([np.empty(0, np.uint64), *ranks]))
    totals = [count / decision.least[name] for name, count in counts.items() if count]
    room = int(min(totals)) - sum(counts.values()) if totals else len(others)
    stay = max(room, len(others) - int(len(others) * decision.most_cut), 0)
    if stay >= len(others):
        return _UNLIMITED
    return int(others[stay - 1]) if stay else _NONE
