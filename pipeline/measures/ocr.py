"""Measures `ocr` and `ocr_match`: what stands written in a picture, and whether a reference text says the same."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.coarse_to_fine import Page, Scales, Verdict, letters, read_page
from pipeline.ocr import Engine, Line, engine_identity
from pipeline.operator import Column, Measure, Params, Quarantine, Record, text_field
from pipeline.pictures import DEFAULT_LIMITS, PILLOW_LIMIT, Limits, decode_noted
from pipeline.reading_order import in_reading_order

LINE = pa.struct(
    [
        *(pa.field(name, pa.float64()) for name in ("x0", "y0", "x1", "y1")),
        pa.field("text", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("agreement", pa.float64()),
        pa.field("trusted", pa.bool_()),
    ]
)

_GRID = 512
"""Cells across and down in which the share of the picture under text is counted."""


class OcrParams(Params):
    """Parameters of `ocr`.

    The sizes are those of `Scales`. A line is trusted from an agreement of `trusted` on; one that is less sure than
    `least_confidence`, or that one pass alone saw with less than `least_alone`, is left out. `reference` names a field
    with a text that the reading is compared with. `engine: null` says that there is none, for `requires: engine`.
    """

    engine: Literal["rapidocr"] | None = "rapidocr"

    role: str = "image"
    coarse_side: int = Field(default=1288, ge=64, le=4096)
    line_height: int = Field(default=48, ge=16, le=128)
    regions: int = Field(default=40, ge=1, le=1000)
    lines: int = Field(default=300, ge=1, le=1000)
    trusted: float = Field(default=0.9, ge=0, le=1)
    least_confidence: float = Field(default=0.5, ge=0, le=1)
    least_alone: float = Field(default=0.8, ge=0, le=1)
    reference: str | None = None
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1, le=PILLOW_LIMIT)


class Ocr(Measure):
    """Text read in two passes, coarse over the page and fine over its regions, and how well the two agree."""

    name = "ocr"
    version = 1
    Params = OcrParams
    params: OcrParams
    loads_model = True
    time_limit = 300.0
    packages: ClassVar = {"rapidocr": "ocr", "onnxruntime": "ocr", "rapidfuzz": "ocr"}

    def __init__(self, params: OcrParams) -> None:
        super().__init__(params)
        self._limits = Limits(params.max_pixels)
        self.scales = Scales(params.coarse_side, params.line_height, params.regions, params.lines)
        self.engine: Engine | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            Column("ocr_text", pa.string(), "the reading in reading order, a line a line; empty without text"),
            Column("ocr_lines", pa.list_(LINE), "lines in reading order, boxes as shares of the upright picture, 0-1"),
            Column(
                "ocr_agreement",
                pa.float64(),
                "1 - edit distance / length between the two passes, mean over characters; null without text",
                0,
                1,
                "higher",
            ),
            Column("ocr_trusted", pa.float64(), "share of the characters in trusted lines, or null", 0, 1, "higher"),
            Column(
                "ocr_confidence",
                pa.float64(),
                "how sure the engine is, mean over characters; null without text",
                0,
                1,
                "higher",
            ),
            Column("ocr_chars", pa.int64(), "characters of the reading, without blanks", 0),
            Column("text_share", pa.float64(), "share of the picture that boxes of text cover", 0, 1),
            Column("ocr_regions", pa.int64(), "regions read in the fine pass", 0),
            Column(
                "ocr_unread", pa.int64(), "lines of the coarse pass that the limits kept from the fine one", 0, None
            ),
            Column("ocr_turned", pa.int64(), "degrees against the clock by which the page was turned", 0, 270),
            *(_match_columns("reference") if self.params.reference else ()),
        )

    @property
    def missing(self) -> str | None:
        """The engine that was not given, or is not installed."""
        if self.params.engine is None:
            return "no engine given"
        for module, extra in self.packages.items():
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed; install it with: pip install 'unifactory[{extra}]'"
        return None

    def fingerprint_parts(self) -> dict[str, Any]:
        """Versions of the engine and digests of its networks."""
        return {} if self.missing else engine_identity()

    def setup(self) -> None:
        """Load the networks."""
        self.check_packages()
        self.engine = Engine()

    def process(self, record: Record) -> Sequence[Any]:
        """Read the picture; raises Quarantine for one that cannot be decoded."""
        if self.engine is None:
            self.setup()
        assert self.engine is not None
        rgb = decode_noted(record.read(self.params.role), None, self._limits).rgb
        page = read_page(self.engine.read, rgb, self.scales)
        row = self.told(page)
        if self.params.reference is None:
            return row
        return (*row, *_matched(text_field(record.fields, self.params.reference), row[0]))

    def told(self, page: Page) -> Sequence[Any]:
        """The columns of a page that was read."""
        standing = {id(verdict.line): verdict for verdict in page.verdicts if self._stands(verdict)}
        rows = in_reading_order([verdict.line for verdict in standing.values()], page.width / page.height)
        found = [standing[id(line)] for row in rows for line in row]
        count = letters([verdict.line for verdict in found])
        upright = [(verdict, _turned_back(verdict.line, page.turned)) for verdict in found]
        return (
            "\n".join(" ".join(line.text for line in row) for row in rows),
            [self._line(verdict, line) for verdict, line in upright],
            _mean([verdict.agreement for verdict in found], found),
            _mean([float(self._trusts(verdict)) for verdict in found], found),
            _mean([verdict.line.confidence for verdict in found], found),
            count,
            _covered([line for _, line in upright]),
            page.regions,
            page.unread,
            page.turned,
        )

    def _stands(self, verdict: Verdict) -> bool:
        both = verdict.coarse and verdict.fine
        return verdict.line.confidence >= (self.params.least_confidence if both else self.params.least_alone)

    def _trusts(self, verdict: Verdict) -> bool:
        return verdict.agreement >= self.params.trusted

    def _line(self, verdict: Verdict, line: Line) -> dict[str, Any]:
        return {**line._asdict(), "agreement": verdict.agreement, "trusted": self._trusts(verdict)}


def _mean(values: Sequence[float], verdicts: Sequence[Verdict]) -> float | None:
    """Mean over the characters of the lines."""
    weights = [letters([verdict.line]) for verdict in verdicts]
    if not sum(weights):
        return None
    mean = sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
    return min(1.0, max(0.0, mean))


def _turned_back(line: Line, turned: int) -> Line:
    """The box as it lies in the picture, which was turned by so many degrees against the clock to be read."""
    x0, y0, x1, y1 = line[:4]
    match turned:
        case 90:
            x0, y0, x1, y1 = 1 - y1, x0, 1 - y0, x1
        case 180:
            x0, y0, x1, y1 = 1 - x1, 1 - y1, 1 - x0, 1 - y0
        case 270:
            x0, y0, x1, y1 = y0, 1 - x1, y1, 1 - x0
    return line._replace(x0=x0, y0=y0, x1=x1, y1=y1)


def _covered(lines: Sequence[Line]) -> float:
    """Share of the picture under the boxes, each counted once."""
    cells = np.zeros((_GRID, _GRID), bool)
    for line in lines:
        x0, y0, x1, y1 = (round(value * _GRID) for value in line[:4])
        cells[y0:y1, x0:x1] = True
    return float(cells.mean())


class OcrMatchParams(Params):
    """Parameters of `ocr_match`: `reference` names a field or column with a text, `reading` the column of a reading."""

    reference: str = "answer"
    reading: str = "ocr_text"
    into: str = Field(default="reference", pattern=r"^[a-z][a-z0-9_]{0,39}$")


class OcrMatch(Measure):
    """How far a text is from what was read: character error rate, and the share of its words that were read."""

    name = "ocr_match"
    version = 1
    Params = OcrMatchParams
    params: OcrMatchParams
    packages: ClassVar = {"rapidfuzz": "ocr"}

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return _match_columns(self.params.into)

    @property
    def reads(self) -> tuple[str, ...]:
        """The reading, and the text where it is a column."""
        return (self.params.reading, self.params.reference)

    def process(self, record: Record) -> Sequence[Any]:
        """The two figures; raises Quarantine for a reference that is no text."""
        reference = record.values[self.params.reference]
        if reference is not None and not isinstance(reference, str):
            raise Quarantine("text is not a string", f"{self.params.reference!r} holds {type(reference).__name__}")
        return _matched(reference, str(record.values[self.params.reading] or ""))


def _match_columns(into: str) -> tuple[Column, ...]:
    return (
        Column(
            f"{into}_cer",
            pa.float64(),
            "edit distance of the text and the reading / length of the text; null without a text",
            0,
            None,
            "lower",
        ),
        Column(
            f"{into}_words",
            pa.float64(),
            "share of the text's words that the reading has, in any order; null without a word",
            0,
            1,
            "higher",
        ),
    )


def _matched(reference: str | None, reading: str) -> tuple[float | None, float | None]:
    if not reference:
        return None, None
    return character_error_rate(reference, reading), words_read(reference, reading)


def compared(text: str) -> str:
    """A text as it is compared: Unicode NFKC, small letters, any run of blanks and line breaks one blank."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def character_error_rate(reference: str, reading: str) -> float | None:
    """Edit distance / length of the reference, 0 or more, as texts are compared; None for a blank reference."""
    from rapidfuzz.distance import Levenshtein

    wanted = compared(reference)
    return Levenshtein.distance(wanted, compared(reading)) / len(wanted) if wanted else None


def words_read(reference: str, reading: str) -> float | None:
    """Share of the reference's words, each as often as it stands there, that the reading has; None without words."""
    wanted, found = (Counter(re.findall(r"\w+", compared(text))) for text in (reference, reading))
    return (wanted & found).total() / wanted.total() if wanted else None
