"""The audit of mixtures: every row is a train sample that fits its part, and the numbers are those that are told.

What a mixture must be is checked row by row from its own recipe; last it is decided anew, and must come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

import polars as pl

from catalog.apportion import exact, within
from catalog.errors import UserError
from catalog.mixtures import PartFacts, StageFacts, decide, stage_facts
from catalog.stages import TRAIN, Part, Stage
from catalog.view import View

Add = Callable[[str, str, str], None]
"""Takes (kind, place, message) of a finding."""


def audit_mixtures(view: View, add: Add) -> None:
    """Check every mixture of a snapshot."""
    facts = stage_facts(view)
    for name in view.stages:
        place = f"mixtures/{name}"
        if name not in facts:
            add("mixture", place, "the set tells nothing of it")
            continue
        changed = facts[name].stale(view)
        if changed:
            set_name = name.partition("/")[0]
            add("mixture", place, f"stale: decided before {', '.join(changed)} changed; run curate {set_name} again")
            continue
        _audit_stage(view, name, facts[name], lambda message, place=place: add("mixture", place, message))  # type: ignore[misc]
    for name in sorted(facts.keys() - set(view.stages)):
        add("mixture", f"mixtures/{name}", "the set tells of it, and it is not in the snapshot")


def _audit_stage(view: View, name: str, facts: StageFacts, add: Callable[[str], None]) -> None:
    rows = view.mixture(name).collect().sort("sample_key")
    stage = Stage.model_validate(facts.recipe)
    for key in rows.filter(pl.col("sample_key").is_duplicated())["sample_key"].unique().sort():
        add(f"sample {key} stands there twice")
    told = {part.name: part for part in facts.parts}
    if list(told) != list(stage.parts):
        add("tells of other parts than its recipe has")
        return
    for part in rows.filter(~pl.col("part").is_in(list(stage.parts)))["part"].unique().sort():
        add(f"rows of {part}, which is no part of the stage")
    for part_name, part in stage.parts.items():
        mine = rows.filter(pl.col("part") == part_name)
        samples = _audit_part(view, mine, part_name, part, told[part_name], add)
        _audit_told(mine, samples, part_name, told[part_name], add)
    if facts.total != sum(_reached(stage, part) for part in facts.parts):
        add(f"tells a total of {facts.total}, and its parts come to another")
    _audit_shares(stage, told, add)
    _audit_anew(view, name, stage, facts, rows, add)


def _audit_part(
    view: View, mine: pl.DataFrame, name: str, part: Part, told: PartFacts, add: Callable[[str], None]
) -> pl.DataFrame:
    """Findings on rows that name what they must not; returns the samples of the part's corpus that rows name."""
    samples = view.samples(part.corpus).join(mine.lazy().select("sample_key"), on="sample_key", how="semi").collect()
    for key in mine.filter(pl.col("corpus") != part.corpus)["sample_key"].sort():
        add(f"sample {key} of part {name} is not of {part.corpus}")
    here = mine.filter(pl.col("corpus") == part.corpus)
    for key in here.join(samples, on="sample_key", how="anti")["sample_key"].sort():
        add(f"sample {key} of part {name} is not in the snapshot")
    for key, split in samples.filter(pl.col("split") != TRAIN).select("sample_key", "split").sort("sample_key").rows():
        add(f"sample {key} of part {name} is of the {split} split")
    records = view.store.records(part.corpus)
    sources = records.scan(["record_key", "source"], version=view.snapshot.tables[records.name])
    known = samples.lazy().join(sources, on="record_key", how="left").collect()
    for key in known.filter((pl.col("split") == TRAIN) & ~part.matches())["sample_key"].sort():
        add(f"sample {key} does not match part {name}")
    most = int(-(-exact(part.epochs) // 1))
    for key, copies in mine.filter(~pl.col("copies").is_between(1, most)).select("sample_key", "copies").rows():
        add(f"sample {key} of part {name} has {copies} copies, {part.epochs:g} epochs allow 1 to {most}")
    if told.copies > told.drawable * exact(part.epochs) or (part.quota and told.chosen > part.quota):
        add(f"part {name} tells {told.copies} copies of {told.chosen} samples, more than its quota or epochs allow")
    return samples


def _audit_told(
    mine: pl.DataFrame, samples: pl.DataFrame, name: str, told: PartFacts, add: Callable[[str], None]
) -> None:
    """The facts of a part are the sums of its rows."""
    wide = mine.join(samples, on="sample_key", how="inner")
    counted = {
        "chosen": mine.height,
        "copies": int(mine["copies"].sum()),
        "text_tokens": int((wide["text_tokens"] * wide["copies"]).sum()),
        "image_tokens": int((wide["image_tokens"] * wide["copies"]).sum()),
    }
    for what, count in counted.items():
        if getattr(told, what) != count:
            add(f"part {name} tells {getattr(told, what)} {what.replace('_', ' ')}, its rows come to {count}")


def _reached(stage: Stage, part: PartFacts) -> int:
    return part.copies if stage.unit == "samples" else part.tokens


def _audit_shares(stage: Stage, told: Mapping[str, PartFacts], add: Callable[[str], None]) -> None:
    """Every part has its share but for rounding: whole samples, or of tokens less than one more sample would bring."""
    able = [name for name, part in stage.parts.items() if int(told[name].drawable * exact(part.epochs))]
    weights = [exact(stage.parts[name].weight) for name in able]
    total = sum(_reached(stage, told[name]) for name in able)
    if stage.total is not None and (total != stage.total if stage.unit == "samples" else total > stage.total):
        add(f"comes to {total} {stage.unit}, its recipe asks for {stage.total}")
    if stage.unit == "tokens":
        return  # deciding anew tells; a sample may be of any size
    for number, name in enumerate(able):
        share = Fraction(total) * weights[number] / sum(weights)
        if abs(told[name].copies - share) > within(weights, number):
            add(f"part {name} has {told[name].copies} of {total} samples, its weight asks for {float(share):.1f}")


def _audit_anew(
    view: View, name: str, stage: Stage, facts: StageFacts, rows: pl.DataFrame, add: Callable[[str], None]
) -> None:
    try:
        anew = decide(view, facts.name, stage, facts.position)
        wanted = pl.concat([frame for _, frame in anew.rows()]).sort("sample_key")
    except UserError as error:
        add(f"cannot be decided anew: {error}")
        return
    if anew.facts.fingerprint != facts.fingerprint:
        add("its fingerprint is not that of its recipe")
    elif anew.facts != facts:
        add("decided anew it comes to other numbers")
    lost = wanted.join(rows, on=wanted.columns, how="anti").height
    more = rows.join(wanted, on=wanted.columns, how="anti").height
    if lost or more:
        add(f"is not what its recipe decides: {lost} rows are lacking, {more} are not due")
