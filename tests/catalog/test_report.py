"""The report: numbers that agree with the store, pictures chosen well and always the same, a page that is safe."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import UserError
from catalog.report import Report, _text_names, gather
from catalog.report_page import Thumbnail, render_html, signs, snippet
from catalog.report_picks import Caps, _nearest
from catalog.report_plots import funnel_svg, tokens_svg, values_svg
from catalog.report_reasons import FunnelRow
from catalog.report_text import render_text
from catalog.report_values import FAILED, OTHER, PASSED, histogram, summarise
from catalog.report_words import brief, number, one_line, share
from catalog.rules import Atom
from catalog.storage import open_storage
from catalog.view import View, open_view
from tests.catalog.stores import RULES, Facts, Row, write_store

PIXEL = Thumbnail("data:image/jpeg;base64,/9j/4AAQSkZJRg==", 192, 128)


def some_rows() -> list[Row]:
    """Sixty records of two sources: kept, dropped by two rules, near-duplicates, quarantined."""
    rows = [Row(f"kept {n}", "photos" if n % 3 else "drawings") for n in range(30)]
    rows += [Row(f"small {n}", short_side=200 + n) for n in range(10)]
    rows += [Row(f"blurred {n}", sharpness=float(n), licence=None) for n in range(8)]
    rows += [Row(f"untold {n}", sharpness=8.5 + n, text=None) for n in range(2)]
    rows += [Row(f"twin {n}", phash=rows[n].hash ^ 1) for n in range(5)]
    return rows + [Row(f"bad {n}", bad="cut off") for n in range(5)]


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return write_store(open_storage(str(tmp_path_factory.mktemp("store"))), some_rows())


@pytest.fixture(scope="module")
def report(view: View) -> Report:
    return gather(view, "toy")


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_store(view: View, report: Report) -> None:
    states = Counter(view.records("toy").collect()["state"])
    assert report.final == {state: states[state] for state in report.final}
    assert sum(report.final.values()) == report.inputs == 60
    assert report.final["quarantined"] == 5
    assert report.final["kept"] == report.samples == view.samples("toy").collect().height
    assert sum(row.records for row in report.sources) == sum(row.records for row in report.licences) == 60
    assert {row.name for row in report.licences} == {"CC0-1.0", None}
    assert [row.passed + row.dropped + row.duplicate + row.quarantined for row in report.funnel] == [
        row.inputs for row in report.funnel
    ]
    assert sum(count.total for count in report.token_counts if count.kind == "all") == sum(report.tokens.values())
    assert [(row.node, row.calls, row.share) for row in report.timings] == [("header", 60, 1.0)]


def test_reasons_name_condition_threshold_and_rules_that_nobody_failed(report: Report) -> None:
    assert [row.reason for row in report.reasons if row.node == "quality"] == list(RULES)
    found = {(row.node, row.reason): row for row in report.reasons}
    assert found["quality", "side"].count == 10
    assert found["quality", "side"].condition == "short_side >= 256"
    assert found["quality", "side"].threshold == ">= 256"
    assert found["quality", "side"].share == pytest.approx(10 / 60)
    assert found["quality", "side"].share_of_node == pytest.approx(10 / 55)
    assert found["quality", "sharp"].count == 8
    assert found["quality", "never"].count == 0
    assert found["twins", "near"].condition == "phash within 4 bits of a kept record"
    assert found["header", "broken image"].state == "quarantined"
    lost = {state: count for state, count in report.final.items() if state != "kept"}
    counted: Counter[str] = Counter()
    for row in report.reasons:
        counted[row.state] += row.count
    assert {state: count for state, count in counted.items() if count} == lost


def test_branches_taken_for_a_missing_model_are_said(tmp_path: Path) -> None:
    facts = Facts(skipped={"beauty": "score > 60"}, replaced={"sharp": "score > 30"}, missing="no checkpoint given")
    report = gather(write_store(open_storage(str(tmp_path)), some_rows(), facts), "toy")
    assert report.branches == (
        "node beauty did not run: no checkpoint given",
        "rule quality.sharp judged by sharpness > 10 OR text IS NULL in place of score > 30",
        "rule quality.beauty was skipped: score > 60 could not be judged",
    )
    notes = {row.reason: row.note for row in report.reasons if row.note}
    assert notes == {"sharp": "in place of score > 30", "beauty": "skipped: what it reads cannot be measured here"}
    page = render_html(report, {}, "s")
    assert "score &gt; 60 could not be judged" in page
    assert "patch-vq. They prove the factory" in page
    assert "patch-vq" in render_text(report, "s")


def test_an_older_snapshot_is_reported_as_it_was(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    first = gather(write_store(storage, some_rows()), "toy")
    write_store(storage, [Row("another")], Facts(corpus="other"))
    write_store(storage, [*some_rows(), Row("later")], Facts(corpus="toy2"))
    assert gather(open_view(str(tmp_path), 1), "toy") == first
    with pytest.raises(UserError, match="no corpus 'nothing'"):
        gather(open_view(str(tmp_path)), "nothing")


def test_the_same_records_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    pages = []
    for seed in (1, 2):
        rows = some_rows()
        random.Random(seed).shuffle(rows)
        view = write_store(open_storage(str(tmp_path / str(seed))), rows)
        report = gather(view, "toy")
        pages.append((render_html(report, dict.fromkeys(report.pictured, PIXEL), "s"), report.to_json()))
    assert pages[0] == pages[1]


def test_a_corpus_of_nothing_has_a_report_too(tmp_path: Path) -> None:
    report = gather(write_store(open_storage(str(tmp_path)), []), "toy")
    assert (report.inputs, report.final, report.pictured) == (0, {}, {})
    page = render_html(report, {}, "s")
    assert "No record was kept." in page
    assert 'id="borderline"' not in page
    assert "0 inputs: nothing" in render_text(report, "s")


# -- values ------------------------------------------------------------------------------------------------------------

OPS = (">", ">=", "<", "<=", "=", "!=")
VALUES = st.one_of(
    st.floats(-1e6, 1e6, allow_subnormal=False), st.sampled_from([0.0, 0.1, 0.3, 1.0, 3.0, 256.0, 512.0, 1e5])
)


def meets(value: float, atom: Atom) -> bool:
    return {
        ">": value > atom.literal,
        ">=": value >= atom.literal,
        "<": value < atom.literal,
        "<=": value <= atom.literal,
        "=": value == atom.literal,
        "!=": value != atom.literal,
    }[atom.op]


@given(
    values=st.lists(st.one_of(st.none(), VALUES), min_size=1, max_size=60),
    literal=VALUES,
    op=st.sampled_from(OPS[:4]),
    integers=st.booleans(),
)
def test_every_value_is_in_one_bin_and_no_bin_crosses_the_threshold(
    values: list[float | None], literal: float, op: str, integers: bool
) -> None:
    if integers:
        values, literal = [None if value is None else float(int(value)) for value in values], float(int(literal))
    atom = Atom("x", op, literal)
    column = pl.Series("value", values, dtype=pl.Float64)
    if integers:
        column = column.cast(pl.Int64)
    frame = pl.DataFrame(
        {"value": column, "fate": [n % 3 for n in range(len(values))]}, schema_overrides={"fate": pl.Int32}
    )
    bins = histogram(frame.lazy(), summarise(frame.lazy()), (atom,), integers)
    there = [value for value in values if value is not None]
    if not there:
        assert bins is None
        return
    assert bins is not None
    assert list(bins.edges) == sorted(set(bins.edges))
    for fate in (PASSED, FAILED, OTHER):
        expected = sum(value is not None and n % 3 == fate for n, value in enumerate(values))
        assert sum(bins.counts[fate]) == expected
    line = literal
    if bins.whole:
        line = literal - 0.5 if op in (">=", "<") else literal + 0.5
    assert line in bins.edges
    upper = sum(sum(counts[bins.edges.index(line) :]) for counts in bins.counts)
    assert upper == sum(meets(value, atom) == (op in (">", ">=")) for value in there)


def test_a_column_of_texts_is_shown_as_there_or_not(tmp_path: Path) -> None:
    rows = [Row(f"r{n}", text=f"its own caption {n}") for n in range(150)]
    rows += [Row("silent", text=None)]
    report = gather(write_store(open_storage(str(tmp_path)), rows), "toy")
    chart = next(chart for chart in report.charts if chart.column == "text")
    assert {word.value: word.passed + word.failed + word.other for word in chart.words} == {"some text": 150, "null": 1}
    assert chart.nulls == 1
    # Nobody fails for his text here, so no bar has a failing part.
    bars = re.findall(r'<i class="(\w+)" style="width', render_html(report, {}, "s"))
    assert bars == ["passed", "passed"]


def test_the_wrong_side_is_shaded_only_where_one_comparison_decides(report: Report) -> None:
    charts = {(chart.rule, chart.column): chart for chart in report.charts}
    assert charts["side", "short_side"].every_atom
    assert not charts["sharp", "sharpness"].every_atom
    assert charts["side", "short_side"].bins is not None
    assert sum(charts["side", "short_side"].bins.counts[FAILED]) == 10


# -- pictures ----------------------------------------------------------------------------------------------------------


@given(
    values=st.lists(st.one_of(st.none(), st.integers(-30, 30).map(float), VALUES), max_size=40),
    literal=st.integers(-20, 20).map(float),
    op=st.sampled_from(OPS),
)
def test_borderline_records_are_the_nearest_on_each_side(values: list[float | None], literal: float, op: str) -> None:
    atom = Atom("x", op, literal)
    keys = [f"{n:04x}" for n in range(len(values))]
    frame = pl.DataFrame({"record_key": keys, "x": values}, schema={"record_key": pl.String, "x": pl.Float64})
    found = _nearest(frame.lazy(), f"x {op} {literal}", atom, 3)
    expected = []
    for side in (True, False):
        if (op, side) in (("=", True), ("!=", False)):
            continue
        mine = [
            (abs(v - literal), k, v)
            for k, v in zip(keys, values, strict=True)
            if v is not None and meets(v, atom) == side
        ]
        expected += [(value, key, side) for _, key, value in sorted(mine)[:3]]
    assert [(near.value, near.key, near.holds) for near in found] == sorted(expected, key=lambda row: row[:2])


def test_of_several_comparisons_only_records_that_hinge_on_one_are_its_borderline(report: Report) -> None:
    sharp = next(line for line in report.borderline if line.rule == "sharp")
    texts = {near.key: report.pictured[near.key].texts for near in sharp.records}
    # Records without a text pass whatever their sharpness.
    assert all(texts.values())
    assert [near.value for near in sharp.records if not near.holds] == [5.0, 6.0, 7.0]


def test_kept_pictures_come_from_every_source(tmp_path: Path) -> None:
    rows = [Row(f"m{n}", "many") for n in range(100)] + [Row("f", "two")]
    report = gather(write_store(open_storage(str(tmp_path)), rows), "toy")
    shown = Counter(report.pictured[key].source for key in report.kept)
    assert shown == {"many": 23, "two": 1}


def test_pictures_are_capped_however_many_records_there_are(tmp_path: Path) -> None:
    rows = [Row(f"small {n}", short_side=n % 250) for n in range(300)]
    rows += [Row(f"bad {n}", bad="cut") for n in range(80)] + [Row(f"k{n}") for n in range(90)]
    caps = Caps(kept=5, per_side=2, per_reason=4, quarantined=3)
    report = gather(write_store(open_storage(str(tmp_path)), rows), "toy", caps)
    assert len(report.kept) == 5
    assert [len(group.keys) for group in report.dropped] == [4]
    assert [group.count for group in report.dropped] == [300]
    assert [len(group.keys) for group in report.quarantined] == [3]
    assert all(len(line.records) <= 4 for line in report.borderline)
    assert len(report.pictured) <= 5 + 4 + 3 + 4 * len(report.borderline)


def test_dropped_pictures_are_those_of_the_lowest_keys(report: Report) -> None:
    small = sorted(row.key for row in some_rows() if row.name.startswith("small"))
    group = next(group for group in report.dropped if group.reason == "side")
    assert group.keys == tuple(small[:6])


def test_of_each_kept_record_one_duplicate_is_shown_the_farthest(tmp_path: Path) -> None:
    rows = [Row(name, phash=hash) for name, hash in (("a", 0), ("b", 0b1111), ("c", 0b1), ("d", 0b1111 << 40))]
    view = write_store(open_storage(str(tmp_path)), rows)
    verdicts = view.scan_named("toy/verdicts/twins").filter(pl.col("state") == "duplicate").collect()
    report = gather(view, "toy")
    shown = {pair.representative: pair for pair in report.duplicates}
    assert len(shown) == len(report.duplicates) == verdicts["representative"].n_unique()
    for representative, pair in shown.items():
        mine = verdicts.filter(pl.col("representative") == representative)
        assert pair.distance == mine["distance"].max()


# -- the page ----------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Every element with its attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "{{ 7 * 191 }}{% include 'report.css' %}",
    "]]><svg onload=alert(1)>",
)


ALLOWED = frozenset(
    """html head meta title style body main h1 h2 h3 h4 p div span b i br code pre small nav a section figure figcaption
    table thead tbody tr th td details summary dl dt dd ul li footer svg g path text defs clippath rect use""".split()  # noqa: SIM905
)
"""Elements of the page without pictures; none of them can run or load anything."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_data_becomes_part_of_the_page(tmp_path: Path, attack: str) -> None:
    rows = [replace(row, text=attack, licence=attack, source=attack, bad=row.bad and attack) for row in some_rows()]
    facts = Facts(
        about=attack, rules={"side": "short_side >= 256", attack: f"text != '{attack.replace(chr(39), '')}x'"}
    )
    report = gather(write_store(open_storage(str(tmp_path)), rows, facts), "toy")
    tiles = {key: Thumbnail(None, why=attack) for key in report.pictured}
    page = Elements(render_html(report, tiles, f"store {attack}"))
    assert {tag for tag, _ in page.found} <= ALLOWED
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    assert "1337" not in page.text
    assert one_line(attack, 20)[:15] in page.text


