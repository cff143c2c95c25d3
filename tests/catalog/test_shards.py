"""The shard format: bytes that follow from the samples alone, that stock tools read, and whose damage has a name."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.keys import key_of
from catalog.shards import (
    INDEX,
    Card,
    Sample,
    ShardDamage,
    WrittenShard,
    bucket_count,
    bucket_of,
    index_bytes,
    load_ids,
    npy_bytes,
    read_card,
    read_index,
    read_members,
    shard_name,
    tar_header,
    write_shard,
)


def make(n: int, text: str = "x", **extra: bytes) -> Sample:
    ids = np.arange(n % 700, dtype="<i4")
    meta = orjson.dumps({"task": "text_to_image", "n": n, "text": text}, option=orjson.OPT_SORT_KEYS)
    return Sample(key_of(b"%d" % n), ids.tobytes(), meta, n % 7, n % 700, extra)


def write(samples: list[Sample], bucket: int = 0, buckets: int = 1) -> tuple[bytes, WrittenShard]:
    file = io.BytesIO()
    shard = write_shard(sorted(samples, key=lambda sample: sample.key), bucket, buckets, file)
    return file.getvalue(), shard


def write_set(samples: list[Sample], buckets: int) -> dict[str, bytes]:
    """The tars of a generation by name, as packing cuts them."""
    found = {}
    for bucket in range(buckets):
        mine = [sample for sample in samples if bucket_of(sample.key, buckets) == bucket]
        if mine:
            data, shard = write(mine, bucket, buckets)
            found[shard.name] = data
    return found


numbers = st.lists(st.integers(0, 10_000), min_size=1, max_size=24, unique=True)


# -- bytes ------------------------------------------------------------------------------------------------------------


@given(numbers, st.sampled_from([1, 2, 8]), st.randoms())
@settings(max_examples=40)
def test_the_bytes_of_a_set_do_not_depend_on_the_order_of_arrival(some: list[int], buckets: int, random: Any) -> None:
    samples = [make(n) for n in some]
    one = write_set(samples, buckets)
    random.shuffle(samples)
    assert write_set(samples, buckets) == one


@given(numbers, st.sampled_from([1, 2, 8]), st.data())
@settings(max_examples=40)
def test_removing_one_sample_changes_exactly_one_tar(some: list[int], buckets: int, data: st.DataObject) -> None:
    samples = [make(n) for n in some]
    gone = data.draw(st.sampled_from(samples))
    before = write_set(samples, buckets)
    after = write_set([sample for sample in samples if sample is not gone], buckets)
    assert len(before.keys() - after.keys()) == 1
    assert len(after.keys() - before.keys()) <= 1
    assert all(after[name] == data for name, data in before.items() if name in after)
    assert write_set(samples, buckets) == before


def test_samples_must_come_in_the_order_of_their_keys() -> None:
    samples = sorted((make(n) for n in range(3)), key=lambda sample: sample.key)
    for bad in ([samples[1], samples[0]], [samples[0], samples[0]]):
        with pytest.raises(ValueError, match=f"samples out of order: {bad[1].key} after {bad[0].key}"):
            write_shard(bad, 0, 1, io.BytesIO())


def test_a_tar_never_changes_between_versions() -> None:
    data, shard = write([make(n) for n in range(20)])
    assert shard.name == "0000-of-0001-fa58b72cc3a82c20.tar"
    assert shard.size == len(data)


def test_nothing_in_a_header_tells_when_where_or_who(tmp_path: Path) -> None:
    data, _ = write([make(1), make(2)])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2000))
@settings(max_examples=30)
def test_ids_read_back_through_numpy(values: list[int]) -> None:
    ids = np.array(values, dtype="<i4")
    data = npy_bytes(ids.tobytes())
    plain = io.BytesIO()
    np.save(plain, ids)
    assert data == plain.getvalue()
    assert (load_ids(data) == ids).all()
    assert load_ids(data).dtype == np.int32


@pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros((2, 2), np.int32), np.zeros(3, ">i4"), np.zeros(2)])
def test_ids_of_another_kind_are_refused(array: Any) -> None:
    file = io.BytesIO()
    np.save(file, array)
    with pytest.raises(ValueError, match=r"not int32 \[n\]"):
        load_ids(file.getvalue())


def test_pickled_ids_are_refused() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_ids(file.getvalue())


# -- buckets ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 16))
def test_a_bucket_is_the_leading_bits_of_the_key(head: int, bits: int) -> None:
    key = f"{head:08x}" + "f" * 24
    assert bucket_of(key, 2**bits) == head >> (32 - bits)


@given(st.integers(0, 2**32 - 1), st.integers(0, 15))
def test_twice_the_buckets_cut_each_bucket_in_two(head: int, bits: int) -> None:
    key = f"{head:08x}" + "0" * 24
    assert bucket_of(key, 2 ** (bits + 1)) // 2 == bucket_of(key, 2**bits)


@given(st.integers(0, 100_000), st.integers(1, 5000))
def test_the_bucket_count_is_the_least_power_of_two_that_is_enough(samples: int, shard_samples: int) -> None:
    buckets = bucket_count(samples, shard_samples)
    assert buckets & (buckets - 1) == 0
    assert buckets * shard_samples >= samples
    assert buckets == 1 or buckets // 2 * shard_samples < samples


def test_a_name_tells_bucket_count_and_digest() -> None:
    assert shard_name(3, 16, "ab" * 32) == "0003-of-0016-abababababababab.tar"


# -- stock readers ----------------------------------------------------------------------------------------------------

STOCK = """
import hashlib, json, sys
import webdataset
assert not any(name.split(".")[0] in ("catalog", "pipeline", "model", "training", "jobs") for name in sys.modules)
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode():
    ids = sample["ids.npy"]
    print(json.dumps([sample["__key__"], ids.dtype.str, ids.tolist(), sample["json"], len(sample.get("webp", b""))]))
