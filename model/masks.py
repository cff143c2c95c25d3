"""Who may attend to whom: one small table per mask, from which every backend's form is made.

Block diffusion needs two masks. *Block-causal* (inference): a token sees every block up to its own.
*Noisy and clean* (training): the model reads [noisy ; clean], both of length n; a noisy token sees its
own noisy block and the clean blocks before it, a clean token sees clean blocks up to its own. Packed rows
add "same document" to every rule. Sources: PAPER 2.2, LLaDA2.0 report 4.2, dFactory
`tasks/train_llada2_bd.py`.

A mask is stored as three integers per token (half, document, block), never as a picture of the rule.
`dense` draws the boolean picture for SDPA, `tiles` the tile lists for FlexAttention. Both read the same
rule, and the tile lists come from runs of equal integers, so building them costs the square of the number
of blocks, not of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

DOCUMENT = 1
CLEAN, NOISY = 0, 1
HIDDEN = -1


@dataclass(frozen=True)
class AttentionMask:
    """A rule between `Q` queries and `K` keys.

    Attributes:
        query: int32 [B or 1, Q, 3], the integers (half, document, block) of each query.
        key: int32 [B or 1, K, 3], the same of each key; document `HIDDEN` hides a key from everyone.
    """

    query: Tensor
    key: Tensor

    def to(self, device: torch.device | str) -> AttentionMask:
        """The same mask with its tables on `device`."""
        return AttentionMask(self.query.to(device), self.key.to(device))

    def dense(self) -> Tensor:
        """The picture of the rule: bool [B or 1, 1, Q, K], True = may attend."""
        return _allowed(self.query, self.key)[:, None]

    def tiles(self, tile: int = 128, device: torch.device | str = "cpu") -> BlockMask:
        """The rule as FlexAttention's tile lists, exact for any run lengths.

        Args:
            tile: side of a tile in tokens.
            device: where the lists, and the tables that the kernel reads in partial tiles, go. They are built
                where this mask is, which should be the CPU: finding the runs would make a GPU wait.
        """
        from torch.nn.attention.flex_attention import BlockMask

        runs = _allowed(self.query[:, _run_starts(self.query)], self.key[:, _run_starts(self.key)])
        some, full = _tile_kinds(runs, _run_index(self.query), _run_index(self.key), tile)
        partial_count, partial_index = _tile_list(some & ~full)
        full_count, full_index = _tile_list(full)
        return BlockMask.from_kv_blocks(
            partial_count.to(device),
            partial_index.to(device),
            full_count.to(device),
            full_index.to(device),
            BLOCK_SIZE=tile,
            mask_mod=self.to(device)._mask_mod(),
            seq_lengths=(self.query.shape[1], self.key.shape[1]),
        )

    def _mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        queries, keys = ([part.contiguous() for part in side.unbind(-1)] for side in (self.query, self.key))
        rows = self.query.shape[0]

        def mask_mod(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            row = b if rows > 1 else b * 0
            return _rule([part[row, q] for part in queries], [part[row, k] for part in keys])

        return mask_mod


def _allowed(query: Tensor, key: Tensor) -> Tensor:
    """Bool [B, Q, K] for triples [B, Q, 3] and [B, K, 3]."""
    return _rule(query[:, :, None].unbind(-1), key[:, None, :].unbind(-1))


def _rule(query: Sequence[Tensor], key: Sequence[Tensor]) -> Tensor:
    (q_half, q_document, q_block), (k_half, k_document, k_block) = query, key
    same_document = (q_document == k_document) & (k_document != HIDDEN)
    own_noisy_block = (q_half == NOISY) & (k_half == NOISY) & (k_block == q_block)
    # A noisy query (half 1) sees clean blocks strictly before its own: its own one holds the answers.
    clean_past = (k_half == CLEAN) & (k_block + q_half <= q_block)
    return same_document & (own_noisy_block | clean_past)


def block_causal(
    keys: int,
    block: int,
    *,
    queries: int | None = None,
    documents: Tensor | None = None,
    hidden: Tensor | None = None,
) -> AttentionMask:
    """The mask of inference: a token sees every block up to its own.

    Args:
        keys: number of keys K, positions 0..K-1.
        block: block length in tokens.
        queries: number of queries, the LAST positions (a cached step feeds only its newest block).
        documents: int [B, K] or [K], the document number of each token of a packed row, in contiguous
            runs; blocks are then counted from each document's first token, as they are at inference.
            Negative numbers are padding that nobody sees.
        hidden: bool [B, K], columns nobody may see (left padding of a guidance branch); unlike with
            `documents`, blocks still count from column 0, as in the released code.

    Raises:
        ValueError: a length that does not fit, or a document in two runs.
    """
    _check_lengths(keys, block)
    queries = keys if queries is None else queries
    if not 0 < queries <= keys:
        raise ValueError(f"queries is {queries}; it must lie in 1..{keys}, the number of keys")
    query = key = _triples(keys, block, documents, CLEAN)
    if hidden is not None:
        if hidden.shape[-1] != keys:
            raise ValueError(f"hidden has {hidden.shape[-1]} columns, the mask has {keys} keys")
        query = query.expand(hidden.shape[0], -1, -1)
        key = query.clone()
        key[..., DOCUMENT].masked_fill_(hidden.to(key.device), HIDDEN)
    return AttentionMask(query[:, keys - queries :].contiguous(), key)


def noisy_clean(length: int, block: int, *, documents: Tensor | None = None) -> AttentionMask:
    """The mask of training on [noisy ; clean], 2 x `length` tokens on both sides.

    Args:
        length: tokens n of one half.
        block: block length in tokens.
        documents: int [B, n] or [n], as for `block_causal`.
    """
    _check_lengths(length, block)
    table = torch.cat([_triples(length, block, documents, half) for half in (NOISY, CLEAN)], dim=1)
    return AttentionMask(table, table)


def positions_of(documents: Tensor) -> Tensor:
    """Position of each token inside its document: int64, same shape as `documents` [B, n] or [n]."""
    rows = documents[None] if documents.ndim == 1 else documents
    starts = torch.ones_like(rows, dtype=torch.bool)
    starts[:, 1:] = rows[:, 1:] != rows[:, :-1]
    index = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    first = torch.where(starts, index, torch.zeros_like(index)).cummax(dim=1).values
    return (index - first).reshape(documents.shape)


def _check_lengths(length: int, block: int) -> None:
    if length < 1 or block < 1:
        raise ValueError(f"length {length} and block {block} must both be at least 1")


def _triples(length: int, block: int, documents: Tensor | None, half: int) -> Tensor:
    if documents is None:
        positions = torch.arange(length)[None]
        documents = torch.zeros_like(positions)
    else:
        documents = documents[None] if documents.ndim == 1 else documents
        if documents.shape[1] != length:
            raise ValueError(f"documents has {documents.shape[1]} columns, the mask has {length} tokens")
        _check_contiguous(documents)
        positions = positions_of(documents)
    parts = (torch.full_like(positions, half), documents.clamp(min=HIDDEN), positions // block)
    return torch.stack([part.to(torch.int32) for part in parts], dim=-1)


def _check_contiguous(documents: Tensor) -> None:
    for row, numbers in enumerate(documents.tolist()):
        seen: set[int] = set()
        for i, number in enumerate(numbers):
            if number >= 0 and (i == 0 or numbers[i - 1] != number):
                if number in seen:
                    raise ValueError(f"documents row {row}: document {number} is cut in two at column {i}")
                seen.add(number)


def _run_starts(table: Tensor) -> Tensor:
    """Bool [L]: True where any row of the table [B, L, 3] changes; all rows then share one set of runs."""
    changed = (table[:, 1:] != table[:, :-1]).any(dim=-1).any(dim=0)
    return torch.cat([changed.new_ones(1), changed])


def _run_index(table: Tensor) -> Tensor:
    """Int64 [L]: the number of the run each token belongs to."""
    return _run_starts(table).long().cumsum(0) - 1


def _tile_kinds(runs: Tensor, query_run: Tensor, key_run: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """For each tile, is any pair allowed, and are all: two bool [B, query tiles, key tiles].

    A tile covers a contiguous range of runs on both sides, so a two-dimensional running sum over the table
    of runs answers both questions with four look-ups per tile.
    """
    sums = torch.nn.functional.pad(runs.long().cumsum(1).cumsum(2), (1, 0, 1, 0))
    q_from, q_to, q_whole = _tile_spans(query_run, tile)
    k_from, k_to, k_whole = _tile_spans(key_run, tile)
    upper, lower = sums[:, q_from], sums[:, q_to]
    inside = lower[:, :, k_to] - lower[:, :, k_from] - upper[:, :, k_to] + upper[:, :, k_from]
    area = (q_to - q_from)[:, None] * (k_to - k_from)[None]
    return inside > 0, (inside == area) & (q_whole[:, None] & k_whole[None])


def _tile_spans(run: Tensor, tile: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every tile: its first run, its last run + 1, and whether it is whole.

    A ragged last tile is never "full": FlexAttention would read past its end without asking the rule.
    """
    starts = torch.arange(0, len(run), tile, device=run.device)
    ends = starts + tile
    return run[starts], run[ends.clamp(max=len(run)) - 1] + 1, ends <= len(run)


def _tile_list(picked: Tensor) -> tuple[Tensor, Tensor]:
    """FlexAttention's form of a set of tiles: counts int32 [B, 1, Qt], indices int32 [B, 1, Qt, Kt]."""
    order = picked.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return picked.sum(-1, dtype=torch.int32)[:, None], order.to(torch.int32)[:, None]
