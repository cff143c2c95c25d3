from __future__ import annotations

from pathlib import Path

import torch

from pipeline.scorers.internvl import InternVLChatConfig, load_internvl, prompt
from pipeline.scorers.released import transformers
from tests.pipeline.scorers.releases import INTERNVL_CONFIG, internvl_logits, write_internvl

PICTURE = 300
IDS = [5, 9, PICTURE, PICTURE, PICTURE, PICTURE, 17, 40, 80]


def pixels(seed: int) -> torch.Tensor:
    return torch.randn((1, 3, 28, 28), generator=torch.Generator().manual_seed(seed))


def test_a_forward_equals_the_released_vision_code_and_transformers_qwen(tmp_path: Path) -> None:
    tensors = write_internvl(tmp_path)
    network = load_internvl(tmp_path, PICTURE, "cpu", torch.float32)
    for seed in range(3):
        expected = internvl_logits(tensors, pixels(seed), IDS, PICTURE)
        with torch.inference_mode():
            found = network(input_ids=torch.tensor([IDS]), pixel_values=pixels(seed), logits_to_keep=1).logits[0, -1]
        assert expected.std() > 1
        torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-5)


def test_loading_equals_what_transformers_builds_and_fills_itself(tmp_path: Path) -> None:
    write_internvl(tmp_path)
    network = load_internvl(tmp_path, PICTURE, "cpu", torch.float32)
    # Built with storage, so that its buffers are transformers' own.
    plain = transformers().InternVLForConditionalGeneration(network.config).eval()
    plain.load_state_dict(network.state_dict(), strict=True)
    given = {"input_ids": torch.tensor([IDS]), "pixel_values": pixels(4)}
    with torch.inference_mode():
        assert torch.equal(network(**given).logits, plain(**given).logits)


def test_the_prompt_is_the_released_conversation() -> None:
    config = InternVLChatConfig.model_validate(INTERNVL_CONFIG)
    system = (
        "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
    )
    holes = "<IMG_CONTEXT>" * 4
    assert prompt(config, "How?") == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n<img>{holes}</img>\nHow?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    other = config.model_copy(update={"system_message": "Be brief."})
    assert prompt(other, "How?").startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert config.model_copy(update={"force_image_size": None}).picture_tokens == 4