"""


def test_stock_webdataset_reads_a_set_without_code_of_ours(tmp_path: Path) -> None:
    samples = [make(n, "déjà vu 猫") for n in range(40)]
    paths = []
    for name, data in sorted(write_set(samples, 4).items()):
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    done = subprocess.run(
        [sys.executable, "-I", "-c", STOCK, *paths], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    found = [orjson.loads(line) for line in done.stdout.splitlines()]
    wanted = sorted(samples, key=lambda sample: sample.key)
    assert [row[0] for row in found] == [sample.key for sample in wanted]
    for row, sample in zip(found, wanted, strict=True):
        assert row[1] == "<i4"
        assert row[2] == np.frombuffer(sample.ids, "<i4").tolist()
        assert row[3] == orjson.loads(sample.meta)


def test_stock_tar_reads_a_set(tmp_path: Path) -> None:
    samples = [make(n, **{"webp": b"RIFF" * n}) for n in range(5)]
    data, _ = write(samples)
    (tmp_path / "a.tar").write_bytes(data)
    listed = subprocess.run(["tar", "tf", "a.tar"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert len(data) % 10_240 == 0
    wanted = sorted(samples, key=lambda sample: sample.key)
    assert listed.stdout.split() == [f"{s.key}.{end}" for s in wanted for end in ("ids.npy", "json", "webp")]


# -- the index --------------------------------------------------------------------------------------------------------


@given(numbers)
@settings(max_examples=30)
def test_the_index_finds_every_member_in_the_bytes(some: list[int]) -> None:
    import hashlib

    samples = {sample.key: sample for sample in (make(n, **{"webp": b"w" * (n % 5)}) for n in some)}
    data, shard = write(list(samples.values()))
    assert shard.index.schema == INDEX
    assert shard.digest == hashlib.sha256(data).hexdigest()
    rows = shard.index.to_pylist()
    assert [row["sample_key"] for row in rows[::3]] == sorted(samples)
    for row in rows:
        sample = samples[row["sample_key"]]
        wanted = dict(sample.members())[row["member"]]
        assert data[row["offset"] : row["offset"] + row["length"]] == wanted
        assert row["digest"] == hashlib.sha256(wanted).hexdigest()
        assert row["shard"] == shard.name
        assert row["position"] == sorted(samples).index(sample.key)
        assert (row["text_tokens"], row["image_tokens"]) == (sample.text_tokens, sample.image_tokens)


def test_the_digest_of_a_sample_covers_every_member_and_its_name() -> None:
    plain = write([make(1)])[1].digests[make(1).key]
    others = [
        make(1, text="y"),
        make(1, webp=b""),
        Sample(make(1).key, make(2).ids, make(1).meta, 1, 1),
        Sample(make(1).key, make(1).ids, make(1).meta, 1, 1, {"jpg": b""}),
    ]
    assert len({plain, *(write([other])[1].digests[other.key] for other in others)}) == 5


def test_an_index_file_reads_back_sorted_whatever_order_its_tars_came_in() -> None:
    parts = [write([make(n) for n in range(start, start + 3)])[1].index for start in (0, 10, 20)]
    one, two = index_bytes(parts), index_bytes(parts[::-1])
    assert one == two
    rows = read_index(one)
    assert rows.schema == INDEX
    assert rows.num_rows == 18
    assert read_index(index_bytes([])).equals(INDEX.empty_table())


# -- damage -----------------------------------------------------------------------------------------------------------


def faults(data: bytes, index: pa.Table) -> list[str]:
    """What reading a tar beside its index finds, in words: the check that audits make, on one tar."""
    import hashlib

    rows = {f"{row['sample_key']}.{row['member']}": row for row in index.to_pylist()}
    found = []
    try:
        for member in read_members(io.BytesIO(data)):
            row = rows.pop(f"{member.key}.{member.suffix}", None)
            if row is None:
                found.append("not in the index")
            elif row["offset"] != member.offset:
                found.append("elsewhere")
            elif row["digest"] != hashlib.sha256(member.data).hexdigest():
                found.append("other bytes")
    except ShardDamage as damage:
        return [*found, str(damage)]
    return found + ["missing"] * len(rows)


TAR, SHARD = write([make(n) for n in range(1, 9)])
MEMBERS = list(read_members(io.BytesIO(TAR)))
END = MEMBERS[-1].offset + len(MEMBERS[-1].data) + -len(MEMBERS[-1].data) % 512


def block_of(member: int) -> tuple[int, int]:
    """Where a member begins with its header, and where it ends with its padding."""
    found = MEMBERS[member]
    return found.offset - 512, found.offset + len(found.data) + -len(found.data) % 512


def test_a_sound_tar_has_no_faults() -> None:
    assert faults(TAR, SHARD.index) == []


@given(st.integers(0, END - 1), st.integers(0, 7))
@settings(max_examples=300)
def test_no_flipped_bit_in_header_or_content_goes_unnoticed(place: int, bit: int) -> None:
    padding = [
        (member.offset + len(member.data), member.offset + len(member.data) + -len(member.data) % 512)
        for member in MEMBERS
    ]
    data = bytearray(TAR)
    data[place] ^= 1 << bit
    found = faults(bytes(data), SHARD.index)
    if any(start <= place < end for start, end in padding):
        assert found == []  # no reader sees it; the digest in the file's name does
    else:
        assert found


@given(st.integers(0, len(TAR) - 1))
@settings(max_examples=200)
def test_a_truncated_tar_is_called_truncated_and_says_where(length: int) -> None:
    found = faults(TAR[:length], SHARD.index)
    if length >= END + 1024:
        assert found == []  # only the filling after the end mark is gone
    else:
        assert "truncated" in found[-1] or "end mark" in found[-1]
        assert any(word.isdecimal() for word in found[-1].replace(":", " ").split())


def cut(first: int, last: int) -> bytes:
    start, end = block_of(first)[0], block_of(last)[1]
    return TAR[start:end]


DAMAGE = [
    ("two samples swapped", cut(2, 3) + cut(0, 1) + cut(4, 15) + TAR[END:], ["elsewhere"] * 4),
    ("one member gone", cut(0, 3) + cut(5, 15) + TAR[END:], ["elsewhere"] * 11 + ["missing"]),
    ("the last sample gone", cut(0, 13) + TAR[END:], ["missing"] * 2),
    ("one member twice", cut(0, 15) + cut(15, 15) + TAR[END:], ["not in the index"]),
    (
        "a stranger at the end",
        TAR[:END] + tar_header("f" * 32 + ".json", 2) + b"{}" + bytes(510) + TAR[END:],
        ["not in the index"],
    ),
    (
        "a member that is no sample's",
        TAR[:END] + tar_header("README", 0) + TAR[END:],
        [f"member 'README' at byte {END} is not KEY.suffix"],
    ),
    (
        "a member in a folder",
        TAR[:END] + tar_header("a/b.json", 0) + TAR[END:],
        [f"member 'a/b.json' at byte {END} is not KEY.suffix"],
    ),
    ("an end mark of one block", TAR[:END] + bytes(512) + b"x" * 512, [f"broken end mark at byte {END}"]),
    ("nothing at all", b"", ["ends at byte 0 without an end mark: truncated"]),
    ("no tar", b"PK\x03\x04" * 500, ["broken header at byte 0: invalid header"]),
    ("a page of text", b"<html>" * 500, ["broken header at byte 0: invalid header"]),
]


@pytest.mark.parametrize(("data", "wanted"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_each_kind_of_damage_is_named(data: bytes, wanted: list[str]) -> None:
    assert faults(data, SHARD.index) == wanted


def test_a_link_is_no_member() -> None:
    info = tarfile.TarInfo("a" * 32 + ".json")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    data = info.tobuf(tarfile.USTAR_FORMAT) + TAR[END:]
    with pytest.raises(ShardDamage, match=r"is not KEY\.suffix"):
        list(read_members(io.BytesIO(data)))


def test_a_size_beyond_the_file_costs_no_memory() -> None:
    data = tar_header("a" * 32 + ".json", 8**11 - 1) + b"{}"
    with pytest.raises(ShardDamage, match="cut off at byte 514: truncated"):
        list(read_members(io.BytesIO(data)))


# -- cards ------------------------------------------------------------------------------------------------------------


def card(**given: Any) -> Card:
    empty: dict[str, Any] = {name: {} for name in ("vocabulary", "tokenizers", "templates", "branches")}
    numbers = dict.fromkeys(("samples", "text_tokens", "image_tokens"), 0)
    return Card(**{"corpus": "c", "split": "train", "embedded": [], "generations": [], **empty, **numbers, **given})


def test_a_card_reads_back_and_equal_cards_have_equal_bytes(tmp_path: Path) -> None:
    one = card(vocabulary={"b": 1, "a": [1, {"z": None, "y": "é"}]}, generations=[{"number": 0, "shards": []}])
    two = card(vocabulary={"a": [1, {"y": "é", "z": None}], "b": 1}, generations=[{"shards": [], "number": 0}])
    assert one.to_bytes() == two.to_bytes()
    (tmp_path / "card.json").write_bytes(one.to_bytes())
    assert read_card(tmp_path) == one


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"corpus": "c"}', b'{"unknown": 1}', b"null"])
def test_what_is_no_card_is_said_to_be_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "card.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"^not a shard set's card: "):
        read_card(tmp_path)


def test_a_folder_without_a_card_is_no_shard_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared whole
        read_card(tmp_path)
    assert str(refused.value) == f"{tmp_path}: no card.json; name the folder of a shard set"
