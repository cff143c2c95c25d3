"""Which id means what: text ids first, then one id per image code.

The layout is data. A checkpoint, a shard set's card and the sampler all carry the same small object, so that
a tiny model has a tiny vocabulary and no id is ever written in code. Source: fact sheet section 2 (released
config.json).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.text_tokenizer import TextTokenizer, json_digest

FORMAT = 1
RELEASED_FILE = Path(__file__).parent / "embedded" / "released_layout.json"

START_IMAGE = "<|image|>"
END_IMAGE = "<|/image|>"
BEGIN_IMAGE_TOKENS = "<boi>"
MASK = "<|mask|>"
EOS = "<|endoftext|>"
ROLE_END = "<|role_end|>"

_NAMES = {
    "start_image": START_IMAGE,
    "end_image": END_IMAGE,
    "begin_image_tokens": BEGIN_IMAGE_TOKENS,
    "mask": MASK,
    "eos": EOS,
    "pad": EOS,
    "role_end": ROLE_END,
}


def size_token(n: int) -> str:
    """Spelling of the token that says a grid is `n` patches high (or wide)."""
    return f"<|reserved_token_{n}|>"


@dataclass(frozen=True)
class Vocabulary:
    """Ranges and named ids of one model's vocabulary.

    `text_size` text ids (0 .. text_size-1, special tokens among them); image code c has id `image_offset` + c
    for c in 0 .. image_codes-1; `size_ids[n-1]` is the id of the token for a grid side of n patches.
    """

    text_size: int
    image_offset: int
    image_codes: int
    start_image: int
    end_image: int
    begin_image_tokens: int
    mask: int
    eos: int
    pad: int
    role_end: int
    size_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.text_size < 1 or self.image_codes < 1:
            raise ValueError(f"empty vocabulary: text_size {self.text_size}, image_codes {self.image_codes}")
        if self.image_offset < self.text_size:
            raise ValueError(f"image_offset {self.image_offset} lies inside the {self.text_size} text ids")
        if not self.size_ids:
            raise ValueError(f"no size tokens: the tokenizer lists no {size_token(1)}")
        named = {name: getattr(self, name) for name in _NAMES}
        named |= {size_token(n): i for n, i in enumerate(self.size_ids, start=1)}
        owner: dict[int, str] = {}
        for name, token_id in named.items():
            if not 0 <= token_id < self.text_size:
                raise ValueError(f"{name} has id {token_id}, outside the text ids 0..{self.text_size - 1}")
            # End of text and padding share an id in the released layout; nothing else may.
            if token_id in owner and {name, owner[token_id]} != {"eos", "pad"}:
                raise ValueError(f"{name} and {owner[token_id]} share the id {token_id}")
            owner.setdefault(token_id, name)

    @classmethod
    def from_tokenizer(cls, tokenizer: TextTokenizer, image_codes: int, text_size: int | None = None) -> Vocabulary:
        """Look every named token up in `tokenizer`; image codes follow the text ids.

        `text_size` is given where a checkpoint pads its text ids beyond what the tokenizer lists; by default
        it is the tokenizer's size. Raises ValueError naming a token that the tokenizer lacks.
        """
        count = tokenizer.size if text_size is None else text_size
        sizes: list[int] = []
        while tokenizer.has_token(size_token(len(sizes) + 1)):
            sizes.append(tokenizer.token_id(size_token(len(sizes) + 1)))
        named = {field: tokenizer.token_id(name) for field, name in _NAMES.items()}
        return cls(text_size=count, image_offset=count, image_codes=image_codes, size_ids=tuple(sizes), **named)

    @classmethod
    def released(cls, tokenizer: TextTokenizer) -> Vocabulary:
        """The released layout, with the size tokens read from the released `tokenizer`.

        Raises ValueError when the tokenizer gives a named token another id than the released config does.
        """
        layout = json.loads(RELEASED_FILE.read_text("utf-8"))
        for name, expected in layout["tokens"].items():
            if tokenizer.token_id(name) != expected:
                raise ValueError(
                    f"tokenizer {tokenizer.name} gives {name} the id {tokenizer.token_id(name)}, the "
                    f"released model {expected}: this is not the released tokenizer"
                )
        return cls.from_tokenizer(tokenizer, layout["image_codes"], layout["text_size"])

    @property
    def size(self) -> int:
        """Rows of the embedding table: all text and image ids."""
        return self.image_offset + self.image_codes

    @property
    def largest_side(self) -> int:
        """Largest grid side, in patches, that has a size token."""
        return len(self.size_ids)

    def size_id(self, n: int) -> int:
        """Id of the size token for a grid side of `n` patches, n in 1 .. largest_side."""
        if not 1 <= n <= self.largest_side:
            raise ValueError(f"no size token for a grid side of {n}: the vocabulary has 1..{self.largest_side}")
        return self.size_ids[n - 1]

    def is_image(self, token_id: int) -> bool:
        """Whether `token_id` stands for an image code."""
        return self.image_offset <= token_id < self.size

    def code_of(self, token_id: int) -> int:
        """Image code of an image id."""
        if not self.is_image(token_id):
            raise ValueError(f"id {token_id} is no image id ({self.image_offset}..{self.size - 1})")
        return token_id - self.image_offset

    def id_of_code(self, code: int) -> int:
        """Id of an image code, 0 .. image_codes-1."""
        if not 0 <= code < self.image_codes:
            raise ValueError(f"image code {code} is outside the code book 0..{self.image_codes - 1}")
        return self.image_offset + code

    def fingerprint(self) -> str:
        """Stable identity (64 hex characters) of the layout."""
        return json_digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain data: the fields above under their own names, `size_ids` as a list, and `format`.

        `model.grammar` documents how a shard set's auditor reads it.
        """
        return {
            "format": FORMAT,
            "text_size": self.text_size,
            "image_offset": self.image_offset,
            "image_codes": self.image_codes,
            **{name: getattr(self, name) for name in _NAMES},
            "size_ids": list(self.size_ids),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Inverse of `to_json`. Raises ValueError naming a missing, unknown or non-integer field."""
        if data.get("format") != FORMAT:
            raise ValueError(f"vocabulary format {data.get('format')!r} is not {FORMAT}")
        expected = {"text_size", "image_offset", "image_codes", "size_ids", *_NAMES}
        given = set(data) - {"format"}
        if given != expected:
            raise ValueError(
                f"vocabulary fields: missing {sorted(expected - given)}, unknown {sorted(given - expected)}"
            )
        numbers = {name: data[name] for name in expected - {"size_ids"}}
        for name, number in [*numbers.items(), *(("size_ids", number) for number in data["size_ids"])]:
            if type(number) is not int:
                raise ValueError(f"vocabulary field {name} holds {number!r}, which is no integer")
        return cls(**numbers, size_ids=tuple(data["size_ids"]))
