from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.backbone import Backbone
from model.checkpoint import (
    CheckpointError,
    Layout,
    expand_fp8,
    layout_of,
    load_backbone,
    quantise_fp8,
    save_backbone,
    slots,
    stored_tensors,
)
from model.configs import BackboneConfig
from tests.model import parity
from tests.model.networks import tiny_backbone

IDS = torch.tensor([[5, 17, 400, 3, 3, 511, 80, 2]])


def equal(a: Backbone, b: Backbone) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("layout", ["separate", "merged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_reads_back_what_it_wrote(layout: Layout, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_backbone().to(dtype)
    save_backbone(model, tmp_path, layout=layout)
    read = load_backbone(tmp_path)
    assert layout_of(stored_tensors(tmp_path)) == layout
    assert read.lm_head.weight.dtype == dtype
    assert equal(model, read)


def test_the_separate_layout_has_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        needed = slots(Backbone(BackboneConfig.released()), "separate")
    shapes = {name: list(slot.shape) for name, slot in needed.items()}
    assert len(shapes) == 3 + 20 * 6 + 3 + 19 * (2 + 256 * 3 + 3)
    for name, shape in {
        "model.word_embeddings.weight": [173568, 2048],
        "model.layers.19.input_layernorm.weight": [2048],
        "model.layers.0.attention.query_key_value.weight": [3072, 2048],
        "model.layers.3.attention.key_layernorm.weight": [128],
        "model.layers.0.mlp.down_proj.weight": [2048, 5120],
        "model.layers.1.mlp.gate.expert_bias": [256],
        "model.layers.1.mlp.experts.255.up_proj.weight": [512, 2048],
        "model.layers.19.mlp.experts.0.down_proj.weight": [2048, 512],
        "model.layers.7.mlp.shared_experts.gate_proj.weight": [512, 2048],
        "lm_head.weight": [173568, 2048],
    }.items():
        assert shapes[name] == shape


def test_the_merged_layout_stacks_experts_without_a_weight_suffix() -> None:
    with torch.device("meta"):
        needed = slots(Backbone(BackboneConfig.released()), "merged")
    assert needed["model.layers.1.mlp.experts.gate_proj"].shape == (256, 512, 2048)
    assert needed["model.layers.1.mlp.experts.down_proj"].shape == (256, 2048, 512)


def test_shards_carry_an_index_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.checkpoint.SMALL_BYTES", 1 << 14)
    model = tiny_backbone()
    files = save_backbone(model, tmp_path)
    assert [f.name for f in files] == [
        f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert set(index["weight_map"].values()) == {f.name for f in files}
    assert equal(model, load_backbone(tmp_path))


def test_fp8_experts_round_like_float8_tiles(tmp_path: Path) -> None:
    model = tiny_backbone().to(torch.bfloat16)
    files = save_backbone(model, tmp_path, fp8_experts=True)
    stored = load_file(files[0])
    name = "model.layers.1.mlp.experts.0.gate_proj.weight"
    assert stored[name].dtype == torch.float8_e4m3fn
    assert stored[name + "_scale_inv"].shape == (1, 1)
    assert stored["model.layers.1.mlp.shared_experts.gate_proj.weight"].dtype == torch.bfloat16
    assert BackboneConfig.read(tmp_path / "config.json").use_fp8_experts
    read = load_backbone(tmp_path)
    before, after = model.model.layers[1].mlp.experts.gate_proj, read.model.layers[1].mlp.experts.gate_proj
    assert after.dtype == torch.bfloat16
    assert not torch.equal(before, after)
    error = ((after - before).float().norm() / before.float().norm()).item()
    assert error < 0.05
    assert torch.equal(read.lm_head.weight, model.lm_head.weight)


def test_fp8_factors_apply_tile_by_tile() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(200, 300, generator=generator)
    weight[:128, 128:256] *= 1000
    quantised, factors = quantise_fp8(weight)
    assert factors.shape == (2, 3)
    largest = weight[:128, :128].abs().max()
    torch.testing.assert_close(factors[0, 0], largest / 448)
    error = (expand_fp8(quantised, factors) - weight).abs()
    # e4m3 has three mantissa bits: half a step is 1/16 of a number (below the smallest normal, of that
    # instead).
    normal = factors.repeat_interleave(128, 0).repeat_interleave(128, 1)[:200, :300] * 2**-6
    assert (error <= torch.maximum(weight.abs(), normal) / 16 * 1.001).all()


def broken(folder: Path, change: object) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, file)


def test_every_tensor_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    save_backbone(tiny_backbone(), tmp_path)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
        tensors["model.norm.weight"] = torch.zeros(63)
        tensors["model.layers.9.mlp.gate.weight"] = torch.zeros(8, 64)
        tensors["lm_head.weight"] = torch.zeros(512, 64, dtype=torch.int8)

    broken(tmp_path, change)
    with pytest.raises(CheckpointError) as error:
        load_backbone(tmp_path)
    assert str(error.value).splitlines() == [
        f"{tmp_path} does not fit the model:",
        "  tensor 'lm_head.weight' has type I8; readable are BF16, F16, F32, F8_E4M3",
        "  missing tensor 'model.layers.1.mlp.experts.3.up_proj.weight' of shape [32, 64]",
        "  unexpected tensor 'model.layers.9.mlp.gate.weight' of shape [8, 64]",
        "  tensor 'model.norm.weight' has shape [63], the model needs [64]",
    ]


def test_a_merged_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    save_backbone(tiny_backbone(), tmp_path, layout="merged")
    broken(tmp_path, lambda t: t.update({"model.layers.2.mlp.experts.up_proj": torch.zeros(7, 32, 64)}))
    message = "tensor 'model.layers.2.mlp.experts.up_proj' has shape [7, 32, 64], the model needs [8, 32, 64]"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_backbone(tmp_path)


def test_fp8_without_its_factors_is_named(tmp_path: Path) -> None:
    save_backbone(tiny_backbone(), tmp_path, fp8_experts=True)
    name = "model.layers.1.mlp.experts.5.down_proj.weight"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name + "_scale_inv"]
        tensors["model.layers.1.mlp.experts.6.down_proj.weight_scale_inv"] = torch.ones(2, 1)

    broken(tmp_path, change)
    with pytest.raises(CheckpointError) as error:
        load_backbone(tmp_path)
    assert str(error.value).splitlines()[1:] == [
        f"  FP8 tensor '{name}' has no factors '{name}_scale_inv' of shape [1, 1]",
        "  FP8 factors 'model.layers.1.mlp.experts.6.down_proj.weight_scale_inv' have shape [2, 1], [1, 1] are needed",
    ]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    (file,) = save_backbone(tiny_backbone(), tmp_path)
    data = file.read_bytes()
    for length in (len(data) - 100, 1000, 4, 0):
        file.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=rf"{re.escape(str(file))}: truncated or damaged .*; fetch it again"):
            load_backbone(tmp_path)


