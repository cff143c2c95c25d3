"""Declared schemas of the catalog's tables.

No unsigned 64-bit, enum, fixed array or null types: Delta fails on them or changes them. Every table with a key is
partitioned by `bucket`, the leading characters of its key; the bucket is not stored inside the files.
"""

from __future__ import annotations

import pyarrow as pa

MEDIA = pa.list_(
    pa.struct(
        [
            pa.field("role", pa.string()),
            pa.field("container", pa.string()),
            pa.field("path", pa.string()),
            pa.field("member", pa.string()),
            pa.field("offset", pa.int64()),
            pa.field("length", pa.int64()),
            pa.field("digest", pa.string()),
        ]
    )
)
"""Where a record's media are; see pipeline.media.MediaRef."""

RECORDS = pa.schema(
    [
        ("record_key", pa.string()),
        ("node", pa.string()),  # `ingest`, or the recipe's node that gave birth to the record
        ("source", pa.string()),
        ("place", pa.string()),  # where in the source: "images/manifest.jsonl:12"
        ("split_group", pa.string()),  # the least key among the roots the record comes from
        ("fields", pa.binary()),  # canonical JSON of the mapped fields
        ("media", MEDIA),
        ("reason", pa.string()),  # set when the row was set aside at the door
        ("message", pa.string()),
    ]
)

LINEAGE = pa.schema(
    [
        ("record_key", pa.string()),  # the child
        ("parent", pa.string()),
        ("role", pa.string()),
        ("ordinal", pa.int32()),
        ("node", pa.string()),
    ]
)

OUTCOME = pa.schema(
    [
        ("record_key", pa.string()),
        ("status", pa.string()),  # ok | quarantined
        ("reason", pa.string()),
        ("message", pa.string()),
        ("attempt", pa.int32()),
    ]
)
"""Leading columns of every outcome table; the operator's own follow."""

VERDICT = pa.schema(
    [
        ("record_key", pa.string()),
        ("state", pa.string()),  # passed | dropped | duplicate | quarantined | undecided
        ("reason", pa.string()),  # the first failing rule, the kind of duplicate, ...
        ("failing", pa.list_(pa.string())),  # every failing rule, in the recipe's order
        ("representative", pa.string()),  # of a duplicate: the kept record
        ("distance", pa.int32()),
        ("value", pa.string()),  # the route taken, the split
    ]
)
"""Leading columns of every verdict table; the values the decision read follow under their own names."""

STATES = pa.schema(
    [
        ("record_key", pa.string()),
        ("state", pa.string()),  # kept, or how it left
        ("node", pa.string()),  # where it left; the packing node when kept
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)

BOOKS = pa.schema(
    [
        ("position", pa.int32()),
        ("node", pa.string()),
        ("kind", pa.string()),
        ("inputs", pa.int64()),
        ("born", pa.int64()),
        ("passed", pa.int64()),
        ("dropped", pa.int64()),
        ("duplicate", pa.int64()),
        ("quarantined", pa.int64()),
        ("expanded", pa.int64()),
        ("merged", pa.int64()),
        ("undecided", pa.int64()),
        ("tombstoned", pa.int64()),
        ("reasons", pa.string()),  # JSON {state: {reason: count}}
    ]
)

SAMPLES = pa.schema(
    [
        ("sample_key", pa.string()),
        ("record_key", pa.string()),
        ("task", pa.string()),
        ("resolution", pa.int32()),
        ("template", pa.string()),
        ("variant", pa.string()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("generation", pa.int32()),
        ("shard", pa.string()),
        ("position", pa.int32()),  # place among the shard's samples
        ("text_tokens", pa.int64()),
        ("image_tokens", pa.int64()),
        ("digest", pa.string()),  # sha256 over the sample's members in the tar
        ("outcome", pa.string()),  # fingerprint of the encoding that made it
    ]
)

MEDIA_DIGESTS = pa.schema(
    [
        ("media_key", pa.string()),  # H(container, path, member, offset)
        ("length", pa.int64()),
        ("stamp", pa.int64()),  # mtime in ns of the file that holds the bytes
        ("digest", pa.string()),
    ]
)
"""Digests of media already read, so that unchanged files are not read again."""

CALLS = pa.schema(
    [
        ("run", pa.int64()),
        ("entry", pa.int64()),  # ordinal within the run: two entries of equal cost are two rows
        ("corpus", pa.string()),
        ("node", pa.string()),
        ("calls", pa.int64()),
        ("seconds", pa.float64()),
        ("bytes", pa.int64()),
    ]
)

RUNS = pa.schema(
    [
        ("run", pa.int64()),
        ("corpus", pa.string()),
        ("event", pa.string()),  # started | finished
        ("recipe", pa.string()),  # canonical JSON
        ("plan", pa.string()),  # JSON: nodes, fingerprints, branches
    ]
)

SNAPSHOTS = pa.schema(
    [
        ("snapshot", pa.int64()),
        ("run", pa.int64()),
        ("tables", pa.string()),  # JSON {table: version}
        ("corpora", pa.string()),  # JSON {corpus: {nodes, shard sets}}
    ]
)
