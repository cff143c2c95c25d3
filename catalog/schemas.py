"""Declared schemas of the catalog's tables, with the meaning of every column; docs/catalog-schema.md is made from them.

No unsigned 64-bit, enum, fixed array or null types: Delta fails on them or changes them. Every table with a key is
partitioned by `bucket`, the leading characters of its key; the bucket is not stored inside the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa


@dataclass(frozen=True)
class Described:
    """A table in words. `place` is its name in a store, `key` the column its rows are found by."""

    place: str
    key: str
    about: str
    columns: tuple[tuple[str, pa.DataType, str], ...]
    """(name, type, meaning)."""

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types alone."""
        return pa.schema([(name, kind) for name, kind, _ in self.columns])


_TEXT, _WHOLE, _SMALL, _REAL, _BYTES = pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.binary()

MEDIA_FIELDS = Described(
    "media",
    "",
    "Where one medium of a record lies; `media` columns hold a list of these.",
    (
        ("role", _TEXT, "what the medium is to its record: `image`, `source`, `target`, ..."),
        ("container", _TEXT, "`file`, `tar`, `parquet`, or `store` for an object of the store itself"),
        ("path", _TEXT, "relative to the media root, or to the store"),
        ("member", _TEXT, "column of a Parquet file; null elsewhere"),
        ("offset", _WHOLE, "first byte of a tar member, row of a Parquet file; null elsewhere"),
        ("length", _WHOLE, "bytes"),
        ("digest", _TEXT, "sha256 of the bytes, 64 hex characters; null if they could not be read"),
    ),
)
MEDIA = pa.list_(pa.struct([pa.field(name, kind) for name, kind, _ in MEDIA_FIELDS.columns]))
"""Where a record's media are; see pipeline.media.MediaRef."""

_RECORDS = Described(
    "CORPUS/records",
    "record_key",
    "Every record of a corpus: the rows of its sources, and what was born of them on the way.",
    (
        ("record_key", _TEXT, "H(source, fields, media digests, ordinal among identical rows), 32 hex characters"),
        ("node", _TEXT, "`ingest`, or the recipe's node that gave birth to the record"),
        ("source", _TEXT, "name of the source in the recipe"),
        ("place", _TEXT, "where in the source, `images/manifest.jsonl:12`; null for born records"),
        ("split_group", _TEXT, "least key among the roots the record comes from"),
        ("fields", _BYTES, "the mapped fields as canonical JSON"),
        ("media", MEDIA, "where its media lie"),
        ("reason", _TEXT, "why the row was set aside at the door; null for sound rows"),
        ("message", _TEXT, "the particulars of that"),
    ),
)
RECORDS = _RECORDS.schema

_LINEAGE = Described(
    "CORPUS/lineage",
    "record_key",
    "One row for every parent of a born record.",
    (
        ("record_key", _TEXT, "the child"),
        ("parent", _TEXT, "the parent"),
        ("role", _TEXT, "what the child is: `clip`, `frame`, `region`, ..."),
        ("ordinal", _SMALL, "place of the child among its siblings"),
        ("node", _TEXT, "the node it was born at"),
    ),
)
LINEAGE = _LINEAGE.schema

_OUTCOME = Described(
    "outcomes/OPERATOR-FINGERPRINT",
    "record_key",
    "What an operator said of each record, one table an operator and fingerprint, shared by all corpora. "
    "The operator's own columns follow (docs/measures.md); quarantine is this table where `status` is not `ok`.",
    (
        ("record_key", _TEXT, "the record; for a merge the group, for a comparison the pair"),
        ("status", _TEXT, "`ok` or `quarantined`"),
        ("reason", _TEXT, "a short phrase that groups; null when ok"),
        ("message", _TEXT, "the particulars"),
        ("attempt", _SMALL, "more than 1 if the record was run with nothing beside it after its worker had died"),
    ),
)
OUTCOME = _OUTCOME.schema
"""Leading columns of every outcome table; the operator's own follow."""

