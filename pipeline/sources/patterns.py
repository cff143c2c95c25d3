"""Several files in one name: brace patterns, as WebDataset users write them, and wildcards."""

from __future__ import annotations

import glob
import os
from collections import Counter
from itertools import islice

from catalog.errors import UserError
from pipeline.sources.fields import show
from pipeline.sources.root import MediaRoot

_MOST = 1_000_000


def expand(pattern: str, media_root: MediaRoot, what: str) -> list[str]:
    """The files below the root, relative to it, that `a{000..123}.tar` or `part-*.parquet` stands for, in
    order.

    Braces keep their own order and every name must exist; wildcards give sorted names and must find
    something. Raises UserError.
    """
    # braceexpand comes with webdataset and is what it uses.
    from braceexpand import braceexpand

    try:
        names = list(islice(braceexpand(pattern), _MOST + 1))
    except ValueError as error:
        raise UserError(f"{what} {show(pattern)}: {error}") from None
    if len(names) > _MOST:
        raise UserError(f"{what} {show(pattern)}: stands for more than {_MOST:,} names")
    found: list[str] = []
    for name in names:
        matches = sorted(glob.glob(name, root_dir=media_root.root)) if glob.has_magic(name) else [name]
        if not matches:
            raise UserError(f"{what} {show(name)}: matches no file (the root is {media_root.root})")
        found.extend(media_root.own_file(os.fspath(match), what) for match in matches)
    if len(set(found)) != len(found):
        twice = next(name for name, count in Counter(found).items() if count > 1)
        raise UserError(f"{what} {show(pattern)}: names {show(twice)} twice")
    return found
