"""What is in a checkpoint is said from headers alone, exactly; and no file can make the reader run, hang or swell."""

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.pickles import read_pth
from sa2va_lab.loading.tensors import Shard
from sa2va_lab.sa2va.parts import layer_of, name_officially, part_of

EMBEDDINGS = 2 * 151_679 * 3_584


def test_the_real_folder(real_folder):
    found = read_inventory(real_folder)
    assert (found.parameters, found.bytes, len(found.tensors)) == (8_182_606_130, 32_122_400_968, 1589)
    assert (found.kind, found.family, found.complete) == ("sa2va", "internvl", True)
    assert found.part("vision").dtypes == {"bf16": found.part("vision").tensors}
    assert found.part("vision").bytes == 2 * found.part("vision").parameters
    assert found.part("other").tensors == 0
    assert found.part("embed_tokens").parameters + found.part("lm_head").parameters == EMBEDDINGS
    assert found.language == "Qwen2ForCausalLM of 28 layers, width 3584, vocabulary 151,679"
    assert {layer_of(name) for name in found.tensors} == {None, *range(28)}


def test_the_real_finetune(real_finetune):
    found = read_inventory(real_finetune, lora_alpha=128)
    language_side = ("projector", "language", "embed_tokens", "lm_head", "lora")
    assert sum(found.part(name).parameters for name in language_side) == 1_276_256_256
    assert found.duplicates == {"parameters": EMBEDDINGS, "bytes": 2 * EMBEDDINGS}
    assert (found.lora["rank"], found.lora["alpha"], found.lora["scale"], found.lora["tensors"]) == (64, 128, 2.0, 392)
    assert found.lora["targets"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert not found.complete
    base, sam2 = (str(missing) for missing in found.missing[:2])
    assert "InternVL3-8B" in base
    assert "vision, language:" in base
    assert "sam2_encoder" in sam2
    assert "SAM2" in sam2
    assert read_inventory(real_finetune).lora["alpha"] is None


def test_both_together(real_folder, real_finetune):
    found = read_inventory(real_folder, finetune=real_finetune, lora_alpha=128)
    assert found.complete
    assert found.parameters == 8_182_606_130
    assert found.part("language").origin == ("Sa2VA-InternVL3-8B", "iter_12192.pth")
    assert found.part("sam2_encoder").origin == ("Sa2VA-InternVL3-8B",)
    said = [str(missing) for missing in read_inventory(real_folder, finetune=real_finetune).missing]
    assert said == ["LoRA's alpha: the training config (--config), or --lora-alpha"]


def test_torch_is_not_needed(real_folder):
    code = (
        "import sys, sa2va_lab; i = sa2va_lab.inspect(sys.argv[1]); "
        "assert 'torch' not in sys.modules; assert i.parameters == 8_182_606_130; "
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(real_folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300 << 10  # KiB


def test_the_demo(root):
    (tuned,) = (root / "data/demo").glob("iter_*.pth")
    base = read_inventory(root / "data/demo/base")
    assert base.complete
    found = read_inventory(tuned)
    assert (found.kind, found.complete, found.lora["scale"]) == ("finetune", False, 2.0)  # alpha from the .pth itself
    both = read_inventory(base.path, finetune=tuned)
    assert (both.complete, both.parameters) == (True, base.parameters)


def test_counts_are_those_of_the_tensors(tiny_folder, pth, trained):
    folder, found = Checkpoint(tiny_folder), read_inventory(tiny_folder)
    assert {name: header.shape for name, header in found.tensors.items()} == {
        n: folder.shape(n) for n in folder.names()
    }
    assert found.bytes == sum(folder.tensor(name).nbytes for name in folder.names())
    tuned = read_inventory(pth)
    assert tuned.bytes == sum(t.nbytes for name, t in trained.items() if "original_module" not in name)
    assert tuned.lora["rank"] == 2


def test_json(tiny_folder):
    said = json.loads(json.dumps(read_inventory(tiny_folder, content=True).to_dict()))
    wanted = {"family", "parameters", "bytes", "parts", "lora", "duplicates", "complete", "missing", "sha256"}
    assert wanted <= set(said)
    assert {"name", "tensors", "parameters", "bytes", "dtypes"} <= set(said["parts"][0])
    assert sum(part["parameters"] for part in said["parts"]) == said["parameters"]
    assert len(said["sha256"]["content"]) == 64


def test_command(tiny_folder, pth, capsys, monkeypatch):
    from sa2va_lab import cli

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["sa2va-lab", "inspect", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, capsys.readouterr()

    code, said = call(tiny_folder, "--json")
    assert code == 0
    assert json.loads(said.out)["complete"] is True
    code, said = call(tiny_folder, pth, "--lora-alpha", 4)
    assert code == 0
    assert said.out.count("sha256 of headers") == 3  # each, and both together
    assert "scale 2" in said.out
    code, said = call(tiny_folder / "nothing")
    assert code == 2
    assert "Traceback" not in said.err


GAPS = {
    "language_model.model.layers.1.mlp.up_proj.weight": "language layer 1: mlp.up_proj.weight",
    "text_hidden_fcs.": "seg_projection",
    "vision_model.": "vision",
    "grounding_encoder.sam2_model.memory_encoder.out_proj": "memory_encoder.out_proj",
}


@pytest.mark.parametrize("gap", GAPS)
def test_what_is_missing_is_named(standins, real_shapes, tmp_path, gap):
    kept = {name: shape for name, shape in real_shapes.items() if not name.startswith(gap)}
    found = read_inventory(standins.folder(tmp_path / "model", kept))
    assert not found.complete
    said = " ".join(map(str, found.missing))
    assert GAPS[gap] in said


def test_a_missing_shard_and_a_foreign_one(real_folder, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for path in real_folder.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "model-00003-of-00004.safetensors").unlink()
    assert "model-00003-of-00004.safetensors" in str(read_inventory(copy).missing[0])
    (copy / "model.safetensors.index.json").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(LabError, match="outside its own folder"):
        read_inventory(copy)


def test_qwen_vl_is_told_apart(standins, shared, tmp_path):
    shapes = json.loads((shared / "parity/qwen3vl/manifest.json").read_text())
    standins.sparse(tmp_path / "model.safetensors", {name: (tuple(shape), "fp32") for name, shape in shapes.items()})
    found = read_inventory(tmp_path)
    assert (found.family, found.kind) == ("qwen-vl", "sa2va")
    assert found.part("other").tensors == 0
    assert {str(missing) for missing in found.missing} == {
        "config.json: the folder that the weights come from",
        "tokenizer: the folder that the weights come from",
        "the image processor's settings: the folder that the weights come from",
    }


@pytest.mark.parametrize(
    ("theirs", "part"),
    [
        ("mllm.model.language_model.base_model.model.lm_head", "lm_head"),
        ("mllm.model.mlp1.3.weight", "projector"),
        ("image_encoder.trunk.pos_embed", "sam2_encoder"),
        ("grounding_encoder.sam2_model.no_mem_embed", "sam2_memory"),
        ("surprise.weight", "other"),
    ],
)
def test_parts(theirs, part):
    assert part_of(name_officially([theirs])(theirs) + ("." if theirs.endswith("lm_head") else "")) == part


HEADERS = {
    "100 GB of header": (100 << 30, b"{}"),
    "a header beyond the file": (1 << 20, b"{}"),
    "no JSON": (None, b"{{{{"),
    "deep JSON": (None, b"[" * 100_000),
    "a list": (None, b"[]"),
    "negative shape": (None, b'{"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}'),
    "absurd shape": (None, b'{"a": {"dtype": "F32", "shape": [99999999999, 99999999999], "data_offsets": [0, 8]}}'),
    "fractional shape": (None, b'{"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}'),
    "unknown dtype": (None, b'{"a": {"dtype": "F1", "shape": [2], "data_offsets": [0, 8]}}'),
    "overlap": (None, b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},'
                      b' "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}'),
    "more data than tensors": (None, b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'),
}  # fmt: skip


@pytest.mark.parametrize("what", HEADERS)
def test_absurd_headers_are_sentences(tmp_path, what):
    length, raw = HEADERS[what]
    (tmp_path / "model.safetensors").write_bytes((length or len(raw)).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(LabError, match="damaged or cut short"):
        read_inventory(tmp_path)


class Evil:
    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return (open, (str(self.trap), "w"))


def rewrite(source, target, *, pickled=None, compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, pickled if pickled and entry.filename.endswith("data.pkl") else data)
    return target


def test_code_in_a_pickle_is_refused_by_name_unrun(pth, tmp_path):
    trap = tmp_path / "ran"
    evil = rewrite(pth, tmp_path / "evil.pth", pickled=pickle.dumps({"state_dict": Evil(trap)}, protocol=2))
    with pytest.raises(LabError, match=r"asks to run (io|_io)\.open.*nothing ran"):
        read_inventory(evil)
    assert not trap.exists()


def test_bombs_are_refused_unopened(pth, tmp_path):
    with pytest.raises(LabError, match="compressed data"):
        read_inventory(rewrite(pth, tmp_path / "bomb.pth", compress=zipfile.ZIP_DEFLATED))
    huge_memo = rewrite(pth, tmp_path / "memo.pth", pickled=b"\x80\x02]r\xff\xff\xff\x7f.")
    assert read_pth(huge_memo)[0] == []  # a dict's key, not an array of two thousand million places
    for raw in (b"\x96" + b"\xff" * 7 + b"\x00", b"\x8e" + b"\xff" * 7 + b"\x00"):
        with pytest.raises(LabError, match="damaged"):
            read_pth(rewrite(pth, tmp_path / "memo.pth", pickled=b"\x80\x02]" + raw + b"."))


def test_a_tensor_larger_than_its_data_is_refused(tmp_path):
    torch.save({"a.weight": torch.zeros(1).expand(10**9)}, tmp_path / "wide.pth")
    with pytest.raises(LabError, match="in 4 bytes of data"):
        read_inventory(tmp_path / "wide.pth")


def test_the_form_before_torch_1_6_is_refused(trained, tmp_path):
    torch.save({"state_dict": dict(trained)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(LabError, match=r"is no zip file, as torch has written since 1\.6"):
        read_inventory(tmp_path / "old.pth")


@settings(max_examples=120)
@given(st.data())
def test_damaged_files_are_sentences(standins, trained, tmp_path_factory, data):
    """Cut short or with bits turned, a file is read or refused in one sentence; nothing else."""
    kind = data.draw(st.sampled_from(["safetensors", "pth"]))
    path = tmp_path_factory.getbasetemp() / f"flipped.{kind}"
    if kind == "pth":
        torch.save({"state_dict": {"text_hidden_fcs.2.bias": trained["text_hidden_fcs.2.bias"]}}, path)
    else:
        standins.sparse(path, {"mlp1.0.weight": ((4, 3), "fp32"), "mlp1.1.bias": ((5,), "bf16")})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with contextlib.suppress(LabError):
        Shard(path, origin="x") if kind == "safetensors" else read_pth(path)


def test_a_work_folder_points_at_its_fine_tune(pth, tmp_path):
    shutil.copy(pth, tmp_path / "iter_9.pth")
    with pytest.raises(LabError, match=r"give the fine-tune in it, .*iter_24\.pth"):
        read_inventory(tmp_path)


def test_a_folder_is_no_fine_tune(tiny_folder):
    with pytest.raises(LabError, match="is a checkpoint folder"):
        Checkpoint(tiny_folder, finetune=tiny_folder)
