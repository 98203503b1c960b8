import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa2va_lab.errors import LabError
from sa2va_lab.training.config import TrainingConfig, parse_config, read_config
from sa2va_lab.training.syntax import Symbol, Unread, read_assignments


def test_everything_that_the_workbench_asks_for(write_config):
    config = read_config(write_config(annotations=7))
    assert config.unread == ()
    assert config.base == "models/InternVL3-8B"
    assert config.template == "qwen_chat"
    assert config.special_tokens == ("[SEG]", "<p>", "</p>", "<vp>", "</vp>")
    assert config.lora == {"r": 64, "lora_alpha": 128}
    assert config.lora_alpha == 128
    assert config.loss_weights == {"loss_mask": 3.0, "loss_dice": 1.0}
    assert (config.epochs, config.batch, config.accumulation, config.lr) == (1.0, 1, 8, 2e-5)
    assert config.sampler_group == 8
    assert config.warmup == {"begin": 0.0, "end": 0.1, "start_factor": 1e-5, "by_epoch": True}
    assert config.zero["stage"] == 3
    assert (config.save_interval, config.save_by_epoch, config.keep) == (500, False, 5)
    assert config.data == ((10, 7),)


def test_samples_are_counted_beside_the_config(write_config):
    config = read_config(write_config(annotations=7))
    assert (config.samples, config.epoch_samples()) == (7, 70)
    assert config.epoch_samples(1219) == 12190
    assert read_config(write_config(annotations=7)).repeats == 10


def test_without_annotations_nothing_is_counted(write_config):
    config = read_config(write_config())
    assert (config.samples, config.epoch_samples()) == (None, None)


def test_dumped_config_names_types_by_text(synthetic):
    source = (
        "model = dict(loss_dice=dict(loss_weight=0.5, type='mmdet.DiceLoss'), type='projects.Sa2VAModel')\n"
        "train_dataloader = dict(batch_size=2, sampler=dict(per_device_batch_size=8, type='x.LengthGroupedSampler'))\n"
        "launcher = 'pytorch'\nprompt_template = dict(INSTRUCTION='<|im_start|>')\ntemplate = 'qwen_chat'\n"
    )
    config = parse_config(source)
    assert (config.sampler_group, config.batch) == (8, 2)
    assert (config.launcher, config.template) == ("pytorch", "qwen_chat")
    assert config.loss_weights == {"loss_dice": 0.5}


def test_a_plain_sampler_has_no_groups():
    config = parse_config("train_dataloader = dict(batch_size=2, sampler=dict(type='DefaultSampler'))")
    assert (config.batch, config.sampler_group) == (2, None)


def test_nothing_is_executed(tmp_path):
    victim = tmp_path / "victim"
    source = (
        f"import os\nmodel = dict(a=open({str(victim)!r}, 'w'))\n"
        f"x = __import__('os').system('touch {victim}')\n"
        f"y = [open({str(victim)!r}, 'w') for _ in range(3)]\nz = (lambda: open({str(victim)!r}, 'w'))()\n"
        f"class A:\n    open({str(victim)!r}, 'w')\n"
        f"def f(a=open({str(victim)!r}, 'w')):\n    pass\nif open({str(victim)!r}, 'w'):\n    lr = 1\n"
        "w = f'{open(1)}'\n"
    )
    config = parse_config(source)
    assert not victim.exists()
    assert len(config.unread) == 8
    assert config.unread[0] == "line 2 (Call)"


@pytest.mark.parametrize(
    "statement",
    ["lr *= 2", "if True:\n    lr = 5", "for lr in [1]:\n    pass", "with open('x') as lr:\n    pass", "del lr",
     "def lr():\n    pass", "class lr:\n    pass", "from x import lr", "import lr", "lr, b = 3, 4"],
)  # fmt: skip
def test_what_may_have_changed_is_unknown(statement):
    values, unread = read_assignments(f"lr = 1\nmodel = dict(a=1)\n{statement}\nused = lr")
    assert isinstance(values["used"], Unread | Symbol)
    assert values["model"] == {"a": 1}