def test_the_page_needs_nothing_but_itself(report: Report) -> None:
    page = render_html(report, dict.fromkeys(report.pictured, PIXEL), "runs/demo")
    elements = Elements(page)
    for tag, attributes in elements.found:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,")), (tag, attributes)
        assert tag not in ("script", "link", "iframe", "object", "base")
    assert not re.search(r"@import|url\((?!#)", page)
    policy = next(a["content"] for t, a in elements.found if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ids = [attributes["id"] for _, attributes in elements.found if attributes.get("id")]
    targets = [attributes["href"] for tag, attributes in elements.found if tag == "a"]
    assert {f"#{name}" for name in ids} >= set(targets)
    assert len(targets) >= 10


def test_every_picture_says_how_to_explain_it(report: Report) -> None:
    page = render_html(report, dict.fromkeys(report.pictured, PIXEL), "runs/demo")
    for key in report.pictured:
        assert f"unifactory explain {key[:12]} --store runs/demo" in page
    assert page.count("<img") >= len(report.pictured)


def test_a_record_without_a_picture_gets_a_tile_that_says_why(report: Report) -> None:
    page = render_html(report, {key: Thumbnail(None, why="its file is not there") for key in report.pictured}, "s")
    assert "<img" not in page
    assert page.count("its file is not there") >= len(report.pictured)


def test_what_belongs_to_a_picture_is_shown_beside_it(report: Report) -> None:
    key, record = next(iter(report.pictured.items()))
    paired = replace(record, beside=({"role": "target"}, {"role": "reference"}))
    changed = replace(report, pictured={**report.pictured, key: paired})
    plain = render_html(changed, dict.fromkeys(report.pictured, PIXEL), "s")
    with_one = render_html(changed, {**dict.fromkeys(report.pictured, PIXEL), f"{key}.0": PIXEL}, "s")
    assert "beside record" not in plain
    assert with_one.count("<img") - plain.count("<img") == with_one.count(f"beside record {key[:10]}") > 0
    assert 'class="pic of2"' in with_one


def test_a_record_of_words_alone_has_no_empty_tile_but_more_of_its_words(report: Report) -> None:
    key, record = next(iter(report.pictured.items()))
    words = " ".join(f"word{number}" for number in range(40))
    alone = replace(record, media=None, texts={"text": words})
    page = render_html(replace(report, pictured={**report.pictured, key: alone}), {}, "s")
    assert f'not read</div>\n</div><figcaption>\n<div class="line"><code>{key[:10]}' not in page
    assert re.search(r'<p class="text"[^>]*>[^<]*word38', page)
    shown = replace(record, media={"role": "image"}, texts={"text": words})
    page = render_html(replace(report, pictured={**report.pictured, key: shown}), {}, "s")
    assert not re.search(r'<p class="text"[^>]*>[^<]*word38', page)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"prompt": "question", "answer": "answer"}, ["answer", "text"]),
        ({"prompt": "caption"}, ["caption", "text"]),
        ({"prompt": "question", "thinking": "chain", "answer": "answer"}, ["question", "chain", "answer", "text"]),
        ({"prompt": "instruction", "frame_texts": "frame_texts"}, ["frame_texts", "text", "instruction"]),
    ],
)
def test_texts_are_quoted_in_the_order_of_what_they_tell(params: dict[str, str], names: list[str]) -> None:
    sources = {"all": {"map": {"text": "a", "licence": "b"}}}
    assert _text_names({"nodes": {"encode": {"encode": "x", "params": params}}, "sources": sources}) == names


