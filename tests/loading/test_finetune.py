"""A fine-tune is laid over its base exactly, or refused by name; and nothing in a .pth ever runs."""

import contextlib
import pickle
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.finetune import read_finetune, tell_other_base
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.pickles import read_pth
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.parts import name_officially
from sa2va_lab.training.config import read_config
from tools.demo.xtuner import TrainingLog, write_checkpoint

Q_PROJ = "language_model.model.layers.1.self_attn.q_proj.weight"
LAYER = "mllm.model.language_model.base_model.model.model.layers.1"


@pytest.mark.parametrize(
    ("theirs", "official"),
    [
        ("mllm.model.language_model.base_model.model.model.embed_tokens", "language_model.model.embed_tokens"),
        ("mllm.model.language_model.base_model.model.lm_head", "language_model.lm_head"),
        ("mllm.model.language_model.model.norm.weight", "language_model.model.norm.weight"),
        ("mllm.model.mlp1.3.weight", "mlp1.3.weight"),
        ("text_hidden_fcs.0.bias", "text_hidden_fcs.0.bias"),
        (  # Qwen-VL: the adapter is around the whole
            "mllm.model.base_model.model.model.language_model.layers.1.mlp.up_proj",
            "model.model.language_model.layers.1.mlp.up_proj",
        ),
        ("mllm.model.base_model.model.lm_head", "model.lm_head"),
        ("mllm.model.model.visual.merger.mlp.0.weight", "model.model.visual.merger.mlp.0.weight"),
        ("mllm.model.visual.merger.mlp.0.weight", "model.model.visual.merger.mlp.0.weight"),
        ("mllm.model.model.layers.1.mlp.up_proj.weight", "model.model.language_model.layers.1.mlp.up_proj.weight"),
        (
            "grounding_encoder.sam2_model.memory_encoder.fuser.layers.0.gamma",
            "grounding_encoder.sam2_model.memory_encoder.fuser.layers.0.g_weight",
        ),
    ],
)
def test_names(theirs, official):
    assert name_officially([theirs])(theirs) == official


def test_merged_is_base_plus_scale_times_b_a(tiny_folder, pth, trained):
    base, merged = Checkpoint(tiny_folder), open_whole(tiny_folder, finetune=pth, lora_alpha=6)
    assert (merged.tuned.rank, merged.scale) == (2, 3.0)
    a, b = (trained[f"{LAYER}.self_attn.q_proj.lora_{half}.default.weight"].double() for half in "AB")
    expected = base.tensor(Q_PROJ).double() + 3.0 * b @ a
    torch.testing.assert_close(merged.tensor(Q_PROJ).double(), expected, atol=1e-5, rtol=0)
    assert torch.equal(merged.tensor("mlp1.0.bias"), trained["mllm.model.mlp1.0.bias"])
    untouched = "language_model.model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(merged.tensor(untouched), base.tensor(untouched))
    assert merged.names() == base.names()


def test_load_with_a_fine_tune(tiny_folder, pth, trained):
    plain = sa2va_lab.load(tiny_folder, precision="fp32")
    tuned = sa2va_lab.load(tiny_folder, finetune=pth, lora_alpha=4, precision="fp32")
    assert torch.equal(tuned.model.mlp1[0].bias, trained["mllm.model.mlp1.0.bias"])
    head = trained["mllm.model.language_model.base_model.model.lm_head.modules_to_save.default.weight"]
    assert torch.equal(tuned.model.language_model.lm_head.weight, head)
    said = tuned.provenance
    assert said["weights_sha256"] != plain.provenance["weights_sha256"]
    assert (said["finetune"]["file"], said["finetune"]["rank"], said["finetune"]["scale"]) == ("iter_24.pth", 2, 2.0)
    assert plain.provenance["finetune"] is None


def test_a_scale_is_never_guessed(tiny_folder, pth):
    with pytest.raises(LabError, match=r"rank 2.*--lora-alpha"):
        open_whole(tiny_folder, finetune=pth, lora_alpha=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text_hidden_fcs.2.bias": torch.zeros(5)}, r"is \(5,\) in .* and \(96,\)"),
        ({"mllm.model.mlp9.weight": torch.zeros(5)}, r"no place in .*mlp9"),
        ({f"{LAYER}.self_attn.q_proj.lora_A.default.weight": torch.zeros(2, 99)}, r"\(128, 99\)"),
        ({f"{LAYER}.self_attn.k_proj.lora_A.default.weight": torch.zeros(2, 128)}, "half of the LoRA pair"),
        ({f"{LAYER}.mlp.down_proj.lora_A.default.weight": torch.zeros(3, 320)}, "mixes LoRA ranks"),
    ],
)
def test_what_does_not_fit_is_named(tiny_folder, trained, tmp_path, change, said):
    torch.save({"state_dict": {**trained, **change}}, tmp_path / "other.pth")
    with pytest.raises(LabError, match=said):
        open_whole(tiny_folder, finetune=tmp_path / "other.pth", lora_alpha=4)