@pytest.mark.parametrize(
    "statement", ["part['a'] = 2", "part.update(a=2)", "change(part)", "part['b']['c'] = 2", "del part['a']"]
)
def test_what_may_have_changed_from_within_is_unknown_wherever_it_stands(statement):
    values, unread = read_assignments(f"part = dict(a=1)\nmodel = dict(inner=[part])\nother = dict(a=1)\n{statement}")
    assert isinstance(values["part"], Unread)
    assert isinstance(values["model"], Unread)
    assert values["other"] == {"a": 1}
    assert len(unread) == 1


def test_values():
    values, unread = read_assignments(
        '"""Doc."""\nfrom a.b import Thing, TABLE as T\nimport c.d\n'
        "a = 'x' + 'y'\nb = [1, *[2, 3]]\nc2 = dict(k=1, **dict(m=2))\nd = {'k': -1.5, **c2}\n"
        "e = 3 * 0.5 + 1 - 7 // 2\n"
        "f = Thing\ng = T.row.cell\nh = f'{a}/z'\ni = d['m']\nj: int = 4\nk = l = None\nm = (True, not False)\npass\n"
    )
    assert unread == []
    assert values == {
        "Thing": Symbol("Thing"), "T": Symbol("TABLE"), "c": Symbol("c"),
        "a": "xy", "b": [1, 2, 3], "c2": {"k": 1, "m": 2}, "d": {"k": 1, "m": 2}, "e": -0.5, "f": Symbol("Thing"),
        "g": Symbol("TABLE.row.cell"), "h": "xy/z", "i": 2, "j": 4, "k": None, "l": None, "m": [True, True],
    }  # fmt: skip


@pytest.mark.parametrize(
    "source",
    ["a = 'x'\n" + "a = a + a\n" * 60, "a = [1]\n" + "a = [*a, *a]\n" * 60, "a = 2\n" + "a = a * a\n" * 60,
     "a = [1]\n" + "a = [a, a]\n" * 60 + "f(a)\n", "a = 9 ** 9 ** 9", "a = 'x' * 10**9", "a = 1 / 0"],
)  # fmt: skip
def test_what_grows_without_end_is_given_up(source):
    values, unread = read_assignments(source)
    assert unread
    assert isinstance(values["a"], Unread)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "sets none of model"),
        ("a = 1", "sets none of model"),
        ("model = dict(", r"is not Python \(line 1\)"),
        ("\0", "is not Python"),
        ("a = " + "-" * 100000 + "1", "is not Python"),
        ("a = " + "+".join(["1"] * 100000), "is not Python"),
        ("#" * (2 << 20), "at most 1,048,576 of an xtuner config"),
    ],
)
def test_wrong_configs_get_one_sentence(write, content, sentence):
    with pytest.raises(LabError, match=sentence) as error:
        read_config(write(content, "wrong.py"))
    assert "\n" not in str(error.value)


def test_numbers_beyond_all_measure_count_as_not_said():
    source = (
        f"model = dict(a=dict(loss_weight=1e999), llm_lora=dict(lora_alpha={'9' * 400}))\ntrain_dataloader = dict()"
    )
    config = parse_config(source)
    assert (config.loss_weights, config.lora_alpha) == ({}, None)


def test_no_file_a_folder_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    for path in (tmp_path / "pipe.py", tmp_path / "absent.py", tmp_path):
        with pytest.raises(LabError, match="is not a file; expected an xtuner config"):
            read_config(path)


@given(st.data())
def test_flipped_bits_give_a_config_or_a_sentence(synthetic, data):
    content = bytearray(synthetic.CONFIG.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(LabError):
        assert isinstance(parse_config(content.decode("utf-8", "replace")), TrainingConfig)