def test_the_page_of_a_few_hundred_records_is_small(report: Report) -> None:
    page = render_html(report, {}, "s")
    assert len(page) < 700_000


def test_plots_are_whole_svg_in_the_colours_of_the_page(report: Report) -> None:
    plots = [funnel_svg(report.funnel, wide) for wide in (True, False)]
    plots += [values_svg(chart) for chart in report.charts if chart.bins]
    plots += [tokens_svg(count.kind, count.bins) for count in report.token_counts]
    for plot in plots:
        ElementTree.fromstring(plot)
        assert not re.search(r"#[0-9a-f]{6}|<style|DejaVu|<metadata", plot)
    assert ">18 dropped<" in plots[0]
    for row in report.funnel:
        assert f">{row.node}<" in plots[0]
        assert f"{row.passed:,}" in plots[0]


def test_json_and_text_say_the_same_numbers(report: Report) -> None:
    data = orjson.loads(report.to_json())
    assert data["final"] == report.final
    assert data["snapshot"] == 1
    assert set(data["pictured"]) == set(report.pictured)
    text = render_text(report, "runs/demo")
    assert "60 inputs: " in text
    assert re.search(r"quality +side +dropped +10 +17 % +short_side >= 256", text)
    assert all(len(line) <= 160 and line == line.rstrip() for line in text.splitlines())


