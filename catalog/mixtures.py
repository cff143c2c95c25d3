"""Mixtures: which train samples a stage reads and how often, a pure function of the catalog and the stage's recipe.

A part's pool are the train samples that match it, in the order of a hash of their keys; it draws from the front, all of
them once, then again. So a larger total, a higher weight or more epochs keep what was drawn before, and a sample that
leaves the catalog changes nothing about the order of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from catalog.apportion import apportion, copies_of, count_within, exact, greatest
from catalog.decisions import hash_rank
from catalog.errors import UserError
from catalog.keys import fingerprint
from catalog.schemas import MIXTURE_STAGES
from catalog.stages import TRAIN, Stage
from catalog.view import View

_LIGHT = ("sample_key", "record_key", "task", "resolution", "variant", "split", "text_tokens", "image_tokens")


@dataclass(frozen=True)
class PartFacts:
    """What came of a part. Tokens count every copy; `asked` and `reached` are shares of the stage in its unit."""

    name: str
    corpus: str
    pool: int
    """Train samples that match."""
    drawable: int
    """Of them at most the quota."""
    chosen: int
    """Distinct samples drawn."""
    copies: int
    text_tokens: int
    image_tokens: int
    asked: float
    reached: float

    @property
    def tokens(self) -> int:
        """Text and image tokens of all copies."""
        return self.text_tokens + self.image_tokens

    @property
    def epochs(self) -> float:
        """How often the pool was drawn."""
        return self.copies / self.drawable if self.drawable else 0.0


@dataclass(frozen=True)
class StageFacts:
    """What a mixture came to, and what it was decided from: a version of each corpus' samples table."""

    name: str
    position: int
    unit: str
    total: int
    fingerprint: str
    recipe: dict[str, Any]
    samples: dict[str, int | None]
    parts: list[PartFacts]

    def row(self) -> dict[str, Any]:
        """The row of catalog.schemas.MIXTURE_STAGES."""
        return {
            "stage": self.name, "position": self.position, "unit": self.unit, "total": self.total,
            "copies": sum(part.copies for part in self.parts), "tokens": sum(part.tokens for part in self.parts),
            "fingerprint": self.fingerprint, "recipe": orjson.dumps(self.recipe).decode(),
            "samples": orjson.dumps(self.samples, option=orjson.OPT_SORT_KEYS).decode(),
            "parts": orjson.dumps([asdict(part) for part in self.parts]).decode(),
        }  # fmt: skip

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StageFacts:
        """Inverse of `row`."""
        return cls(
            row["stage"], row["position"], row["unit"], row["total"], row["fingerprint"], orjson.loads(row["recipe"]),
            orjson.loads(row["samples"]), [PartFacts(**part) for part in orjson.loads(row["parts"])],
        )  # fmt: skip

    def stale(self, view: View) -> list[str]:
        """Corpora that changed since the mixture was decided."""
        now = view.snapshot.tables
        return [corpus for corpus, version in self.samples.items() if now.get(f"{corpus}/samples") != version]


