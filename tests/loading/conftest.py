from collections import OrderedDict

import pytest
import torch

from sa2va_lab.demo import tiny


@pytest.fixture(scope="session")
def trained():
    """What an xtuner fine-tune of rank 2 would hold: LoRA on one layer, a copied head, the projector's norm."""
    made = torch.Generator().manual_seed(5)

    def noise(*shape):
        return torch.randn(*shape, generator=made)

    layer = "mllm.model.language_model.base_model.model.model.layers.1"
    head = "mllm.model.language_model.base_model.model.lm_head"
    return OrderedDict(
        {
            f"{layer}.self_attn.q_proj.lora_A.default.weight": noise(2, tiny.WIDTH),
            f"{layer}.self_attn.q_proj.lora_B.default.weight": noise(tiny.WIDTH, 2),
            f"{layer}.mlp.down_proj.lora_A.default.weight": noise(2, 320),
            f"{layer}.mlp.down_proj.lora_B.default.weight": noise(tiny.WIDTH, 2),
            f"{head}.original_module.weight": noise(4, 4),
            f"{head}.modules_to_save.default.weight": noise(len(tiny.make_tokenizer()), tiny.WIDTH),
            "mllm.model.mlp1.0.bias": noise(384),
            "text_hidden_fcs.2.bias": noise(tiny.HIDDEN),
        }
    )


@pytest.fixture
def pth(trained, tmp_path):
    path = tmp_path / "iter_24.pth"
    torch.save({"state_dict": trained, "meta": {"iter": 24}}, path)
    return path
