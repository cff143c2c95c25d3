from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.scorers.mplug_owl2 import grid_positions, line_positions, load_owl
from tests.pipeline.scorers.releases import owl_logits, owl_tensors, write_owl

BEFORE, AFTER = [1, 20, 30], [40, 50, 60, 70]


def pixels(seed: int) -> torch.Tensor:
    return torch.randn((1, 3, 28, 28), generator=torch.Generator().manual_seed(seed))


def ours(folder: Path, given: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        owl = load_owl(folder, "cpu", torch.float32)
        found: torch.Tensor = owl(given, torch.tensor(BEFORE), torch.tensor(AFTER))
        return found


def test_a_forward_equals_clip_and_llama_of_transformers_with_weights_by_modality(tmp_path: Path) -> None:
    tensors = write_owl(tmp_path)
    for seed in range(3):
        expected = owl_logits(tensors, pixels(seed), BEFORE, AFTER)
        assert expected.std() > 1
        torch.testing.assert_close(ours(tmp_path, pixels(seed))[0], expected, atol=2e-5, rtol=1e-5)


def test_where_both_modalities_hold_equal_weights_it_is_plain_llama(tmp_path: Path) -> None:
    tensors = owl_tensors()
    for name in tensors:
        if ".multiway.1." in name:
            tensors[name] = tensors[name.replace(".multiway.1.", ".multiway.0.")].clone()
    write_owl(tmp_path, tensors)
    expected = owl_logits(tensors, pixels(1), BEFORE, AFTER)
    torch.testing.assert_close(ours(tmp_path, pixels(1))[0], expected, atol=2e-5, rtol=1e-5)


def test_pictures_of_a_batch_do_not_see_each_other(tmp_path: Path) -> None:
    write_owl(tmp_path)
    both = ours(tmp_path, torch.cat([pixels(1), pixels(2)]))
    torch.testing.assert_close(both[1:], ours(tmp_path, pixels(2)), atol=2e-5, rtol=1e-5)


def test_fixed_tables_are_those_of_the_release_and_may_be_left_out(tmp_path: Path) -> None:
    tensors = write_owl(tmp_path / "whole")
    stem = "model.visual_abstractor.encoder.layers.0.crossattention.attention"
    torch.testing.assert_close(line_positions(24, 5), tensors[f"{stem}.q_pos_embed"])
    torch.testing.assert_close(grid_positions(24, 4), tensors[f"{stem}.k_pos_embed"])
    write_owl(tmp_path / "bare", {name: tensors[name] for name in tensors if "_pos_embed" not in name})
    torch.testing.assert_close(ours(tmp_path / "bare", pixels(1)), ours(tmp_path / "whole", pixels(1)))


def test_rotary_frequencies_of_older_releases_are_left_aside(tmp_path: Path) -> None:
    tensors = write_owl(tmp_path / "new")
    write_owl(tmp_path / "old", {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert torch.equal(ours(tmp_path / "old", pixels(1)), ours(tmp_path / "new", pixels(1)))


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.self_attn.k_proj.multiway.1.weight", "model.visual_abstractor.vit_eos", "lm_head.weight"],
)
def test_every_part_counts(tmp_path: Path, name: str) -> None:
    tensors = write_owl(tmp_path / "one")
    write_owl(tmp_path / "other", {**tensors, name: tensors[name] + 0.5})
    assert (ours(tmp_path / "one", pixels(1)) - ours(tmp_path / "other", pixels(1))).abs().max() > 1e-3
