import json
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tools.demo import tiny


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


# Files with the headers of the real 8 B model and no data: sparse, so that they cost no disk.
CODES = {"fp32": ("F32", 4), "bf16": ("BF16", 2)}


def write_sparse(path: Path, tensors: dict[str, tuple[tuple[int, ...], str]]) -> Path:
    """A safetensors file of {name: (shape, dtype)} whose data is a hole."""
    header, place = {}, 0
    for name, (shape, dtype) in tensors.items():
        code, size = CODES[dtype]
        end = place + size * torch.Size(shape).numel()
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [place, end]}
        place = end
    raw = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + place)
    return path


def write_real_folder(folder: Path, shapes: dict[str, list[int]], *, shards: int = 4) -> Path:
    """The released 8 B folder: vision bf16, the rest fp32, in shards with an index."""
    folder.mkdir()
    names, weight_map = list(shapes), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        mine = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        kinds = {n: (tuple(shapes[n]), "bf16" if n.startswith("vision_model") else "fp32") for n in mine}
        write_sparse(folder / file, kinds)
        weight_map |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    language = {"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 28, "hidden_size": 3584}
    language |= {"intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 151679}
    vision = {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    config = {"model_type": "sa2va_chat", "llm_config": language, "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_real_finetune(path: Path, shapes: dict[str, list[int]], *, rank: int = 64) -> Path:
    """The user's iter_*.pth: LoRA on 28 layers, two copied embeddings, projector, mask decoder, [SEG] projection."""
    language, made = "mllm.model.language_model.base_model.model.", {}
    for name, shape in shapes.items():
        if name.startswith("language_model.model.layers.") and name.endswith("_proj.weight"):
            module = language + name.removeprefix("language_model.").removesuffix(".weight")
            made[f"{module}.lora_A.default.weight"] = (rank, shape[1])
            made[f"{module}.lora_B.default.weight"] = (shape[0], rank)
        elif name.startswith("mlp1."):
            made[f"mllm.model.{name}"] = shape
        elif name.startswith(("text_hidden_fcs.", "grounding_encoder.sam2_model.sam_mask_decoder.")):
            made[name] = shape
    for module in ("model.embed_tokens", "lm_head"):
        made[f"{language}{module}.modules_to_save.default.weight"] = (151679, 3584)
    with FakeTensorMode():
        state = {name: torch.empty(*shape, dtype=torch.bfloat16) for name, shape in made.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"state_dict": state, "meta": {"iter": 12192}}, path)
    return path


@pytest.fixture(scope="session")
def standins():
    return SimpleNamespace(sparse=write_sparse, folder=write_real_folder, finetune=write_real_finetune)


@pytest.fixture(scope="session")
def real_shapes(root):
    return json.loads((root / "tests/parity/internvl3_8b_tensors.json").read_text())


@pytest.fixture(scope="session")
def real_folder(real_shapes, tmp_path_factory):
    return write_real_folder(tmp_path_factory.mktemp("real") / "Sa2VA-InternVL3-8B", real_shapes)


@pytest.fixture(scope="session")
def real_finetune(real_shapes, tmp_path_factory):
    return write_real_finetune(tmp_path_factory.mktemp("tuned") / "iter_12192.pth", real_shapes)
