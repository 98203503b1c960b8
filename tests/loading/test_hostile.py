"""Files made to deceive: each is one sentence, at once, in little memory; no traceback, no hang, nothing run."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading import pickles
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.finetune import find_alpha, read_finetune
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.pickles import read_pth
from sa2va_lab.sa2va.configuration import parse_config, read_raw
from sa2va_lab.sa2va.weights import build_empty, write_folder
from sa2va_lab.training.config import parse_config as parse_training

# Pickles by hand. A tuple of two of the tuple before it, sixty times: tiny as a file, 2^60 places to hash or to print.
TOWER = b")" + b"q\x01h\x01\x86" * 60
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK%ctQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("


def tensor(shape=b"(K\x01t", *, count=1) -> bytes:
    return REBUILD + STORAGE % count + b"K\0" + shape + b"(K\x01t\x89NtR"


def named(value: bytes, key: bytes = b"X\x01\0\0\0a") -> bytes:
    return b"}X\x0a\0\0\0state_dict}" + key + value + b"ss"


def packed(path: Path, pickled: bytes, *, data: bytes = bytes(4)) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return path


PICKLES = {
    "a key that takes for ever to hash": (b"}" + TOWER + b"K\x01s", "a key that is neither text nor number"),
    "the same in an OrderedDict": (b"ccollections\nOrderedDict\n(](](" + TOWER + b"K\x01eetR", "a key that is neither"),
    "a set of it": (b"\x8f(" + TOWER + b"\x90", "damaged"),
    "a shape that takes for ever to print": (named(tensor(TOWER)), "no valid shape"),
    "a number of a million bytes": (named(tensor(b"(\x8b\x40\x42\x0f\0" + b"\x7f" * 1_000_000 + b"t")), "no valid sh"),
    "more numbers than the file has": (named(tensor(count=200)), "800 bytes of numbers that are not in the file"),
    "a storage that is not there": (named(tensor()).replace(b"\x01\0\0\x000", b"\x01\0\0\x007"), "not in the file"),
    "names that are numbers": (named(tensor(), key=b"K\x03"), "no tensors by name"),
    "names that a terminal would obey": (named(tensor(), key=b"X\x02\0\0\0\x1b["), "no tensors by name"),
    "a class with such a name": (b"c\x1b[2Jos\nsystem\n", "asks to run \N{REPLACEMENT CHARACTER}"),
}  # fmt: skip


@pytest.mark.parametrize("what", PICKLES)
def test_pickles(tmp_path, what):
    pickled, said = PICKLES[what]
    for read in (read_inventory, read_finetune):
        with pytest.raises(LabError, match=said):
            read(packed(tmp_path / "evil.pth", pickled))


def test_the_reader_cannot_be_rebuilt_from_a_pickle(tmp_path):
    """State that a pickle gives to what it built, or to our own functions, is dropped."""
    state = b"]((K\x05tX\x03\0\0\0fooX\0\0\0\0eb"
    found = read_inventory(packed(tmp_path / "a.pth", named(tensor().replace(b"tR", b"tR" + state))))
    assert (found.tensors["a"].shape, found.tensors["a"].dtype) == ((1,), "fp32")
    read_pth(packed(tmp_path / "b.pth", REBUILD[:-1] + b"N}X\x0c\0\0\0__defaults__(K\x01ts\x86b"))
    assert pickles._rebuild.__defaults__ is None


def test_a_byte_is_no_object(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_STEPS", 10_000)
    with pytest.raises(LabError, match="more than 10,000 steps"):
        read_pth(packed(tmp_path / "bomb.pth", b"(" + b"]" * 20_000 + b"l"))


def test_a_member_that_declares_four_gigabytes(tmp_path):
    path = packed(tmp_path / "big.pth", named(tensor()))
    raw = path.read_bytes()
    place = raw.rindex(b"PK\1\2") + 20
    path.write_bytes(raw[:place] + struct.pack("<II", 0xFFFFFF00, 0xFFFFFF00) + raw[place + 8 :])
    with pytest.raises(LabError, match="declares more data than its"):
        read_inventory(path)


def test_one_file_is_not_two(tmp_path):
    """The old form with a zip behind it: Python's zipfile sees the zip, torch the old form. We look as torch does."""
    torch.save({"seen": torch.zeros(3)}, tmp_path / "both.pth", _use_new_zipfile_serialization=False)
    other = packed(tmp_path / "other.pth", named(tensor()))
    with open(tmp_path / "both.pth", "ab") as file:
        file.write(other.read_bytes())
    with pytest.raises(LabError, match="is no zip file"):
        read_inventory(tmp_path / "both.pth")