def other_config(path, base, weights):
    text = f"model = dict(mllm=dict(model_path={base!r}), pretrained_pth={weights!r})\ntrain_dataloader = dict()\n"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("base", "weights", "given", "raw", "said"),
    [
        ("OpenGVLab/InternVL3-8B", "pretrained/Sa2VA-4B.pth", "models/sa2va_4b", {}, ""),
        ("pretrained/InternVL3-8B", None, "InternVL3-8B", {}, ""),
        ("OpenGVLab/InternVL3-8B", None, "cache/models--OpenGVLab--InternVL3-8B/snapshots/0a1b", {}, ""),
        ("InternVL3-8B", None, "mine", {"_name_or_path": "OpenGVLab/InternVL3_8B"}, ""),
        ("C:\\models\\InternVL3-8B\\", None, "internvl3-8b", {}, ""),
        (None, None, "mine", {}, ""),
        ("InternVL2_5-4B", "Sa2VA-OTHER-v2.pth", "base", {}, "names Sa2VA-OTHER-v2.pth as its base, and the one given"),
        ("InternVL2_5-4B", None, "InternVL3-8B", {}, "names InternVL2_5-4B as its base"),
    ],
)
def test_a_config_that_names_another_base_is_said(tmp_path, base, weights, given, raw, said):
    training = read_config(other_config(tmp_path / "config.py", base, weights))
    told = tell_other_base(training, tmp_path / given, raw, bare=False)
    assert said in told
    assert bool(told) == bool(said)
    assert tell_other_base(None, tmp_path / given, raw, bare=False) == ""


def test_another_base_is_said_by_inspect_and_in_the_record(tiny_folder, pth, tmp_path):
    config = other_config(tmp_path / "config.py", "InternVL2_5-OTHER", None)
    told = {"finetune": pth, "config": config, "lora_alpha": 8}
    assert "names InternVL2_5-OTHER as its base" in read_inventory(tiny_folder, **told).to_lines()[-2]
    assert "names InternVL2_5-OTHER as its base" in Checkpoint(tiny_folder, **told).describe_finetune()["note"]


def test_mmengines_own_classes_open_without_mmengine(trained, tmp_path):
    log = TrainingLog(tmp_path, name="run", iterations=20)
    for i in range(1, 21):
        log.note(i, lr=1e-4, seconds=0.1, data_seconds=0.01, losses={"loss": 1 / i, "llm_loss": 1 / i})
    path = write_checkpoint(tmp_path / "iter_20.pth", trained=trained, log=log, config="", iteration=20, epoch=1)
    assert b"mmengine.logging.history_buffer" in path.read_bytes()
    assert set(read_finetune(path).whole) == {"language_model.lm_head.weight", "mlp1.0.bias", "text_hidden_fcs.2.bias"}


class Runs:
    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return (open, (str(self.trap), "w"))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_wants_to_run_code_is_refused_unrun(trained, tmp_path, form):
    path, trap = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"state_dict": dict(trained), "meta": Runs(trap)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"meta": Runs(trap)}))
    with pytest.raises(LabError) as refused:
        read_finetune(path)
    assert not trap.exists()
    if form == "torch":
        assert "open" in str(refused.value)
        assert "nothing ran" in str(refused.value)


@settings(max_examples=40)
@given(st.data())
def test_damaged_files_are_sentences(trained, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save({"state_dict": {"text_hidden_fcs.2.bias": trained["text_hidden_fcs.2.bias"]}}, path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with contextlib.suppress(LabError):
        read_finetune(path)


@pytest.mark.parametrize("content", [{}, [], {"state_dict": {}}, 3, {"state_dict": {"a": 1}}])
def test_no_tensors(tmp_path, content):
    torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(LabError, match="no tensors"):
        read_finetune(tmp_path / "empty.pth")


def test_no_file(tmp_path):
    with pytest.raises(LabError, match="No fine-tune at"):
        read_finetune(tmp_path / "iter_1.pth")


def test_a_bare_internvl_is_no_base(tiny_folder, pth, tmp_path):
    whole = Checkpoint(tiny_folder)
    save_file({n: whole.tensor(n) for n in whole.names() if not n.startswith("g")}, tmp_path / "model.safetensors")
    shutil.copy(tiny_folder / "config.json", tmp_path)
    with pytest.raises(LabError, match=r"has no SAM2.*complete Sa2VA folder"):
        open_whole(tmp_path, finetune=pth, lora_alpha=4)


def test_tensors_are_those_that_torch_reads(tmp_path):
    """Views, turned and empty ones, numbers of every kind: as torch.load gives them, and views of the file."""
    table = torch.arange(12.0).view(3, 4)
    state = {"turned": table.t(), "corner": table[1:, 2:], "empty": torch.zeros(2, 0, 3), "one": torch.tensor(3.0)}
    state |= {"learnt": torch.nn.Parameter(table.half()), "brief": table.bfloat16(), "flags": table > 5}
    state |= {"eighth": table.to(torch.float8_e5m2), "counts": table.to(torch.uint16)}
    torch.save(state, tmp_path / "all.pth")
    content, _ = read_pth(tmp_path / "all.pth")
    for name, wanted in torch.load(tmp_path / "all.pth").items():
        found = content[name].read()
        assert (content[name].shape, found.dtype, found.stride()) == (wanted.shape, wanted.dtype, wanted.stride())
        assert torch.equal(found.float(), wanted.float()), name


def test_weights_are_numbers_with_a_fraction(tiny_folder, trained, tmp_path):
    state = {**trained, "text_hidden_fcs.2.bias": torch.zeros(96, dtype=torch.int64)}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(LabError, match=r"text_hidden_fcs\.2\.bias in .* is stored as int64"):
        open_whole(tiny_folder, finetune=tmp_path / "x.pth", lora_alpha=4)