def test_nothing_is_allocated_for_a_checkpoint_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backbone(tiny_backbone(), tmp_path)
    broken(tmp_path, lambda t: t.pop("model.norm.weight"))
    monkeypatch.setattr(Backbone, "to_empty", lambda *_, **__: pytest.fail("allocated"))
    with pytest.raises(CheckpointError, match=r"missing tensor 'model\.norm\.weight' of shape \[64\]"):
        load_backbone(tmp_path)


def test_index_and_files_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.checkpoint.SMALL_BYTES", 1 << 14)
    files = save_backbone(tiny_backbone(), tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    left_out = "model.layers.1.mlp.gate.weight"
    moved = content["weight_map"].pop(left_out)
    content["weight_map"]["model.norm.weight"] = files[0].name
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as error:
        stored_tensors(tmp_path)
    assert str(error.value).splitlines()[1:] == [
        f"  the index places tensor 'model.norm.weight' in {files[0].name}, which does not hold it",
        f"  tensor '{left_out}' is in {moved} but not in the index",
    ]
    files[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{files[1].name}: no such file"):
        stored_tensors(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match=r"index\.json: no weight_map in it"):
        stored_tensors(tmp_path)


def test_a_folder_must_hold_one_set_of_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no safetensors file and no index"):
        stored_tensors(tmp_path)
    for name in ("a", "b"):
        save_file({name: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        CheckpointError, match=r"2 safetensors files \(a\.safetensors, b\.safetensors\) without an index"
    ):
        stored_tensors(tmp_path)
    assert set(stored_tensors(tmp_path, preferred=("missing.safetensors", "b.safetensors"))) == {"b"}


def test_weights_are_not_mixed_with_others_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_backbone(tiny_backbone(), tmp_path)
    save_backbone(tiny_backbone(1), tmp_path)
    monkeypatch.setattr("model.checkpoint.SMALL_BYTES", 1 << 14)
    with pytest.raises(CheckpointError, match=r"already holds other weights \(model\.safetensors\); save elsewhere"):
        save_backbone(tiny_backbone(), tmp_path)


def test_the_selection_bias_stays_in_full_precision() -> None:
    model = tiny_backbone()
    before = model.routers()[0].expert_bias.clone()
    model.to(torch.bfloat16)
    assert torch.equal(model.routers()[0].expert_bias, before)


# VmHWM and not ru_maxrss: the latter starts at what the parent had when it forked.
MEASURE = """
import sys
from pathlib import Path
import safetensors.torch
from model.backbone import Backbone
from model.checkpoint import load_backbone, save_backbone
from model.configs import BackboneConfig

def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024

folder, mode = Path(sys.argv[1]), sys.argv[2]
if mode == "save":
    model = Backbone(BackboneConfig.read(folder / "config.json"))
    [p.data.fill_(1) for p in model.parameters()]
    start = peak()
    save_backbone(model, folder / "saved")
else:
    start = peak()
    model = load_backbone(folder / "saved")
size = sum(t.nbytes for t in model.state_dict().values())
print((peak() - start) / size + (mode == "save"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_and_saving_peak_below_one_and_a_third_of_the_model(tmp_path: Path) -> None:
    """Peak resident memory, mapped file pages included, of a 200 MB model in a process of its own."""
    config = BackboneConfig.tiny().model_copy(
        update={"hidden_size": 512, "moe_intermediate_size": 256, "num_experts": 64, "n_group": 4}
    )
    config.write(tmp_path / "config.json")
    for mode in ("save", "load"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path), mode],
            capture_output=True,
            text=True,
            cwd=parity.ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert 0.9 < float(done.stdout) < 1.3, f"{mode}: {done.stdout}"


@pytest.mark.golden
def test_the_reference_weights_load_in_every_form(tmp_path: Path) -> None:
    folder = parity.golden_folder("backbone")
    for source, name in (("config.json", "config.json"), ("weights.safetensors", "model.safetensors")):
        (tmp_path / name).symlink_to(folder / source)
    model = load_backbone(tmp_path)
    stored = parity.tensors(folder / "forward.safetensors")
    ids, positions, mask = (stored[k] for k in ("input_ids", "position_ids", "block_causal_mask"))
    parity.close("backbone/checkpoint.logits", model(ids, positions, mask).logits, stored["block_causal.logits"])
    for layout in ("separate", "merged"):
        save_backbone(model, tmp_path / layout, layout=layout)
        again = load_backbone(tmp_path / layout)
        parity.close(f"backbone/checkpoint.{layout}", again(ids, positions, mask).logits, stored["block_causal.logits"])
