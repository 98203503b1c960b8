"""The network's own parts against transformers'."""

import torch
from transformers import Sam2VideoModel

import sa2va_lab
from sa2va_lab.sa2va.modeling import HieraAttention


def test_hiera_attention_sees_what_transformers_sees(tiny_folder):
    ours = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu").model
    theirs = Sam2VideoModel(ours.config.sam2_config()).eval()
    seeing = {n: t for n, t in ours.grounding_encoder.state_dict().items() if not n.startswith("memory_attention")}
    assert not theirs.load_state_dict(seeing, strict=False).unexpected_keys
    kinds = [type(module) for module in ours.grounding_encoder.modules()]
    assert kinds.count(HieraAttention) == sum(ours.config.sam2_config().vision_config.backbone_config.blocks_per_stage)
    assert not any(isinstance(module, HieraAttention) for module in theirs.modules())
    canvas = torch.randn(1, 3, ours.config.canvas, ours.config.canvas, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen = theirs.get_image_features(canvas, return_dict=True).fpn_hidden_states
        made = ours.encode_canvas(canvas)
    for map_, flat in zip((*made.fine, made.image), seen, strict=True):
        assert torch.equal(map_.flatten(), flat.permute(1, 2, 0).flatten())


def test_a_memory_is_read_with_as_many_channels_as_it_has(tiny_folder):
    model = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu").model
    channels = model.config.sam2_config().memory_encoder_output_channels
    assert channels == 16
    for layer in model.grounding_encoder.memory_attention.layers:
        recall = layer.cross_attn_image
        assert recall.k_proj.in_features == recall.v_proj.in_features == recall.kv_in_dim == channels
