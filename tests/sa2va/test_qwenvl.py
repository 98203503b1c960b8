"""Sa2VA on a Qwen-VL: sizes, positions and prompts, without a network; what it answers is in tests/parity."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLModel, Qwen3VLModel

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.configuration import parse_config, read_config
from sa2va_lab.sa2va.family import Sight
from sa2va_lab.sa2va.modeling import _add, _place
from sa2va_lab.sa2va.processing import PromptReader, phrase_prompt
from sa2va_lab.sa2va.qwenvl import FIRST, SECOND, fit

FAMILIES = ["qwen2_5_vl", "qwen3vl"]


@pytest.fixture
def folder(root, tmp_path):
    """config.json and what lies beside the weights, to be changed."""
    for file in (root / "tests/parity/qwen2_5_vl").glob("tokenizer/*"):
        shutil.copy(file, tmp_path)
    shutil.copy(root / "tests/parity/qwen2_5_vl/config.json", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("size", "side", "bounds", "fitted"),
    [
        ((600, 400), 28, FIRST, (588, 392)),
        ((588, 392), 28, SECOND, (784, 532)),  # as recorded for coffee: 56 x 38 patches
        ((200, 200), 28, SECOND, (644, 644)),  # 46 x 46
        ((1400, 1400), 32, SECOND, (1248, 1248)),
        ((14, 2000), 28, FIRST, (28, 1988)),  # 14 / 28 is rounded to nothing, which no side may be
        ((10_000, 10_000), 28, FIRST, (3556, 3556)),  # the libraries' roots round down as well
        ((1, 1), 28, FIRST, (56, 56)),
    ],
)
def test_sizes(size, side, bounds, fitted):
    assert fit(*size, side=side, bounds=bounds) == fitted
    assert fit(*size[::-1], side=side, bounds=bounds) == fitted[::-1]


def test_an_image_far_longer_than_broad():
    with pytest.raises(LabError, match="2010 x 10, more than 200 times as long as broad"):
        fit(2010, 10, side=28, bounds=FIRST)


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_are_cut_cell_by_cell(root, family):
    """An image that says its own coordinates, of a size that both resizes leave alone."""
    config = read_config_of(root, family)
    side = config.vision["patch_size"]
    levels = np.zeros((672, 896, 3), np.uint8)
    levels[..., 0], levels[..., 1] = np.arange(896) // side, np.arange(672)[:, None] // side
    patches, grid = config.family.pixels(Image.fromarray(levels), config)
    assert grid == (672 // side, 896 // side)
    values = patches.unflatten(1, (3, 2, side, side))
    assert torch.equal(values[:, :, 0], values[:, :, 1])
    mean, deviation = torch.tensor(config.family.mean), torch.tensor(config.family.deviation)
    across, down, _ = ((values.mean((2, 3, 4)) * deviation + mean) * 255).round().int().T.tolist()
    assert across[:8] == [0, 1, 0, 1, 2, 3, 2, 3]
    assert down[:8] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert (across[-1], down[-1]) == (grid[1] - 1, grid[0] - 1)


def read_config_of(root, family):
    return parse_config(json.loads((root / "tests/parity" / family / "config.json").read_text()))


@pytest.mark.parametrize("theirs", [Qwen2_5_VLModel, Qwen3VLModel])
@pytest.mark.parametrize("grids", [[(3, 5)], [(5, 3)], [(3, 5), (4, 2), (5, 3)]])
def test_positions_are_those_of_transformers(theirs, grids):
    start, after = 4, 6
    sizes = SimpleNamespace(spatial_merge_size=2, tokens_per_second=2)
    model = SimpleNamespace(
        config=SimpleNamespace(vision_config=sizes),
        get_vision_position_ids=lambda *given, **named: theirs.get_vision_position_ids(None, *given, **named),
    )
    kinds, images = [], []
    for grid in grids:
        images.append((Sight(torch.zeros(grid[0] * grid[1], 1), grid), len(kinds) + start))
        kinds += [0] * start + [1] * (grid[0] * grid[1])
    kinds = torch.tensor([kinds + [0] * after])
    shape = torch.tensor([[1, 2 * grid[0], 2 * grid[1]] for grid in grids])
    expected, _ = theirs.get_rope_index(model, torch.zeros_like(kinds), kinds, image_grid_thw=shape)
    assert torch.equal(_place(images, torch.arange(kinds.shape[1])), expected)
    late = torch.arange(start + 2, kinds.shape[1])  # as after a cache that has read some of the image
    assert torch.equal(_place(images, late), expected[..., start + 2 :])
    assert _place([(Sight(sight.tokens), begin) for sight, begin in images], late) is None


def test_what_lower_layers_saw_is_added_in_its_place():
    more = torch.arange(1.0, 4.0)[:, None]
    for begin, wanted in {1: [0, 1, 2, 3, 0], 3: [0, 0, 0, 1, 2], -2: [3, 0, 0, 0, 0], -3: [0] * 5, 5: [0] * 5}.items():
        out = torch.zeros(1, 5, 1)
        _add(more, begin, None, (), out)
        assert out.flatten().tolist() == wanted


def read(folder):
    return PromptReader(folder, read_config(folder)).prompt_ids("Look <image>\nhere.", 3)


def test_the_folders_own_template_is_obeyed(folder, root):
    given = PromptReader(folder, read_config(folder))
    text = given.tokenizer.decode(read(folder).all)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        "<|image_pad|><|image_pad|><|vision_end|>Look \nhere.<|im_end|>\n<|im_start|>assistant\n"
    )
    shutil.copy(root / "tests/parity/qwen3vl/tokenizer/chat_template.jinja", folder)
    assert text.endswith(given.tokenizer.decode(read(folder).all))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))  # as processors once wrote it
    assert text.endswith(given.tokenizer.decode(read(folder).all))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception('no') }}",
        "{% for %}",
        "no image",
        "<|image_pad|><|image_pad|>{{ messages[0].content[1].text }}",
        "<|image_pad|> and no question",
        None,
    ],
)
def test_templates_that_are_none(folder, template):
    (folder / "chat_template.jinja").unlink()
    if template:
        (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(LabError, match="chat template .*: copy it again"):
        read(folder)


def test_a_prompt_may_not_say_the_networks_own_words():
    with pytest.raises(LabError, match=r"<\|image_pad\|>"):
        phrase_prompt("Please find <|image_pad|>.")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("vision_config", "depth", 10**6),
        ("vision_config", "out_hidden_size", 64),
        ("vision_config", "patch_size", 0),
        ("vision_config", "spatial_merge_size", "x"),
        ("text_config", "num_attention_heads", 3),
        ("text_config", "hidden_size", None),
    ],
)
def test_sizes_that_make_no_network(root, family, section, key, value):
    raw = json.loads((root / "tests/parity" / family / "config.json").read_text())
    raw[section][key] = value
    with pytest.raises(LabError, match=f"no sensible sizes in {section}"):
        parse_config(raw)
