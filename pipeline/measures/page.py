"""The page docs/measures.md, made from the columns that the measures declare.

python -m pipeline.measures.page > docs/measures.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.operator import Column, Measure, load_operator

SHOWN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("header", {}),
    ("pixels", {}),
    ("phash", {}),
    ("text", {}),
    ("prose", {}),
    ("subject", {}),
    ("minhash", {}),
    ("personal", {}),
    ("faces", {}),
    ("chain", {}),
    ("choices", {}),
    ("turns", {}),
    ("pair", {}),
    ("instruction", {}),
    ("embedding", {}),
    ("alignment", {}),
    ("aesthetics", {}),
    ("classifier", {"label": "nsfw", "name": "nsfw"}),
    ("scores", {"column": "score", "name": "artimuse", "low": 0, "high": 100}),
    ("artimuse", {"scale": 100}),
    ("deqa", {}),
    ("clip_probe", {}),
    ("clip_scan", {}),
    ("boxes", {}),
    ("opinion", {}),
    (
        "judgement",
        {
            "answer": "edit_judgement",
            "scores": {"followed": {"field": "instruction_followed", "low": 1, "high": 5}},
            "flags": {"no_change": "no_change"},
            "texts": {"judged_because": "reason"},
        },
    ),
    ("contamination", {}),
    ("ocr", {"reference": "text"}),
    ("ocr_match", {}),
)
"""The measures of the page with the parameters they are shown with."""

_INTRODUCTION = """# Measures

A measure looks at a record and writes columns; it never drops. Every column declares its range and which
direction is the good one: `unifactory plan` refuses a threshold outside the range, and a value outside it
sets the record aside. A record that cannot be measured goes to quarantine with a short reason.

Pictures are opened in one place (`pipeline/pictures.py`): turned upright, alpha on white, 16 bits scaled to
8, CMYK and palettes converted, an animation's first frame; ICC profiles are not applied. Reasons for
quarantine there: {reasons}.

This page is made by `python -m pipeline.measures.page`.
"""


_RECALL = """## How well the hashes find copies

`pipeline.measures.phash.hash_distance` says which comparisons make two pictures candidates: whole against
whole, mirror and windows, and the two windows without a band against each other. Copies of 138 pictures of
the sample corpora, written as JPEG of quality 90; the share found within 4, 6, 8, 10 of 64 bits:

| copy | plain hash | with mirror and windows |
|---|---|---|
| 2 % cut from each side | .56 / .83 / .94 / .96 | .96 / .98 / .99 / .99 |
| 5 % cut from each side | .08 / .24 / .37 / .54 | .96 / .98 / .98 / .99 |
| 10 % cut from each side | .00 / .01 / .04 / .09 | .96 / .96 / .97 / .99 |
| quality 30 | .97 / .98 / .99 / .99 | .99 / .99 / .99 / .99 |
| a quarter of the size | .96 / .97 / .98 / .99 | .98 / .98 / .99 / .99 |
| mirrored | .00 / .01 / .01 / .01 | .99 / .99 / .99 / 1.0 |
| mirrored, 5 % cut from each side | .01 / .01 / .01 / .01 | .96 / .97 / .99 / .99 |
| a band over the lowest 15 % | .16 / .35 / .55 / .73 | .96 / .97 / .98 / .98 |
| 10 % cut from the bottom only | .01 / .07 / .16 / .36 | .17 / .47 / .75 / .95 |
| 10 % cut from the left only | .01 / .05 / .12 / .23 | .04 / .09 / .26 / .44 |

Of 9,453 pairs of other pictures one lies within 10 bits: the same gradient in two formats.
"""


def measures_page() -> str:
    """The page as Markdown."""
    from pipeline.pictures import REASONS

    reasons = ", ".join(f"`{reason}`" for reason in REASONS)
    return "\n".join([_INTRODUCTION.format(reasons=reasons), *_sections(), _RECALL])


def _sections() -> Iterator[str]:
    for name, params in SHOWN:
        measure = load_operator(name).build(params)
        assert isinstance(measure, Measure)
        yield f"## {name}, version {measure.version}\n"
        yield (type(measure).__doc__ or "").split("\n", maxsplit=1)[0] + "\n"
        if params:
            yield "Shown with " + ", ".join(f"`{key}: {value}`" for key, value in params.items()) + ".\n"
        yield "| column | type | range | better | about |\n|---|---|---|---|---|"
        yield from (_row(column) for column in measure.columns)
        yield ""


def _row(column: Column) -> str:
    cells = (column.name, str(column.type), _range(column), column.better or "", column.about)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _range(column: Column) -> str:
    if pa.types.is_boolean(column.type):
        return "true, false"
    if column.low is None and column.high is None:
        return ""
    low = "" if column.low is None else f"{column.low:,.10g}"
    high = "" if column.high is None else f"{column.high:,.10g}"
    return f"{low} to {high}" if high else f"{low} or more"


if __name__ == "__main__":
    sys.stdout.write(measures_page())
