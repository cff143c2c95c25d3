"""What became of each URL, kept in the store so that no URL is asked twice.

`fetched/ab/HASH.json` is a success: digest and size of the bytes, which lie at `media/ab/DIGEST`.
`fetched/ab/HASH.LIMITS.json` is a failure under the limits of that name: with other limits the URL is asked
again. Both are written once; `ab` are the first two characters, HASH is the sha256 of the URL.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from catalog.storage import Storage
from pipeline.media import keep_media, media_name
from pipeline.sources.addresses import AddressRule
from pipeline.sources.base import BadRow
from pipeline.sources.download import Download
from pipeline.sources.limits import Limits


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes in the store: `digest` is their sha256, `size` their number."""

    digest: str
    size: int


class Outcomes:
    """The outcomes in a store, as one set of limits sees them."""

    def __init__(self, storage: Storage, limits: Limits, rule: AddressRule) -> None:
        self._storage = storage
        self._limits = limits
        self._rule = rule
        judged = limits.model_dump(mode="json", exclude={"concurrency", "per_host"})
        judged["rule"] = [rule.all_private, *map(str, rule.networks)]
        self._policy = sha256(orjson.dumps(judged, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

    def find(self, url: str) -> Kept | None:
        """The stored bytes of a URL, None when it has to be asked; raises BadRow with a refusal."""
        success = self._load(self._success(url))
        if success is None:
            failure = self._load(self._failure(url))
            if failure is not None:
                raise BadRow(failure["reason"], failure["message"])
            return None
        kept = Kept(success["digest"], success["size"])
        self._rule.check("the server", success["addresses"])
        if kept.size > self._limits.max_bytes:
            raise BadRow("too large", f"has {kept.size:,} bytes, more than {self._limits.max_bytes:,}")
        if not self._storage.exists(media_name(kept.digest)):
            # Asking again would bring back what a takedown took out.
            raise BadRow("taken out", "was fetched once, but its bytes are no longer in the store")
        return kept

    def keep(self, url: str, digest: str, download: Download) -> Kept:
        """Store bytes, unless the store has them, and then the success."""
        keep_media(self._storage, download.data, digest)
        size = len(download.data)
        facts = {"url": url, "digest": digest, "size": size, "addresses": download.addresses}
        self._storage.create(self._success(url), orjson.dumps(facts))
        return Kept(digest, size)

    def refuse(self, url: str, bad: BadRow) -> None:
        """Store a failure."""
        facts = {"url": url, "reason": bad.reason, "message": str(bad)}
        self._storage.create(self._failure(url), orjson.dumps(facts))

    def forget(self, url: str) -> None:
        """Drop the failure under these limits, so that the URL is asked again."""
        self._storage.delete(self._failure(url))

    def _load(self, name: str) -> dict[str, Any] | None:
        try:
            facts: dict[str, Any] = orjson.loads(self._storage.read(name))
        except FileNotFoundError:
            return None
        return facts

    def _success(self, url: str) -> str:
        name = sha256(url.encode()).hexdigest()
        return f"fetched/{name[:2]}/{name}.json"

    def _failure(self, url: str) -> str:
        return self._success(url).removesuffix("json") + f"{self._policy}.json"