@dataclass(frozen=True)
class Mixture:
    """A decided mixture: its facts, and per bucket of sample keys the rows of catalog.schemas.MIXTURE."""

    facts: StageFacts
    pools: _Pools
    copies: list[npt.NDArray[np.int32]]

    def rows(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Rows bucket by bucket, sorted by key; samples that are not drawn have none."""
        done = [0] * len(self.copies)
        names = list(self.pools.stage.parts)
        for bucket, frame in self.pools.frames():
            parts = frame["part"].to_numpy()
            copies = np.zeros(frame.height, np.int32)
            for place, mine in enumerate(self.copies):
                here = parts == place
                count = int(here.sum())
                copies[here] = mine[done[place] : done[place] + count]
                done[place] += count
            rows = frame.select(
                "sample_key",
                "corpus",
                part=pl.col("part").replace_strict(range(len(names)), names, return_dtype=pl.String),
            )
            yield bucket, rows.with_columns(copies=pl.Series(copies, dtype=pl.Int32)).filter(pl.col("copies") > 0)


@dataclass(frozen=True)
class Pool:
    """What a part may draw from, in key order. ranks: uint64 [n]; text, image: int64 [n] tokens."""

    ranks: npt.NDArray[np.uint64]
    text: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]

    def limited(self, quota: int | None) -> npt.NDArray[np.bool_]:
        """Which samples the quota leaves: those of lowest rank."""
        left = np.zeros(len(self.ranks), bool)
        left[np.argsort(self.ranks, kind="stable")[:quota]] = True
        return left


class _Pools:
    """The matching samples of a stage, read bucket by bucket from a snapshot."""

    def __init__(self, view: View, name: str, stage: Stage) -> None:
        self.stage = stage
        self._view = view
        self._name = name
        self._sources: dict[str, pl.DataFrame] = {}

    def frames(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Per bucket `sample_key`, tokens, `corpus` and the number of its part, sorted by key, one row a sample.

        Raises UserError at the end when samples match several parts and the stage does not say whose they are.
        """
        twice: Counter[tuple[str, str]] = Counter()
        names = list(self.stage.parts)
        for bucket in self._view.store.buckets:
            frames = [self._matched(corpus, bucket) for corpus in self.stage.corpora]
            frame = pl.concat(frames).sort("sample_key", "part", maintain_order=True)
            again = frame.with_columns(first=pl.col("part").first().over("sample_key"))
            again = again.filter(~pl.struct("sample_key").is_first_distinct())
            for first, other, count in again.group_by("first", "part").len().sort("first", "part").iter_rows():
                twice[names[first], names[other]] += count
            yield bucket, frame.unique("sample_key", keep="first", maintain_order=True)
        if twice and self.stage.overlap == "refuse":
            (first, other), count = min(twice.items(), key=lambda item: item[0])
            raise UserError(
                f"stages.{self._name}: parts {first} and {other} both match {count} samples; "
                "tell them apart, or say overlap: first"
            )

    def _matched(self, corpus: str, bucket: str) -> pl.DataFrame:
        """One row for every sample and part that match."""
        parts = [(place, part) for place, part in enumerate(self.stage.parts.values()) if part.corpus == corpus]
        reads = set().union(*(part.reads for _, part in parts))
        table = self._view.store.samples(corpus)
        version = self._view.snapshot.tables.get(table.name)
        columns = [*_LIGHT, *sorted(reads - {"source", *_LIGHT})]
        frame = pl.DataFrame(pl.from_arrow(table.schema.empty_table())).select(columns)
        if version is not None:
            frame = table.scan(columns, bucket, version).filter(pl.col("split") == TRAIN).collect()
        if "source" in reads:
            frame = frame.join(self._source(corpus), on="record_key", how="left")
        kept = ("sample_key", "text_tokens", "image_tokens")
        return pl.concat(
            [
                frame.filter(part.matches()).select(*kept, corpus=pl.lit(corpus), part=pl.lit(place, pl.Int32))
                for place, part in parts
            ]
        )

    def _source(self, corpus: str) -> pl.DataFrame:
        if corpus not in self._sources:
            table = self._view.store.records(corpus)
            version = self._view.snapshot.tables[table.name]
            self._sources[corpus] = table.scan(["record_key", "source"], version=version).collect()
        return self._sources[corpus]

    def gather(self) -> list[Pool]:
        """The pool of every part, in order."""
        salt = self.stage.salt if self.stage.salt is not None else self._name
        found: list[list[Pool]] = [[] for _ in self.stage.parts]
        for _, frame in self.frames():
            for place, mine in enumerate(found):
                here = frame.filter(pl.col("part") == place)
                tokens = (here[name].to_numpy().astype(np.int64) for name in ("text_tokens", "image_tokens"))
                mine.append(Pool(hash_rank(here["sample_key"], salt), *tokens))
        return [
            Pool(*(np.concatenate([getattr(pool, name) for pool in mine]) for name in ("ranks", "text", "image")))
            for mine in found
        ]


def decide(view: View, name: str, stage: Stage, position: int = 0) -> Mixture:
    """Decide the mixture of a stage from the samples of a snapshot; raises UserError for one that cannot be."""
    pools = _Pools(view, name, stage)
    gathered = pools.gather()
    limited = [pool.limited(part.quota) for pool, part in zip(gathered, stage.parts.values(), strict=True)]
    drawn = _draw(name, stage, gathered, limited)
    copies = []
    for pool, left, count in zip(gathered, limited, drawn, strict=True):
        mine = np.zeros(len(left), np.int32)
        if count:
            mine[left] = copies_of(pool.ranks[left], count)
        copies.append(mine)
    return Mixture(_facts(view, name, stage, position, gathered, limited, copies), pools, copies)


def _draw(name: str, stage: Stage, pools: list[Pool], limited: list[npt.NDArray[np.bool_]]) -> list[int]:
    """How many copies each part draws."""
    place = f"stages.{name}"
    drawable = [int(left.sum()) for left in limited]
    capacity = [int(count * exact(part.epochs)) for count, part in zip(drawable, stage.parts.values(), strict=True)]
    for (part_name, part), most, pool in zip(stage.parts.items(), capacity, pools, strict=True):
        if not most and not part.optional:
            what = (
                f"{len(pool.ranks)} x {part.epochs:g} epochs are less than one" if len(pool.ranks) else "there are none"
            )
            raise UserError(
                f"{place}.parts.{part_name}: needs train samples of {part.corpus} that match it, and {what}; "
                "leave it out or say optional: true"
            )
    able = [number for number, most in enumerate(capacity) if most]
    if not able:
        raise UserError(f"{place}: no part has a sample to draw from")
    weights = [exact(part.weight) for part in stage.parts.values()]
    mine = [weights[number] for number in able]
    drawn = [0] * len(pools)
    if stage.unit == "samples":
        counts = largest = greatest(mine, [capacity[number] for number in able])
        if stage.total is not None:
            counts = apportion(mine, stage.total)
        for number, count in zip(able, counts, strict=True):
            if count > capacity[number]:
                raise _too_much(place, stage, number, drawable[number], count, capacity[number], sum(largest))
            drawn[number] = count
        return drawn
    orders = {n: (pools[n].ranks[limited[n]], (pools[n].text + pools[n].image)[limited[n]]) for n in able}
    tokens = {n: _sum_of_first(*orders[n], capacity[n]) for n in able}
    level = min(Fraction(tokens[n]) / weights[n] for n in able)
    most_tokens = int(level * sum(mine))
    if stage.total is not None:
        level = Fraction(stage.total) / sum(mine)
    for number in able:
        asked = level * weights[number]
        if asked > tokens[number]:
            raise _too_much(place, stage, number, drawable[number], int(asked), tokens[number], most_tokens)
        drawn[number] = min(count_within(*orders[number], asked), capacity[number])
    return drawn


def stage_facts(view: View) -> dict[str, StageFacts]:
    """The facts of every mixture of a snapshot by SET/STAGE, set by set in the order of the recipe."""
    found: dict[str, StageFacts] = {}
    for set_name in sorted({name.partition("/")[0] for name in view.stages}):
        table = view.store.log(f"mixture_stages/{set_name}", MIXTURE_STAGES)
        rows = table.read(MIXTURE_STAGES.names, version=view.snapshot.tables[table.name]).sort("position")
        found |= {f"{set_name}/{row['stage']}": StageFacts.from_row(row) for row in rows.to_dicts()}
    return found


def _sum_of_first(ranks: npt.NDArray[np.uint64], tokens: npt.NDArray[np.int64], count: int) -> int:
    return int(copies_of(ranks, count).astype(np.int64) @ tokens)


def _too_much(place: str, stage: Stage, number: int, drawable: int, asked: int, there: int, most: int) -> UserError:
    name, part = list(stage.parts.items())[number]
    epochs = -(-Fraction(asked) * exact(part.epochs) / there * 100 // 1) / 100
    return UserError(
        f"{place}.parts.{name}: total {stage.total} asks it for {asked} {stage.unit}, and {drawable} samples in "
        f"{part.epochs:g} epochs give {there}; say epochs: {float(epochs):g}, less weight, or a total of at most {most}"
    )


def _facts(
    view: View,
    name: str,
    stage: Stage,
    position: int,
    pools: list[Pool],
    limited: list[npt.NDArray[np.bool_]],
    copies: list[npt.NDArray[np.int32]],
) -> StageFacts:
    wide = [mine.astype(np.int64) for mine in copies]
    text = [int(mine @ pool.text) for mine, pool in zip(wide, pools, strict=True)]
    image = [int(mine @ pool.image) for mine, pool in zip(wide, pools, strict=True)]
    drawn = [int(mine.sum()) for mine in wide]
    reached = drawn if stage.unit == "samples" else [one + other for one, other in zip(text, image, strict=True)]
    able = [
        bool(int(left.sum() * exact(part.epochs))) for left, part in zip(limited, stage.parts.values(), strict=True)
    ]
    weights = [exact(part.weight) * held for part, held in zip(stage.parts.values(), able, strict=True)]
    parts = [
        PartFacts(
            name=part_name,
            corpus=part.corpus,
            pool=len(pools[at].ranks),
            drawable=int(limited[at].sum()),
            chosen=int((copies[at] > 0).sum()),
            copies=drawn[at],
            text_tokens=text[at],
            image_tokens=image[at],
            asked=float(weights[at] / sum(weights)),
            reached=reached[at] / max(1, sum(reached)),
        )
        for at, (part_name, part) in enumerate(stage.parts.items())
    ]
    recipe = stage.model_dump(mode="json")
    samples = {corpus: view.snapshot.tables.get(f"{corpus}/samples") for corpus in stage.corpora}
    return StageFacts(
        name, position, stage.unit, sum(reached), fingerprint({"stage": name, **recipe}), recipe, samples, parts
    )
