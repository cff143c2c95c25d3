"""Keys: equal exactly when everything that is part of the identity is equal, on any machine, for ever."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.keys import canonical, derived_key, fingerprint, key_of, media_digest, record_key, sample_key

parts = st.lists(st.binary(max_size=12), max_size=5)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(parts, parts)
def test_two_sequences_share_a_key_only_when_equal(one: list[bytes], two: list[bytes]) -> None:
    assert (key_of(*one) == key_of(*two)) == (one == two)


def test_a_key_is_blake2b_over_length_prefixed_parts() -> None:
    spelled = (2).to_bytes(8, "little") + b"ab" + bytes(8)
    assert key_of(b"ab", b"") == hashlib.blake2b(spelled, digest_size=16).hexdigest()


def test_moving_a_byte_between_neighbours_changes_the_key() -> None:
    assert len({key_of(b"ab", b"c"), key_of(b"a", b"bc"), key_of(b"abc"), key_of(b"abc", b""), key_of()}) == 5


def test_keys_are_thirty_two_lower_case_hex_characters() -> None:
    assert re.fullmatch("[0-9a-f]{32}", key_of(b"x"))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (key_of(b"a", b"b"), "6a93c5780b9861cdd8d2761a748d9591"),
        (record_key("s", b"{}", ["0" * 64], 0), "6d706fc2eea7e3a3f785836d28d2a3ac"),
        (derived_key("op {}", ["a" * 32], "frame", 1, b"{}", []), "90d648fa2cc50d4153c4b5179b2a89b6"),
        (sample_key("a" * 32, "text_to_image", 512, "t2i/v1", "main"), "4b07047a3dab85b5f99b30cea3237a84"),
        (fingerprint({"b": 1, "a": [None, "é"]}), "c8eb779982434b77d8433ba729ccf779"),
    ],
)
def test_stored_keys_never_change_between_versions(found: str, wanted: str) -> None:
    assert found == wanted


@given(values)
def test_canonical_json_reads_back_and_has_one_spelling(value: Any) -> None:
    text = canonical(value)
    assert orjson.loads(text) == value
    assert canonical(orjson.loads(text)) == text


@given(st.dictionaries(texts, numbers, min_size=2))
def test_the_order_of_names_is_no_part_of_a_fingerprint(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))
    assert list(turned) != list(value)
    assert fingerprint(turned) == fingerprint(value)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": b"bytes"}, "\ud800", 2**70, {"a": {1, 2}}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical(value)


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert canonical([float("nan"), float("inf"), {"a": float("-inf")}]) == b'[null,null,{"a":null}]'


def test_every_part_of_a_record_counts() -> None:
    base = ("images", b'{"id":"1"}', ["d" * 64], 0)
    others = [
        ("hostile", *base[1:]),
        (base[0], b'{"id":"2"}', *base[2:]),
        (*base[:2], ["e" * 64], 0),
        (*base[:2], [], 0),
        (*base[:2], ["d" * 64, "d" * 64], 0),
        (*base[:3], 1),
    ]
    assert len({record_key(*one) for one in [base, *others]}) == len(others) + 1


@given(st.permutations(["a" * 32, "b" * 32, "c" * 32]))
def test_the_order_of_parents_is_no_part_of_a_child(parents: list[str]) -> None:
    assert derived_key("s", parents, "r", 0, b"{}", []) == derived_key("s", sorted(parents), "r", 0, b"{}", [])


def test_every_part_of_a_child_counts() -> None:
    base = ("step", ["a" * 32], "frame", 0, b"{}", ["d" * 64])
    others = [
        ("other", *base[1:]),
        (base[0], ["b" * 32], *base[2:]),
        (base[0], ["a" * 32, "b" * 32], *base[2:]),
        (*base[:2], "clip", *base[3:]),
        (*base[:3], 1, *base[4:]),
        (*base[:4], b"[]", base[5]),
        (*base[:5], ["e" * 64]),
    ]
    assert len({derived_key(*one) for one in [base, *others]}) == len(others) + 1


def test_every_part_of_a_sample_counts() -> None:
    base = ("a" * 32, "text_to_image", 512, "t2i/v1", "main")
    others = [("b" * 32, *base[1:]), (base[0], "understanding", *base[2:]), (*base[:2], 256, *base[3:])]
    others += [(*base[:3], "t2i/v2", base[4]), (*base[:4], "short")]
    assert len({sample_key(*one) for one in [base, *others]}) == len(others) + 1


def test_records_children_and_samples_of_equal_parts_have_different_keys() -> None:
    assert len({record_key("x", b"", [], 0), key_of(b"x"), fingerprint("x"), media_digest(b"x")}) == 4


def test_the_digest_of_a_medium_is_its_sha256() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert media_digest(b"") == media_digest(memoryview(b"")) == empty
