"""The report as one page that needs nothing but itself.

The template escapes every text that comes from data; a policy in the page forbids scripts and the network besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from catalog.report import Report
from catalog.report_picks import Borderline, Group, Near, Pictured
from catalog.report_plots import funnel_svg, tokens_svg, values_svg
from catalog.report_values import ValueChart, Word
from catalog.report_words import brief, number, one_line, share, value_text
from catalog.rules import Atom

_SIGNS = {">=": "≥", "<=": "≤", "!=": "≠"}
"""Comparisons as people write them."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URI, `width` x `height` pixels; or, with `uri` None, `why` there is none."""

    uri: str | None
    width: int = 0
    height: int = 0
    why: str = ""


def render_html(report: Report, pictures: Mapping[str, Thumbnail], store: str) -> str:
    """The page. `pictures` by record key; `store` is how people name the store on their command line."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("catalog"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "asked": asked,
        "brief": brief,
        "edge": edge,
        "fate": fate,
        "line": one_line,
        "num": lambda value: f"{value:,}",
        "number": number,
        "said": said,
        "share": share,
        "signs": signs,
        "shown_values": shown_values,
        "threshold": threshold,
        "total": total,
    }
    charts = [(chart, values_svg(chart), beyond(chart)) for chart in report.charts]
    page = environment.get_template("report.html.j2").render(
        report=report,
        pictures=pictures,
        store=store,
        total=max(1, report.inputs + report.born),
        sections=list(_sections(report)),
        funnel_wide=funnel_svg(report.funnel, wide=True),
        funnel_narrow=funnel_svg(report.funnel, wide=False),
        charts=charts,
        tokens=[(count, tokens_svg(count.kind, count.bins)) for count in report.token_counts],
        snippet=snippet(report, store),
    )
    return page + "\n"


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    """(anchor, title) of the sections that the page has."""
    yield from (("funnel", "Funnel"), ("reasons", "Reasons"))
    optional = {
        "values": ("Values", report.charts),
        "kept": ("Kept", (True,)),
        "borderline": ("Borderline", report.borderline),
        "dropped": ("Dropped", report.dropped),
        "duplicates": ("Duplicates", report.duplicates),
        "quarantined": ("Quarantined", report.quarantined),
        "sources": ("Sources and licences", (True,)),
        "tokens": ("Tokens", report.token_counts),
        "timing": ("Time", report.timings),
        "shards": ("Shards", report.sets),
    }
    yield from ((anchor, title) for anchor, (title, there) in optional.items() if there)


# -- words -------------------------------------------------------------------------------------------------------------


def threshold(atom: Atom) -> str:
    """`≥ 256`."""
    return f"{_SIGNS.get(atom.op, atom.op)} {number(atom.literal)}"


def signs(text: str) -> str:
    """A condition's comparisons as people write them."""
    for plain, sign in _SIGNS.items():
        text = text.replace(plain, sign)
    return text


def fate(record: Pictured) -> str:
    """`kept`, or how and why a record left."""
    state = record.state or "undecided"
    return f"{state}: {one_line(record.reason, 40)}" if record.reason else state


def shown_values(record: Pictured) -> list[tuple[str, str]]:
    """The values decisions read of a record, but for those that the card says anyway."""
    return [
        (name, value_text(value))
        for name, value in sorted(record.values.items())
        if name not in ("licence", "source", "split_group") and value is not None
    ]


def total(word: Word) -> int:
    """How many records have a value."""
    return word.passed + word.failed + word.other


def asked(group: Group, report: Report) -> str:
    """The condition behind a group's reason; empty where there is none."""
    for reason in report.reasons:
        if (reason.node, reason.state, reason.reason) == (group.node, group.state, group.reason):
            return reason.condition or ""
    return ""


def said(group: Group, record: Pictured | None, report: Report) -> Markup:
    """The record's own values of what the group's condition reads."""
    if record is None:
        return Markup("")
    names = [name for name in dict.fromkeys(re.findall(r"\w+", asked(group, report))) if name in record.values]
    texts = [Markup("{} <b>{}</b>").format(name, one_line(value_text(record.values[name]), 40)) for name in names]
    return Markup("<br>").join(texts)


def beyond(chart: ValueChart) -> str:
    """Which bars hold values from outside the axis."""
    if chart.bins is None or chart.low is None or chart.high is None:
        return ""
    low, high = chart.bins.beyond
    sides = [side for side, there in (("first", low), ("last", high)) if there]
    if not sides:
        return ""
    return f"the {' and '.join(sides)} {'bars hold' if len(sides) > 1 else 'bar holds'} what lies beyond the axis"


@dataclass(frozen=True)
class Part:
    """One place in the row of a threshold: a `card`, the threshold itself (`at`), or nothing (`void`)."""

    kind: str
    near: Near | None = None
    said: str = ""
    span: int = 0
    text: str = ""


def edge(line: Borderline, side: int = 3) -> Iterator[Part]:
    """The row of a threshold, values rising from left to right, `side` places on each side of it."""
    atom = line.atom
    # A value at the threshold stands on the side on which it is judged.
    below = float.__le__ if atom.op in (">", "<=") else float.__lt__
    left = [near for near in line.records if below(near.value, atom.literal)]
    right = [near for near in line.records if near not in left]
    yield from _void(side - len(left), side, left_alone=not left)
    yield from (_near(near, atom) for near in left[-side:])
    yield Part("at")
    yield from (_near(near, atom) for near in right[:side])
    yield from _void(side - len(right), side, left_alone=not right)


def _near(near: Near, atom: Atom) -> Part:
    return Part("card", near, Markup("{} <b>{}</b>").format(atom.column, number(near.value)))


def _void(span: int, side: int, left_alone: bool) -> Iterator[Part]:
    if span > 0:
        yield Part("void", span=span, text="no record on this side" if left_alone and span == side else "")


def snippet(report: Report, store: str) -> str:
    """Python that reads the largest shard set with stock webdataset."""
    if not report.sets:
        return ""
    largest = max(report.sets, key=lambda one: one.samples)
    folder = f"{store.rstrip('/')}/{largest.folder}"
    if folder.startswith("s3://"):
        head = "import json, subprocess\nimport webdataset\n"
        card = 'card = json.loads(subprocess.check_output(["aws", "s3", "cp", f"{folder}/card.json", "-"]))'
        url = "f\"pipe:aws s3 cp {folder}/{part['folder']}/{shard['file']} -\""
    else:
        head = "import json\nimport webdataset\n"
        card = 'card = json.load(open(f"{folder}/card.json"))'
        url = "f\"{folder}/{part['folder']}/{shard['file']}\""
    return (
        f"{head}\nfolder = {folder!r}\n{card}\n"
        f'urls = [{url} for part in card["generations"] for shard in part["shards"]]\n'
        "for sample in webdataset.WebDataset(urls, shardshuffle=False).decode():\n"
        '    ids, facts = sample["ids.npy"], sample["json"]  # int32 [tokens]; task, spans, licence, provenance\n'
    )
