"""Text <-> ids: the released tokenizer from its file, or the small byte-level BPE of the project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EMBEDDED_FILE = Path(__file__).parent / "embedded" / "tokenizer.json"
EMBEDDED_NAME = "embedded-bpe"


def json_digest(value: object) -> str:
    """SHA-256 (64 hex characters) of `value` written as canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class TextTokenizer:
    """A text tokenizer that never adds ids of its own.

    Text is content, so the spelling of a special token inside it (a caption that says `<|image|>`) is
    tokenised as ordinary characters. Special tokens enter a sequence by name only, through `token_id`.
    """

    name: str
    is_embedded: bool
    fingerprint: str
    inner: Tokenizer

    def __post_init__(self) -> None:
        self.inner.encode_special_tokens = True

    def __reduce__(self) -> tuple[Any, ...]:
        # The library's own pickle forgets `encode_special_tokens`, which a worker process would miss.
        return _restore, (self.name, self.is_embedded, self.fingerprint, self.inner.to_str())

    @classmethod
    def load(cls, path: str | Path) -> TextTokenizer:
        """Read a `tokenizer.json`, or the folder that holds it (a released checkpoint's).

        Raises FileNotFoundError when there is none and ValueError when it is not a tokenizer file.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "tokenizer.json"
        if not file.is_file():
            raise FileNotFoundError(f"no tokenizer at {file}: give a tokenizer.json or the folder that holds one")
        is_embedded = file.resolve() == EMBEDDED_FILE.resolve()
        name = EMBEDDED_NAME if is_embedded else (file.parent.name or str(file))
        return cls.from_json(name, file.read_text("utf-8"), is_embedded=is_embedded)

    @classmethod
    def embedded(cls) -> TextTokenizer:
        """The small byte-level BPE that `model/embedded/train_tokenizer.py` made: any text round-trips."""
        return cls.load(EMBEDDED_FILE)

    @classmethod
    def from_json(cls, name: str, text: str, *, is_embedded: bool = False) -> TextTokenizer:
        """Build from the text of a `tokenizer.json`; the fingerprint covers its content, not its layout."""
        from tokenizers import Tokenizer

        try:
            content: dict[str, Any] = json.loads(text)
            # Padding and truncation are a caller's settings that were left in the file, not part of the
            # tokenizer.
            inner = Tokenizer.from_str(json.dumps({**content, "truncation": None, "padding": None}))
        except Exception as error:
            raise ValueError(f"tokenizer {name}: not a tokenizer.json ({error})") from error
        settings = {key: part for key, part in content.items() if key not in {"truncation", "padding"}}
        return cls(name, is_embedded, json_digest(settings), inner)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without BOS or EOS; no special token ever comes out of it."""
        ids: list[int] = self.inner.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, special tokens spelled out; bytes that are not UTF-8 become U+FFFD."""
        text: str = self.inner.decode([int(i) for i in ids], skip_special_tokens=False)
        return text

    def has_token(self, name: str) -> bool:
        """Whether the tokenizer lists a token spelled exactly `name`."""
        return self.inner.token_to_id(name) is not None

    def token_id(self, name: str) -> int:
        """Id of the token spelled `name`, such as `<boi>`. Raises ValueError when there is none."""
        found: int | None = self.inner.token_to_id(name)
        if found is None:
            raise ValueError(f"tokenizer {self.name} has no token {name!r}; is this the tokenizer of the model?")
        return found

    def token_name(self, token_id: int) -> str:
        """Spelling of one id, the inverse of `token_id`. Raises ValueError outside the tokenizer."""
        found: str | None = self.inner.id_to_token(int(token_id)) if token_id >= 0 else None
        if found is None:
            raise ValueError(f"tokenizer {self.name} has no id {token_id}; it lists {self.size} ids")
        return found

    @property
    def size(self) -> int:
        """Number of ids the tokenizer lists, special tokens included."""
        size: int = self.inner.get_vocab_size(with_added_tokens=True)
        return size


def _restore(name: str, is_embedded: bool, fingerprint: str, content: str) -> TextTokenizer:
    from tokenizers import Tokenizer

    return TextTokenizer(name, is_embedded, fingerprint, Tokenizer.from_str(content))
