"""A DeepSpeed folder is read as the .pth that the same training would have written; what cannot be is one sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.finetune import read_finetune
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.merge import merge
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.parts import name_officially

REAL = Path(__file__).parent / "deepspeed"
MODEL = "mp_rank_00_model_states.pt"


class Runs:
    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return (open, (str(self.trap), "w"))


def write_zero(folder: Path, trained: dict, *, ranks: int = 3, **extra) -> Path:
    """The layout that DeepSpeed 0.19.8 left in REAL, by hand: bf16 weights, float32 rows cut into a piece a rank."""
    folder.mkdir()
    groups = [{n: t for n, t in trained.items() if (t.ndim > 1) is matrix} for matrix in (True, False)]
    state = {"module": {n: t.bfloat16() for n, t in trained.items()}, "shared_params": {}, "ds_config": {"x": 1}}
    state["param_shapes"] = [{n: t.shape for n, t in group.items()} for group in groups]
    torch.save(state | {"meta": {"iter": 24}} | extra, folder / MODEL)
    rows = [torch.cat([t.flatten() for t in group.values()]) for group in groups]
    for rank in range(ranks):
        parts = [torch.nn.functional.pad(row, (0, -len(row) % (2 * ranks))).chunk(ranks)[rank].clone() for row in rows]
        own = {"single_partition_of_fp32_groups": parts, "partition_count": [ranks] * 2, "zero_stage": 2}
        torch.save({"optimizer_state_dict": own}, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return folder


@pytest.fixture
def zero(trained, tmp_path):
    return write_zero(tmp_path / "iter_24.ds", trained)


def test_deepspeeds_own_folder_gives_what_its_own_script_gives():
    expected = json.loads((REAL / "expected.json").read_text())
    official_name = name_officially(expected)
    wanted = {official_name(n): torch.tensor(v) for n, v in expected.items()}
    found, seen = read_finetune(REAL / "iter_3.pth"), read_inventory(REAL / "iter_3.pth")
    for name, tensor in found.whole.items():
        assert torch.equal(tensor.read().float(), wanted[name]), name
    ((module, pair),) = found.pairs.items()
    for half in "AB":
        name = f"{module.removesuffix('.weight')}.lora_{half}"
        assert torch.equal(pair[half].read(), wanted[f"{name}.default.weight"])
        assert seen.tensors[f"{name}.weight"].dtype == "fp32"
    assert (found.rank, seen.lora["rank"], seen.lora["alpha"]) == (2, 2, 6)
    assert found.note == seen.note == "DeepSpeed: the float32 numbers of its optimiser, from 3 ranks"
    assert {n: h.shape for n, h in seen.tensors.items() if "lora" not in n} == {
        n: t.shape for n, t in found.whole.items()
    }


def test_it_makes_the_same_model_as_the_file(tiny_folder, zero, pth, tmp_path):
    base = Checkpoint(tiny_folder)
    one, other = (open_whole(tiny_folder, finetune=path, lora_alpha=6) for path in (zero, pth))
    assert all(torch.equal(one.tensor(name), other.tensor(name)) for name in base.names())
    merge(tiny_folder, tmp_path / "out", finetune=zero, lora_alpha=6, precision="fp32")
    assert all(torch.equal(Checkpoint(tmp_path / "out").tensor(n), other.tensor(n)) for n in base.names())
    one, other = read_inventory(tiny_folder, finetune=zero), read_inventory(tiny_folder, finetune=pth)
    assert (one.parameters, one.bytes, one.lora) == (other.parameters, other.bytes, other.lora)
    assert "float32" in "\n".join(one.to_lines())


def test_without_the_optimiser_it_is_the_16_bits(tiny_folder, zero, trained):
    next(zero.glob("*rank_1*")).unlink()
    assert "2 of 3 ranks" in read_finetune(zero).note
    for file in zero.glob("*optim*"):
        file.unlink()
    tuned = sa2va_lab.load(tiny_folder, finetune=zero, lora_alpha=4, precision="fp32")
    assert torch.equal(tuned.model.mlp1[0].bias, trained["mllm.model.mlp1.0.bias"].bfloat16().float())
    assert "no optimiser file" in tuned.provenance["finetune"]["note"]
    assert read_inventory(zero).part("projector").dtypes == {"bf16": 1}


@pytest.mark.parametrize("read", [read_inventory, read_finetune])
def test_what_is_no_whole_checkpoint_is_a_sentence(tmp_path, trained, zero, read):
    (tmp_path / "iter_9.pth").mkdir()
    (tmp_path / "iter_9.pth/zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"")
    with pytest.raises(LabError, match=r"stage 3.*python zero_to_fp32\.py \. OUT --tag iter_9\.pth"):
        read(tmp_path / "iter_9.pth")
    trap = tmp_path / "ran"
    for name, extra, said in (
        ("evil", {"ds_config": Runs(trap)}, "asks to run .*nothing ran"),
        ("unknown", {"lr_scheduler": torch.optim.SGD([torch.zeros(1)])}, "asks to run torch.optim.sgd.SGD"),
        ("bare", {"param_shapes": 3}, "do not make one DeepSpeed checkpoint"),
        ("short", {"param_shapes": [{"a": (7,)}, {}]}, r"numbers for tensors of 7"),
    ):
        with pytest.raises(LabError, match=said):
            read(write_zero(tmp_path / name, trained, **extra))
    assert not trap.exists()


def test_numbers_of_another_training_are_told(zero, trained, tmp_path):
    other = write_zero(tmp_path / "other", {name: tensor + 1 for name, tensor in trained.items()})
    shutil.copy(other / MODEL, zero / MODEL)
    for tensor in read_finetune(zero).tensors.values():
        with pytest.raises(LabError, match="the optimiser's numbers are not those of the weights"):
            tensor.read()


def test_the_folder_above_points_at_it(zero):
    with pytest.raises(LabError, match=r"give the fine-tune in it, .*iter_24\.ds"):
        read_inventory(zero.parent)