@pytest.fixture
def folder(standins, tmp_path):
    """A folder with two layers of a language model, header only."""
    home = tmp_path / "model"
    home.mkdir()
    layers = {f"language_model.model.layers.{n}.self_attn.q_proj.weight": ((4, 4), "fp32") for n in (0, 1)}
    standins.sparse(home / "model.safetensors", layers)
    return home


CONFIGS = [
    {"llm_config": "x"}, {"llm_config": ["a"]}, {"llm_config": {"architectures": 5}}, {"vision_config": "x"},
    {"llm_config": {"architectures": [{"a": 1}]}}, {"llm_config": {"architectures": ["\x1b[2J"]}},
    {"llm_config": {"num_hidden_layers": 10**12}}, {"vision_config": {"num_hidden_layers": "many"}},
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_an_inventory_survives_any_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    found = read_inventory(folder)
    assert not found.complete
    assert "\x1b" not in "\n".join(found.to_lines())


SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
SOUND = {"llm_config": SIZES | {"architectures": ["Qwen2ForCausalLM"]}, "vision_config": SIZES}
ABSURD = [
    {"llm_config": {"architectures": ["Qwen2ForCausalLM"], "vocab_size": 10**12}},
    {"llm_config": {"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 10**6}},
    {"llm_config": {"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": "many"}},
    {"llm_config": {"architectures": 5}}, {"llm_config": "x"}, {"vision_config": [1]}, {"text_config": 5},
    {"template": ["a"]}, {"sa2va_lab": 5}, {"sa2va_lab": {"canvas": 10**9}},
    {"sa2va_lab": {"sam2": {"backbone": {"blocks_per_stage": [10**9]}}}},
]  # fmt: skip


@pytest.mark.parametrize("change", ABSURD, ids=str)
def test_absurd_sizes_are_never_built(change):
    with pytest.raises(LabError, match=r"no sensible sizes in|language model unknown|asks for the prompt template"):
        parse_config(SOUND | change)


def test_sizes_that_make_no_network_are_a_sentence():
    with pytest.raises(LabError, match="config.json describes no network"):
        build_empty(parse_config(SOUND | {"vision_config": SIZES | {"hidden_size": 7}}))


@pytest.mark.parametrize("value", [None, 0, {}, -1, "x", True, 1.5], ids=repr)
@pytest.mark.parametrize(
    "place",
    [
        ("llm_config", "hidden_size"),
        ("llm_config", "num_hidden_layers"),
        ("vision_config", "patch_size"),
        ("sa2va_lab", "max_tiles"),
        ("vision_config",),
        ("downsample_ratio",),
        ("sa2va_lab", "sam2", "backbone"),
    ],
    ids=".".join,
)
def test_what_is_no_size_is_one_sentence_everywhere(tiny_folder, tmp_path, place, value):
    """inspect names it among what is missing, plan and load refuse it; all three with the same words."""
    raw = json.loads((tiny_folder / "config.json").read_text())
    *sections, key = place
    within = raw
    for section in sections:
        within = within[section]
    within[key] = value
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    if key == "backbone" and value == {}:
        return  # no change to the sizes of SAM2
    said = " ".join(map(str, read_inventory(tmp_path).missing))
    assert "no sensible sizes in" in said
    for use in (sa2va_lab.plan, sa2va_lab.load):
        with pytest.raises(LabError, match="no sensible sizes in"):
            use(tmp_path)


def test_a_deep_config_is_a_sentence(folder):
    (folder / "config.json").write_text("[" * 200_000)
    for read in (read_inventory, read_raw):
        with pytest.raises(LabError, match="is not JSON"):
            read(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "x/../y", "a\0b", "b\n", None, 5, ["a"]])
def test_an_index_names_files_of_its_folder_only(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    for read in (read_inventory, Checkpoint):
        with pytest.raises(LabError, match="outside its own folder|not a readable index"):
            read(folder)


@pytest.mark.parametrize("name", ["..", "", "a" * 5000])
def test_an_index_with_names_of_no_file(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    for read in (read_inventory, Checkpoint):
        with pytest.raises(LabError):
            read(folder)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    for read in (read_inventory, Checkpoint):
        with pytest.raises(LabError, match=r"has no \*\.safetensors"):
            read(tmp_path)


def test_a_link_out_of_the_folder_is_not_handed_on(tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(LabError, match="link to a file outside its folder"):
        write_folder(tmp_path / "out", torch.zeros, {}, config={}, tokenizer=tmp_path / "model")
    assert not (tmp_path / "out").exists()


def test_layers_beyond_number(standins, tmp_path):
    names = [f"language_model.model.layers.{n}.x" for n in ("9" * 5000, "999", "٣")]
    standins.sparse(tmp_path / "model.safetensors", {name: ((1,), "fp32") for name in names})
    assert len(read_inventory(tmp_path).missing[-3].parts[0]) < 500


@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "a" * 5000, "a\0b"])
def test_a_path_of_nothing(path):
    with pytest.raises(LabError, match="There is nothing at"):
        read_inventory(path)


WILD = st.one_of(
    st.integers(-3, 9), st.sampled_from([2**64, -(2**63), 1e999, float("nan"), True, None, "F32", "", "\x1b", "\ud800"])
)
WILD = st.recursive(
    WILD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
NAMES = st.sampled_from(
    ["mlp1.0.bias", "language_model.model.layers.1.x", "text_hidden_fcs.0.bias", "图像", ""]
) | st.text(max_size=9)


SOUND_HEADER = {"language_model.model.layers.1.x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
ENTRY = st.fixed_dictionaries(
    {"dtype": st.just("F32") | WILD, "shape": st.just([2]) | WILD, "data_offsets": st.just([0, 8]) | WILD}
)


@settings(max_examples=150)
@given(
    st.just(SOUND_HEADER) | st.dictionaries(NAMES, WILD | ENTRY),
    st.dictionaries(st.sampled_from(["llm_config", "vision_config", "text_config", "sa2va_lab", "template"]), WILD),
    st.none() | st.just({"a": "model.safetensors"}) | st.dictionaries(st.text(max_size=3), NAMES | WILD),
)
def test_whatever_a_header_says(tmp_path_factory, header, config, index):
    """Headers, config.json and index of any content: an inventory that can be printed, or one sentence."""
    home = tmp_path_factory.mktemp("wild")
    raw = json.dumps(header).encode()
    (home / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    (home / "config.json").write_text(json.dumps(config))
    if index is not None:
        (home / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with contextlib.suppress(LabError):
        found = read_inventory(home)
        "\n".join(found.to_lines()).encode()
        json.dumps(found.to_dict(), allow_nan=False)
    with contextlib.suppress(LabError):
        parse_config({"llm_config": {}, "vision_config": {}} | config)


@settings(max_examples=60)
@given(st.data())
def test_whatever_a_deepspeed_folder_says(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("zero")
    shape = WILD | st.sampled_from([(2,), (-2,), (2.0,), ((),)])
    state = {
        "module": data.draw(WILD | st.just({"a": torch.zeros(2)})),
        "param_shapes": data.draw(WILD | st.lists(st.dictionaries(st.sampled_from("ab"), shape), max_size=2)),
        "shared_params": data.draw(WILD | st.just({"c": "a"})),
    }
    torch.save(state, home / "mp_rank_00_model_states.pt")
    rows = data.draw(WILD | st.lists(st.sampled_from([torch.zeros(2), torch.zeros(2, 1), 3]), max_size=2))
    own = {"single_partition_of_fp32_groups": rows, "partition_count": data.draw(WILD | st.just([1]))}
    torch.save({"optimizer_state_dict": own}, home / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    for read in (read_inventory, read_finetune):
        with contextlib.suppress(LabError):
            read(home)


def test_a_name_that_is_no_text(folder):
    odd = folder.with_name(os.fsdecode(b"model\xff"))
    folder.rename(odd)
    done = subprocess.run([sys.executable, "-m", "sa2va_lab.cli", "inspect", odd], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "model\N{REPLACEMENT CHARACTER}" in done.stdout.decode()


@pytest.mark.parametrize("alpha", [float("inf"), float("nan"), -1.0])
def test_an_alpha_is_a_number(alpha):
    with pytest.raises(LabError, match="LoRA's alpha is"):
        find_alpha({}, None, alpha)


def test_data_sets_within_data_sets_end():
    inner = "d = dict(datasets=[])\n" + "d = dict(datasets=[d, d])\n" * 60
    assert parse_training(f"{inner}train_dataloader = dict(dataset=d)\n").data == ()
