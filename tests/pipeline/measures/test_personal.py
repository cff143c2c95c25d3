"""For every kind good and bad texts of several countries, with the exact counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measures.personal import Found, count_personal
from pipeline.operator import Quarantine, check_row
from tests.pipeline.pictures import CORPORA, columns_of, measure, record

NOTHING = Found(0, 0, 0, 0, 0, 0)


def look(text: Any, **params: Any) -> dict[str, Any]:
    made = measure("personal", **params)
    given_record = record(Path(), text=text)
    check_row(made.columns, made.process(given_record))
    return columns_of(made, given_record)


def found(text: str) -> dict[str, int]:
    return {name: count for name, count in count_personal(text)._asdict().items() if count}


PLANTED: tuple[tuple[str, str], ...] = (
    ("emails", "Write to ann.o-neil+birds@mail.herons.co.uk, please."),
    ("emails", "联系ann@herons.cn吧。"),
    ("emails", "<a href='mailto:bob@herons.de'>"),
    ("emails", "Ann (ANN_1@HERONS.ORG) knows."),
    ("phones", "Ask +49 30 901820 for more."),
    ("phones", "Ask (+33) 1 42 68 53 00 for more."),
    ("phones", "Ask +81-3-3224-5000."),
    ("phones", "Call us at 415-429-6753 before noon."),
    ("phones", "Home of the herons\n(415) 429-6753\nCalifornia"),
    ("phones", "Tel. 020 7393 1500"),
    ("phones", "Telefon: 030 / 90 18 20"),
    ("phones", "Tél : 01 42 68 53 00"),
    ("phones", "电话：010-62770334"),
    ("phones", "тел. 8 (495) 606-36-02"),
    ("phones", "WhatsApp 98765 43210, evenings"),
    ("cards", "Pay with 4111 1111 1111 1111 today."),
    ("cards", "card=5555555555554444;"),
    ("cards", "Amex 3782 822463 10005"),
    ("cards", "6011-1111-1111-1117"),
    ("cards", "3530111333300000."),
    ("ibans", "Konto DE89 3704 0044 0532 0130 00 AND MORE"),
    ("ibans", "GB82WEST12345698765432"),
    ("ibans", "FR14 2004 1010 0505 0001 3M02 606."),
    ("ibans", "NO93-8601-1117-947"),
    ("ips", "The visitor came from 93.184.216.34, again."),
    ("ips", "http://93.184.216.34/index"),
    ("ips", "the host at 8.8.4.4"),
    ("ips", "from 2606:2800:0220:0001:0248:1893:25c8:1946 and"),
    ("ids", "SSN: 536-90-4399"),
    ("ids", "NIR 2 55 08 14 168 025 38"),
    ("ids", "codice RCCMNL83S18D969H"),
    ("ids", "身份证 360426199101010071"),
    ("ids", "CPF 390.533.447-05"),
    ("ids", "hetu 131052-308T"),
    ("ids", "CURP BOXW310820HNERXN09"),
    ("ids", "DNI 54362315K"),
    ("ids", "PESEL 44051401359"),
    ("ids", "personnummer 880320-0016"),
    ("ids", "T.C. kimlik no 17291716060"),
    ("ids", "NHS number 943 476 5870"),
    ("ids", "Steuer-ID 36 574 261 809"),
)


@pytest.mark.parametrize(("kind", "text"), PLANTED)
def test_what_is_planted_is_found_once_and_as_nothing_else(kind: str, text: str) -> None:
    assert found(text) == {kind: 1}


CLEAN = (
    "He paid $1,234,567.89 on 2026-11-22 at 12:30:45, or 22.11.2026.",
    "ISBN 978-3-16-148410-0, ISSN 0378-5955, EAN 4006381333931, DOI 10.1000/182.",
    "Version 10.103.4.12, v101.2.3.4, Firefox/102.9.0.1, section 4.2.11.3, chapter 112.1.1.2.",
    "4000-1200 = <<4000-1200=2800>>2800 and 12+14155552671=14155552683.",
    "From 1914 to 1918, pages 1234-1250, 3 x 4 = 12, 100000000000000000 grains, 3.14159265358979323846.",
    "The server at 192.168.1.10 and 127.0.0.1, 203.0.113.9 in the manual, 1.2.3.4.5, 300.1.1.1.",
    "Write to someone@example.com, user@host.test, git@github.com:herons/pond.git, logo@2x.png, @heron, a@b.",
    "4111 1111 1111 1112 fails the checksum, 4000000000000000 and 1111111111111117 are no cards.",
    "DE89 3704 0044 0532 0130 01 fails the checksum, ZZ82WEST12345698765432 is of no country.",
    "The order 536-90-4399 came, part 54362315K, number 17291716060, sum 44051401359.",
    "CPF 390.533.447-06 and hetu 131052-308U fail the checksum; SSN 000-12-3456 is never given out.",
    "Call 12 men. Tel Aviv had 4,5 million. Phone 3 friends, 200 times, in 2024.",
    "std::vector<int> a::b, 00:1a:2b:3c:4d:5e, 2001:db8::1, 12:30:45:10",
    "sha256 3b4c5d6e7f80912a3b4c5d6e7f80912a4111111111111111 at https://herons.org/4111111111111111",
    "coordinates 51.5074 -0.1278, 1732300000000 ms, 20261122223045, 0.4111111111111111",
)


@pytest.mark.parametrize("text", CLEAN)
def test_other_numbers_are_nobodys(text: str) -> None:
    assert count_personal(text) == NOTHING


def test_each_of_several_is_counted_and_the_sum_is_theirs() -> None:
    text = "ann@herons.org, bob@herons.org; +49 30 901820 and +49 30 901821; 4111111111111111; 93.184.216.34"
    assert look(text) == {
        "emails": 2, "phones": 2, "cards": 1, "ibans": 0, "ips": 1, "ids": 0, "personal": 6,
    }  # fmt: skip


def test_no_column_holds_text() -> None:
    assert {str(column.type) for column in measure("personal").columns} == {"int64"}


def test_fields_are_read_each_for_itself() -> None:
    made = measure("personal", field=("question", "answer"))
    asked = record(Path(), question="Who is ann@herons", answer=".org? Ask +49 30 901820")
    assert columns_of(made, asked)["personal"] == 1


def test_countries_may_be_chosen() -> None:
    assert look("Tel. 020 7393 1500", regions=("GB",))["phones"] == 1
    assert look("Tel. 020 7393 1500", regions=("US",))["phones"] == 0
    assert look("Tel. +44 20 7393 1500", regions=())["phones"] == 1
    with pytest.raises(ValueError, match="'germany': countries are written in two capitals, such as DE"):
        measure("personal", regions=("germany",))


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_text_nothing_is_said(text: str | None) -> None:
    assert set(look(text).values()) == {None}


def test_a_field_that_is_no_text_is_set_aside() -> None:
    with pytest.raises(Quarantine, match="field 'text' holds int"):
        look(5)


@given(st.text(alphabet="0123456789 -+.@:/abDE()tel", max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_counted(text: str) -> None:
    assert min(count_personal(text)) >= 0


def test_a_long_row_of_digits_or_signs_takes_no_time() -> None:
    for piece in ("1234 ", "a@", "1.", "DE89 ", "12:", "+1", "tel 0"):
        count_personal(piece * 4000)


@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="no sample corpora beside the project")
def test_no_chain_of_the_sample_holds_any() -> None:
    for line in (CORPORA / "reasoning" / "chains.jsonl").read_text().splitlines():
        assert count_personal("\n".join(map(str, json.loads(line).values()))) == NOTHING
