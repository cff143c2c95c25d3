"""WebDataset tars in the img2dataset layout: KEY.jpg, KEY.txt, KEY.json side by side, read where they lie."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import Field

from catalog.errors import UserError
from pipeline.media import MediaRef
from pipeline.sources.base import BadRow, FieldName, Source, SourceRow
from pipeline.sources.fields import FieldMap, show, show_place
from pipeline.sources.folder import as_text, parse_side
from pipeline.sources.ids import with_unique_ids
from pipeline.sources.jsonl import MAX_LINE
from pipeline.sources.patterns import expand
from pipeline.sources.root import MediaRoot

_SAMPLE_BITS = 40
_PICTURES: dict[str, tuple[str, ...]] = {"image": ("jpg", "jpeg", "png", "webp")}


class WebDataset(Source):
    """`kind: webdataset`. `tars` may be a brace pattern; `media` gives, per role, the endings that hold it.

    A sample is what shares a name up to the first dot after the last slash. `map` and `select` see `key`
    (that name), `json` (an object) and every other ending as text: `txt`, `cls`. Media stay in the tar and
    are read from there. An ending with a `*` (`image.*.jpg`) stands for all members that fit, by number.
    """

    unit = "sample"

    kind: Literal["webdataset"]
    tars: Annotated[str, Field(min_length=1)]
    media: dict[FieldName, tuple[str, ...]] = Field(default_factory=lambda: dict(_PICTURES))

    def check(self, root: Path) -> None:
        """Raise UserError unless the tars are there and the first begins like a tar."""
        names = expand(self.tars, MediaRoot(root), "tar")
        with _open(root / names[0], names[0]):
            pass

    def inputs(self, root: Path) -> list[Path]:
        """The tars."""
        return sorted(root / name for name in expand(self.tars, MediaRoot(root), "tar"))

    def rows(self, root: Path) -> Iterator[SourceRow]:
        """The selected samples, tar by tar, in the order in which they begin; a place is `TAR:KEY`."""
        names = expand(self.tars, MediaRoot(root), "tar")

        def place_of(position: int) -> str:
            tar, sample = divmod(position, 1 << _SAMPLE_BITS)
            return f"sample {sample} of {show_place(names[tar])}"

        def numbered() -> Iterator[tuple[int, SourceRow]]:
            reader = _SampleReader(self)
            for tar, name in enumerate(names):
                for number, row in enumerate(reader.read(root, name), 1):
                    if row is not None:
                        yield (tar << _SAMPLE_BITS) + number, row

        return with_unique_ids(self, numbered(), place_of)


@dataclass(slots=True)
class _Sample:
    """The members of one key, by ending: (name, offset and length of its bytes in the tar)."""

    key: str
    members: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    problem: BadRow | None = None

    @property
    def cut_off(self) -> bool:
        """Whether the tar ends within it."""
        return self.problem is not None and self.problem.reason == "truncated tar"


class _SampleReader:
    """Turns the samples of tars into rows."""

    def __init__(self, source: WebDataset) -> None:
        self._source = source
        self._fields = FieldMap(source)
        named = {path.split(".")[0] for path in (*source.map.values(), *source.select)}
        self._texts = sorted(named - {"key"})

    def read(self, root: Path, name: str) -> Iterator[SourceRow | None]:
        """One row, or None if not selected, for each sample of a tar; damage comes last, as a bad row."""
        shown = show_place(name)
        samples, damage = _index(root / name, name)
        with (root / name).open("rb") as file:
            for sample in samples:
                yield self._row(file, name, f"{shown}:{show_place(sample.key)}", sample)
        if damage is not None:
            yield self._source.refuse(shown, damage, raw=os.fsencode(name))

    def _row(self, file: BinaryIO, tar: str, place: str, sample: _Sample) -> SourceRow | None:
        fields: dict[str, Any] = {}
        try:
            if sample.problem is not None:
                raise sample.problem
            values = self._values(file, sample)
            if not self._fields.selects(values):
                return None
            fields = self._fields.apply(values)
            media = tuple([ref for role in self._source.media for ref in self._refs(tar, role, sample)])
        except BadRow as bad:
            return self._source.refuse(place, bad, fields, os.fsencode(f"{tar}:{sample.key}"))
        return SourceRow(place, fields, media)

    def _values(self, file: BinaryIO, sample: _Sample) -> dict[str, Any]:
        values: dict[str, Any] = {"key": as_text(sample.key)}
        for ending in self._texts:
            if ending in sample.members:
                name, offset, length = sample.members[ending]
                if length > MAX_LINE:
                    raise BadRow("text too long", f"{show(name)} has {length:,} bytes, more than {MAX_LINE:,}")
                file.seek(offset)
                values[ending] = parse_side(ending, file.read(length), name)
        return values

    def _refs(self, tar: str, role: str, sample: _Sample) -> list[MediaRef]:
        """The one member of a role; where an ending has a `*`, all that fit, by the numbers in their names."""
        endings = self._source.media[role]
        several = any("*" in ending for ending in endings)
        if several:
            found = [name for name in sample.members if any(fnmatchcase(name, ending) for ending in endings)]
            found.sort(key=_by_number)
        else:
            found = [ending for ending in endings if ending in sample.members]
        if not found or (len(found) > 1 and not several):
            which = " and ".join(f".{ending}" for ending in found)
            has = ", ".join(f".{ending}" for ending in sample.members)
            reason, message = (f"two of {role}", f"has {which}") if found else (f"no {role}", f"has only {has}")
            wanted = ", ".join(f".{ending}" for ending in endings)
            raise BadRow(reason, f"{message}, must have one of {wanted}")
        refs = []
        for ending in found:
            name, offset, length = sample.members[ending]
            refs.append(MediaRef(role, "tar", tar, member=as_text(name), offset=offset, length=length))
        return refs


def _by_number(ending: str) -> list[tuple[int, str]]:
    """An order in which 2.jpg comes before 10.jpg."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", ending)]