def test_the_snippet_reads_the_shards_with_stock_webdataset(view: View, report: Report) -> None:
    code = snippet(report, view.store.uri).replace("    ids, facts", "    seen.append(sample); ids, facts")
    seen: list[dict[str, object]] = []
    exec(compile(code, "snippet", "exec"), {"seen": seen})
    assert len(seen) == report.samples > 0
    compile(snippet(report, "s3://bucket/store"), "snippet", "exec")
    assert "pipe:aws s3 cp" in snippet(report, "s3://bucket/store")


# -- words -------------------------------------------------------------------------------------------------------------


HIDDEN = "\x00\x1b\x7f\u200b\u200f\u202e\u2066\ufeff"


@given(
    st.lists(st.sampled_from([*HIDDEN, " ", "\n"]) | st.text(max_size=9), max_size=40).map("".join), st.integers(2, 80)
)
def test_one_line_is_one_line_of_bounded_length_that_hides_nothing(text: str, most: int) -> None:
    line = one_line(text, most)
    assert len(line) <= most
    assert not set(line) & set(HIDDEN)
    assert line == " ".join(line.split())


@given(st.floats(0, 1) | st.sampled_from([1e-9, 0.0004, 0.0009, 0.99, 0.994, 0.995, 0.9985, 0.9996, 1 - 1e-9]))
def test_a_share_says_none_and_all_only_of_none_and_all(part: float) -> None:
    said = share(part)
    assert (said in ("0 %", "0.0 %")) == (part == 0)
    assert (said in ("100 %", "100.0 %")) == (part == 1)


