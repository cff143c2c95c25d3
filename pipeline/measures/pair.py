"""Measure `pair`: what became of a source picture in its target, and whether the two belong together at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.measures.change import change, lay, structure
from pipeline.measures.same_picture import describe, match
from pipeline.operator import Column, Measure, Params, Record
from pipeline.pictures import DEFAULT_LIMITS, PILLOW_LIMIT, Limits, PictureInfo, decode_noted, read_info

_DECODE_SIDE = 512


class PairParams(Params):
    """Parameters of `pair`: the roles of the two media. Every other medium of the record is a reference."""

    source: str = "source"
    target: str = "target"
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1, le=PILLOW_LIMIT)


class Pair(Measure):
    """How a target differs from its source: sizes, place, tone, the changed area and what lies outside it.

    Distances are CIELAB at an analysis size of 384 x 384 pixels. No figure alone is a verdict: see
    docs/corpora/editing.md for the rules that tell no change, a broken pair, a local edit and a new style.
    """

    name = "pair"
    version = 1
    Params = PairParams
    params: PairParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        real, whole = pa.float64(), pa.int64()
        return (
            Column("least_side", whole, "shortest side of source, target and references in pixels", 1, None, "higher"),
            Column("aspect_difference", real, "natural logarithm of one aspect ratio over the other", 0, 20, "lower"),
            Column("pair_scale", real, "square root of the target's pixels to one of the source", 0, None),
            Column("references", whole, "media beside source and target", 0, None),
            Column("damaged_pair", pa.bool_(), "a decoder complained of one of the pictures"),
            Column("pair_match", real, "same_picture: textured cells that agree", 0, 1),
            Column("pair_inliers", whole, "same_picture: key points that agree with that way", 0, None),
            Column("pair_mirrored", pa.bool_(), "same_picture: it is the mirror image that agrees best"),
            Column("structure", real, "agreement of lines where they lie, in standard deviations", 0, None, "higher"),
            Column("copied", real, "pair_match of the target with its likest reference; null without", 0, 1, "lower"),
            Column("moved", real, "how far a corner of the target had to move, share of the diagonal", 0, 1, "lower"),
            Column("overlap", real, "share of the source's frame that the laid target covers", 0, 1, "higher"),
            Column("global_shift", real, "mean distance that one tone curve for all explains", 0, 400),
            Column("change_share", real, "share of the covered area that differs beyond noise and tone", 0, 1),
            Column("change_strength", real, "mean distance where it differs; null where nowhere", 0, 400),
            Column("outside_difference", real, "mean distance elsewhere; null without elsewhere", 0, 400, "lower"),
            Column("drift", real, "outside_difference before the tone is taken out", 0, 400, "lower"),
            Column("change_parts", whole, "separate changed areas", 0, None, "lower"),
            Column("compactness", real, "share of its bounding box that the changed area fills", 0, 1, "higher"),
            Column(
                "outline_gain",
                real,
                "along the rim of the change, gradients of the target against the source: 1 only the target has any, "
                "-1 only the source; null without a change of at most half the picture",
                -1,
                1,
            ),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """The pair's columns; raises Quarantine when any of its pictures cannot be decoded."""
        limits = Limits(self.params.max_pixels)
        roles = (self.params.source, self.params.target)
        pair = [record.ref(role) for role in roles]
        others = [ref for ref in record.media if not any(ref is one for one in pair)]
        data = [record.reader.read(ref) for ref in (*pair, *others)]
        infos = [read_info(each, limits) for each in data]
        decoded = [decode_noted(each, _DECODE_SIDE, limits) for each in data]
        source, target = decoded[0].rgb, decoded[1].rgb
        described = [describe(each.rgb) for each in decoded]
        same = match(described[0], described[1])
        copied = [match(described[1], each).score for each in described[2:]]
        laid = lay(source, target, (described[0], described[1]))
        found = change(laid)
        return (
            min(min(info.width, info.height) for info in infos),
            _aspect_difference(infos[0], infos[1]),
            math.sqrt(infos[1].width * infos[1].height / (infos[0].width * infos[0].height)),
            len(others),
            any(each.damage is not None for each in decoded),
            same.score,
            same.inliers,
            same.mirrored,
            structure(source, target),
            max(copied, default=None),
            min(1.0, laid.offset),
            laid.overlap,
            found.tone_shift,
            min(1.0, found.share),
            found.inside,
            found.outside,
            found.drift,
            found.parts,
            found.compactness,
            found.outline_gain,
        )


def _aspect_difference(one: PictureInfo, two: PictureInfo) -> float:
    return abs(math.log(two.width * one.height / (two.height * one.width)))