_VERDICT = Described(
    "CORPUS/verdicts/NODE-FINGERPRINT",
    "record_key",
    "What a decision said of each record that entered it. The values it read follow under their own names.",
    (
        ("record_key", _TEXT, "the record"),
        ("state", _TEXT, "`passed`, `dropped`, `duplicate`, `quarantined` or `undecided`"),
        ("reason", _TEXT, "the first failing rule, the kind of duplicate, ...; null when passed"),
        ("failing", pa.list_(_TEXT), "every failing rule, in the recipe's order"),
        ("representative", _TEXT, "of a duplicate: the kept record"),
        (
            "distance",
            _SMALL,
            "of a duplicate: differing bits of two hashes or numbers of two signatures, ten-thousandths of 1 - cosine "
            "of two embeddings; 0 if exact",
        ),
        ("value", _TEXT, "the route taken, the split"),
    ),
)
VERDICT = _VERDICT.schema
"""Leading columns of every verdict table; the values the decision read follow under their own names."""

_STATES = Described(
    "CORPUS/states",
    "record_key",
    "The final state of every record: each has exactly one.",
    (
        ("record_key", _TEXT, "the record"),
        (
            "state",
            _TEXT,
            "`kept`, `dropped`, `duplicate`, `quarantined`, `expanded`, `merged`, `undecided` or `tombstoned`",
        ),
        ("node", _TEXT, "where it left; the last node when kept"),
        ("reason", _TEXT, "why, in a short phrase; null when kept"),
        ("message", _TEXT, "the particulars"),
    ),
)
STATES = _STATES.schema

_BOOKS = Described(
    "CORPUS/books",
    "row_key",
    "One row a node: inputs + born = passed + dropped + duplicate + quarantined + expanded + merged + undecided + "
    "tombstoned.",
    (
        ("position", _SMALL, "place of the node in the run, 0 for ingest"),
        ("node", _TEXT, "name in the recipe"),
        ("kind", _TEXT, "`source`, `measure`, `annotate`, `decide`, `expand`, `merge`, `encode` or `pack`"),
        ("inputs", _WHOLE, "records that entered"),
        ("born", _WHOLE, "records born here"),
        ("passed", _WHOLE, "records that went on, the born ones among them"),
        ("dropped", _WHOLE, "records a rule, licence or quota left out"),
        ("duplicate", _WHOLE, "records that show what another shows"),
        ("quarantined", _WHOLE, "records that could not be processed"),
        ("expanded", _WHOLE, "records that became several"),
        ("merged", _WHOLE, "records that became part of one"),
        ("undecided", _WHOLE, "records whose rule read null"),
        ("tombstoned", _WHOLE, "records taken down"),
        ("reasons", _TEXT, "JSON {state: {reason: count}}"),
    ),
)
BOOKS = _BOOKS.schema

_SAMPLES = Described(
    "CORPUS/samples",
    "sample_key",
    "What trainers read, and where in the shards it lies.",
    (
        ("sample_key", _TEXT, "H(record_key, task, resolution, template, variant), 32 hex characters"),
        ("record_key", _TEXT, "the record it was made of"),
        ("task", _TEXT, "`text_to_image` or `understanding`"),
        ("resolution", _SMALL, "side of the stage's aspect buckets in pixels; 0 where pictures keep their size"),
        ("template", _TEXT, "name and version of the template that joined text and codes"),
        ("variant", _TEXT, "which of several samples of one record"),
        ("split", _TEXT, "`train`, `validation` or `test`"),
        ("licence", _TEXT, "licence of the record"),
        ("generation", _SMALL, "generation of shards in which it was first packed"),
        ("shard", _TEXT, "name of its tar within the generation"),
        ("position", _SMALL, "place among the tar's samples"),
        ("text_tokens", _WHOLE, "ids of text and special tokens"),
        ("image_tokens", _WHOLE, "ids of image codes"),
        ("digest", _TEXT, "sha256 over the sample's members in the tar"),
        ("outcome", _TEXT, "fingerprint of the encoding that made it, 12 characters"),
    ),
)
SAMPLES = _SAMPLES.schema

_MIXTURE = Described(
    "mixtures/SET/STAGE",
    "sample_key",
    "What a stage of a set reads: one row for every sample drawn, in whatever corpus it lies. No bytes are copied.",
    (
        ("sample_key", _TEXT, "a train sample of the snapshot"),
        ("corpus", _TEXT, "the corpus in whose shards it lies"),
        ("part", _TEXT, "the part of the stage that drew it"),
        ("copies", _SMALL, "how often it comes in one pass over the mixture, at least once"),
    ),
)
MIXTURE = _MIXTURE.schema