def test_numbers_read_well() -> None:
    assert [number(value) for value in (0, 3.0, 1234567.0, 0.123456, 1234.5, 0.0000123)] == [
        "0", "3", "1,234,567", "0.123", "1,234", "1.23e-05",
    ]  # fmt: skip
    assert [brief(value) for value in (0, 9_999, 36_892, 1_500_000, 2_000_000_000)] == [
        "0",
        "9,999",
        "36.9k",
        "1.5M",
        "2G",
    ]
    assert signs("a >= 1, b != 2") == "a ≥ 1, b ≠ 2"


@pytest.mark.parametrize("other", [{"merged": 18}, {"merged": 18, "expanded": 4}])
def test_what_is_told_beside_a_bar_stays_on_the_page(other: dict[str, int]) -> None:
    row = FunnelRow("views", "merge", "", 19, 8, 8, 0, 0, 1, other, None)
    drawn = funnel_svg([row], wide=True)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawn)[1])  # type: ignore[index]
    beside = re.findall(r' x="([\d.]+)" y="([\d.]+)"[^>]*>(\d+ [a-z]+)<', drawn)
    assert {text for *_, text in beside} == {"1 quarantined", "8 born", *(f"{n} {name}" for name, n in other.items())}
    assert all(float(x) + 80 <= width for x, _, _ in beside)
    assert len({(x, y) for x, y, _ in beside}) == len(beside)
