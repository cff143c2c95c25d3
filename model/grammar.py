"""What a well-formed sequence is, checked on plain data: ids, spans, and a vocabulary as a dictionary.

Nothing here needs a tokenizer or a model, so a shard set can be audited with what its card carries.

Vocabulary (`Vocabulary.to_json`, stored in a shard set's card):

    {"format": 1,
     "text_size": int,            text ids are 0 .. text_size-1, special tokens among them
     "image_offset": int,         image code c has id image_offset + c
     "image_codes": int,          codes are 0 .. image_codes-1
     "start_image": int, "end_image": int, "begin_image_tokens": int,
     "mask": int, "eos": int, "pad": int, "role_end": int,
     "size_ids": [int, ...]}      size_ids[n-1] says that a grid side has n patches

Spans (`Span.to_json`, stored with each sample): a list that covers the ids without gap or overlap, in order,
each

    {"kind": "text" | "token" | "image", "start": int, "length": int >= 1, "target": bool}
    and for "image" also {"grid": [height, width], "role": str}

Grammar (fact sheet section 3):

- a picture is start_image, size id of its height, size id of its width, begin_image_tokens, then height *
  width image ids in raster order (one "image" span), then end_image unless the sequence ends there;
- a "text" span holds ordinary text ids only: no image id, and none of the special ids above;
- a "token" span holds special ids only; mask and pad (where it is not eos) never stand in a stored sample;
- what the model says closes with a token of its own (eos, role_end, or the beginning of a picture): a "text" span that
  is a target is followed by another target, and a whole sample ends with a target that is no text. So every answer of
  a conversation is closed, and its last question is answered;
- start_image may stand alone: the editing template's no-image branch has one. Size ids and begin_image_tokens
  occur in a picture's header only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = ("text", "token", "image")
_HEADER = 4  # start_image, height, width, begin_image_tokens


def check(
    vocabulary: Mapping[str, Any],
    ids: NDArray[np.integer[Any]],
    spans: Sequence[Mapping[str, Any]],
    *,
    complete: bool = True,
) -> None:
    """Raise a one-line ValueError naming position, id and span of the first thing wrong.

    ids: integers [n]. `complete` asks for a training sample: at least one span is a target, the last one among
    them, and a header at the very end is an error. A prompt for the sampler is checked with `complete=False`.
    """
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers [n], got {ids.dtype} {list(ids.shape)}")
    _check_cover(len(ids), spans)
    specials = _specials(vocabulary)
    for index, span in enumerate(spans):
        start = int(span["start"])
        part = ids[start : start + int(span["length"])]
        if span["kind"] == "image":
            _check_image(vocabulary, ids, spans, index)
        else:
            _check_plain(vocabulary, specials, part, span, index)
    _check_headers(vocabulary, ids, spans, complete=complete)
    if complete:
        _check_targets(spans)


def _check_targets(spans: Sequence[Mapping[str, Any]]) -> None:
    """Something to learn, every text of the model closed by it, and nothing asked that is not answered."""
    if not any(span["target"] for span in spans):
        raise ValueError("no span is a target: there is nothing to learn from this sample")
    if not spans[-1]["target"]:
        raise ValueError(f"span {len(spans) - 1} at {spans[-1]['start']} is no target: nothing answers it")
    for index, span in enumerate(spans):
        closed = index + 1 < len(spans) and spans[index + 1]["target"]
        if span["kind"] == "text" and span["target"] and not closed:
            raise ValueError(f"text span {index} at {span['start']} is a target, and no token of the model closes it")


def find_images(vocabulary: Mapping[str, Any], ids: NDArray[np.integer[Any]]) -> list[tuple[int, int, int]]:
    """Pictures of bare ids: (first image position, grid height, grid width) for each complete header.

    For ids without spans, such as those a model generated. A picture whose ids are cut short is reported too.
    """
    side = {size_id: n for n, size_id in enumerate(vocabulary["size_ids"], start=1)}
    found = []
    for begin in np.flatnonzero(ids == vocabulary["begin_image_tokens"]).tolist():
        if begin + 1 >= _HEADER and ids[begin - 3] == vocabulary["start_image"]:
            height, width = side.get(int(ids[begin - 2])), side.get(int(ids[begin - 1]))
            if height and width:
                found.append((begin + 1, height, width))
    return found


def special_ids(vocabulary: Mapping[str, Any]) -> frozenset[int]:
    """All ids that may stand in a "token" span, plus mask and pad."""
    return frozenset(_specials(vocabulary).tolist())


def _specials(vocabulary: Mapping[str, Any]) -> NDArray[np.int64]:
    names = ("start_image", "end_image", "begin_image_tokens", "mask", "eos", "pad", "role_end")
    return np.unique(np.array([*(vocabulary[name] for name in names), *vocabulary["size_ids"]], np.int64))


def _check_cover(length: int, spans: Sequence[Mapping[str, Any]]) -> None:
    position = 0
    for index, span in enumerate(spans):
        if span["kind"] not in _KINDS:
            raise ValueError(f"span {index} at {position}: kind {span['kind']!r} is none of {', '.join(_KINDS)}")
        if not isinstance(span["target"], bool):
            raise ValueError(f"span {index} at {position}: target {span['target']!r} is neither true nor false")
        if span["start"] != position or span["length"] < 1:
            raise ValueError(
                f"span {index} starts at {span['start']} with length {span['length']}; "
                f"expected start {position} and at least one id"
            )
        position += span["length"]
    if position != length:
        raise ValueError(f"the spans cover {position} ids, the sequence has {length}")


def _check_plain(
    vocabulary: Mapping[str, Any],
    specials: NDArray[np.int64],
    part: NDArray[np.integer[Any]],
    span: Mapping[str, Any],
    index: int,
) -> None:
    is_text = span["kind"] == "text"
    where = f"{span['kind']} span {index}"
    outside = (part < 0) | (part >= vocabulary["text_size"])
    if outside.any():
        at = int(np.argmax(outside))
        token_id, position = int(part[at]), span["start"] + at
        size = vocabulary["image_offset"] + vocabulary["image_codes"]
        if vocabulary["image_offset"] <= token_id < size:
            raise ValueError(f"position {position}: image id {token_id} inside {where}")
        raise ValueError(f"position {position}: id {token_id} in {where} is outside the vocabulary of {size} ids")
    is_special = np.isin(part, specials)
    wrong = is_special if is_text else ~is_special
    if wrong.any():
        at = int(np.argmax(wrong))
        what = "special id" if is_text else "ordinary text id"
        raise ValueError(f"position {span['start'] + at}: {what} {part[at]} inside {where}")
    never = {vocabulary["mask"], vocabulary["pad"]} - {vocabulary["eos"]}
    for at, token_id in enumerate(part.tolist() if not is_text else ()):
        if token_id in never:
            raise ValueError(f"position {span['start'] + at}: mask or pad id {token_id} inside {where}")


def _check_image(
    vocabulary: Mapping[str, Any],
    ids: NDArray[np.integer[Any]],
    spans: Sequence[Mapping[str, Any]],
    index: int,
) -> None:
    span = spans[index]
    start, length = span["start"], span["length"]
    grid = span.get("grid")
    if not isinstance(span.get("role"), str) or grid is None or len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"image span {index} at {start}: needs a role and a grid of two sides, got grid {grid!r}")
    height, width = grid
    if length != height * width:
        raise ValueError(f"image span {index} at {start}: {length} ids for a grid of {height}x{width}")
    part = ids[start : start + length]
    outside = (part < vocabulary["image_offset"]) | (part >= vocabulary["image_offset"] + vocabulary["image_codes"])
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(f"position {start + at}: id {part[at]} inside image span {index} is no image id")
    sizes = vocabulary["size_ids"]
    if max(grid) > len(sizes):
        raise ValueError(f"image span {index} at {start}: grid {height}x{width} has no size token above {len(sizes)}")
    header = [
        vocabulary["start_image"],
        sizes[height - 1],
        sizes[width - 1],
        vocabulary["begin_image_tokens"],
    ]
    before = ids[max(0, start - _HEADER) : start].tolist()
    if before != header:
        raise ValueError(f"image span {index} at {start}: header {before} does not announce a grid of {height}x{width}")
    end = start + length
    if end < len(ids) and ids[end] != vocabulary["end_image"]:
        raise ValueError(f"position {end}: id {ids[end]} after image span {index} is not the end of a picture")


def _check_headers(
    vocabulary: Mapping[str, Any],
    ids: NDArray[np.integer[Any]],
    spans: Sequence[Mapping[str, Any]],
    *,
    complete: bool,
) -> None:
    """No header without its picture, no end without its beginning, no size id outside a header."""
    starts = {span["start"] for span in spans if span["kind"] == "image"}
    ends = {span["start"] + span["length"] for span in spans if span["kind"] == "image"}
    announced = {start for start, _, _ in find_images(vocabulary, ids)}
    open_end = set() if complete else announced & {len(ids)}
    for position in np.flatnonzero(ids == vocabulary["begin_image_tokens"]).tolist():
        if position + 1 not in starts | open_end:
            raise ValueError(
                f"position {position}: begin of image tokens without a header before and image ids after it"
            )
    for position in np.flatnonzero(ids == vocabulary["end_image"]).tolist():
        if position not in ends:
            raise ValueError(f"position {position}: end of a picture without image ids before it")
    in_header = {start - back for start in starts | open_end for back in (2, 3)}
    for position in np.flatnonzero(np.isin(ids, vocabulary["size_ids"])).tolist():
        if position not in in_header:
            raise ValueError(f"position {position}: size id {ids[position]} outside a picture's header")