def _open(path: Path, name: str) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (tarfile.TarError, OSError) as error:
        hint = "; compressed tars must be unpacked first" if _is_compressed(path) else ""
        raise UserError(f"{show_place(name)}: not a readable tar: {error}{hint}") from None


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"))


def _index(path: Path, name: str) -> tuple[list[_Sample], BadRow | None]:
    """The samples of a tar in the order in which they begin, and what is wrong with the tar as a whole."""
    samples: dict[str, _Sample] = {}
    current, before = "", ""
    size = path.stat().st_size
    with _open(path, name) as tar:
        damage: BadRow | None
        try:
            for member in tar:
                # tarfile keeps every header it has seen, which a long walk has no use for.
                tar.members = []  # type: ignore[attr-defined]
                key, ending = _split(member.name)
                if member.isdir() or not ending:
                    continue
                sample = samples.setdefault(key, _Sample(key))
                if key != current and sample.members:
                    apart = f"its members do not stand together, {show(member.name)} comes after {show(before)}"
                    sample.problem = BadRow("split sample", apart)
                _add(sample, ending, member, size)
                current, before = key, member.name
            damage = _missing_end(tar, size, show(before))
        except tarfile.TarError as error:
            damage = BadRow("damaged tar", f"damaged after {show(before)}: {error}")
    if current and samples[current].cut_off:
        return list(samples.values()), None
    return list(samples.values()), damage


def _add(sample: _Sample, ending: str, member: tarfile.TarInfo, size: int) -> None:
    shown = show(member.name)
    if not member.isreg() or member.issparse():
        sample.problem = BadRow("unsafe member", f"{shown} is {_type_name(member)}, must be a plain file")
    elif member.offset_data + member.size > size:
        sample.problem = BadRow("truncated tar", f"the tar ends within {shown}")
    elif ending in sample.members:
        sample.problem = BadRow("duplicate member", f"{shown} stands there twice")
    sample.members[ending] = (member.name, member.offset_data, member.size)


def _split(name: str) -> tuple[str, str]:
    """(key, ending in lower case): cut at the first dot after the last slash, as webdataset does.

    The ending is empty for names without a dot or beginning with one, which belong to no sample.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower() if stem else ""


def _missing_end(tar: tarfile.TarFile, size: int, before: str) -> BadRow | None:
    """tarfile takes a cut or a broken header for the end; a whole tar ends with a block of zeros."""
    assert tar.fileobj is not None
    if tar.offset >= size:
        return BadRow("truncated tar", f"cut off after {before}, the end mark is missing")
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        return BadRow("damaged tar", f"damaged after {before}, byte {tar.offset} begins no member")
    return None


def _type_name(member: tarfile.TarInfo) -> str:
    if member.issym():
        return "a symbolic link"
    if member.islnk():
        return "a hard link"
    return "a sparse file" if member.issparse() else "a device or pipe"