_MIXTURE_STAGES = Described(
    "mixture_stages/SET",
    "row_key",
    "One row a stage of a set: what was asked for, what it was decided from and what it came to.",
    (
        ("stage", _TEXT, "name of the stage"),
        ("position", _SMALL, "its place in the set's recipe, from 0"),
        ("unit", _TEXT, "`samples` or `tokens`: what weights and totals count"),
        ("total", _WHOLE, "what the stage came to, in that unit, all copies counted"),
        ("copies", _WHOLE, "samples, all copies counted"),
        ("tokens", _WHOLE, "text and image tokens, all copies counted"),
        ("fingerprint", _TEXT, "of the stage's recipe and name"),
        ("recipe", _TEXT, "the stage's recipe as JSON"),
        ("samples", _TEXT, "JSON {corpus: version of its samples table that the mixture was decided from}"),
        (
            "parts",
            _TEXT,
            "JSON list: pool, quota, samples chosen, copies, tokens, shares asked and reached of each part",
        ),
    ),
)
MIXTURE_STAGES = _MIXTURE_STAGES.schema

_MEDIA_DIGESTS = Described(
    "media_digests",
    "media_key",
    "Digests of media already read, so that unchanged files are not read again.",
    (
        ("media_key", _TEXT, "H(container, path, member, offset)"),
        ("length", _WHOLE, "bytes of the file that holds the medium"),
        ("stamp", _WHOLE, "when that file last changed, in nanoseconds"),
        ("digest", _TEXT, "sha256 of the medium's bytes"),
    ),
)
MEDIA_DIGESTS = _MEDIA_DIGESTS.schema

_CALLS = Described(
    "calls",
    "row_key",
    "What operators cost: one row for every commit of a node. Audit sums it to `operator_calls`.",
    (
        ("run", _WHOLE, "number of the run"),
        ("entry", _WHOLE, "ordinal within the run, so that two entries of equal cost are two rows"),
        ("corpus", _TEXT, "the run's corpus"),
        ("node", _TEXT, "the node"),
        ("calls", _WHOLE, "records (for a merge: groups) whose outcome was committed"),
        ("seconds", _REAL, "seconds the workers took for them"),
        ("bytes", _WHOLE, "bytes of the files that hold the outcomes"),
    ),
)
CALLS = _CALLS.schema

_RUNS = Described(
    "runs",
    "row_key",
    "One row when a run starts and one when it has finished; a run without the second was killed or failed.",
    (
        ("run", _WHOLE, "number of the run"),
        ("corpus", _TEXT, "its corpus"),
        ("event", _TEXT, "`started` or `finished`"),
        ("recipe", _TEXT, "the recipe as canonical JSON"),
        ("plan", _TEXT, "JSON: fingerprints of the plan and its nodes"),
    ),
)
RUNS = _RUNS.schema

_SNAPSHOTS = Described(
    "snapshots",
    "row_key",
    "One row for every visible state of the store. Readers start from one and see nothing that came later.",
    (
        ("snapshot", _WHOLE, "number, from 1"),
        ("run", _WHOLE, "the run that made it"),
        ("tables", _TEXT, "JSON {table: version}"),
        ("corpora", _TEXT, "JSON {corpus: nodes, branches taken, cards of its shard sets}"),
    ),
)
SNAPSHOTS = _SNAPSHOTS.schema

_INDEX = Described(
    "shards/CORPUS/SPLIT/GENERATION/index-DIGEST.parquet",
    "sample_key",
    "A plain Parquet file beside the tars of a generation: one row for every member of every tar.",
    (
        ("sample_key", _TEXT, "the sample"),
        ("shard", _TEXT, "name of the tar"),
        ("position", _SMALL, "place of the sample in the tar"),
        ("member", _TEXT, "`ids.npy`, `json`, ...: what follows the key in the member's name"),
        ("offset", _WHOLE, "first byte of the member's content in the tar"),
        ("length", _WHOLE, "bytes of the content"),
        ("digest", _TEXT, "sha256 of the content"),
        ("text_tokens", _WHOLE, "ids of text and special tokens of the sample"),
        ("image_tokens", _WHOLE, "ids of image codes of the sample"),
    ),
)
INDEX = _INDEX.schema

TABLES = (
    _RECORDS, _LINEAGE, _OUTCOME, _VERDICT, _STATES, _BOOKS, _SAMPLES, _MIXTURE, _MIXTURE_STAGES,
    _MEDIA_DIGESTS, _CALLS, _RUNS, _SNAPSHOTS, _INDEX,
)  # fmt: skip
"""Every table and file of rows a store holds, in the order of the page."""
