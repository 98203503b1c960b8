"""Files and words made to break the lab, a test for each kind: one sentence and status 2, and nothing else happens.

`tests/fuzz.py` looks for more of them. What damaged checkpoints and Runs do is in loading/test_hostile.py and
runs/test_read.py.
"""

import ast
import hashlib
import io
import json
import os
import re
import resource
import shutil
import unicodedata
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from sa2va_lab import files, open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.mistakes import sort_mistakes
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.prediction import AT_ONCE, Prediction
from sa2va_lab.reports import runner
from sa2va_lab.runs import open_run, predict_dataset
from sa2va_lab.views.gallery import write_gallery

LONG = "x" * 4000
DEEP = "[" * 100_000


@pytest.fixture
def lab(call, tmp_path):
    """sa2va-lab in tmp_path: lab("audit", "data") gives (status, stdout, stderr)."""
    return lambda *words: call(*words, here=tmp_path)


@pytest.fixture
def refused(lab):
    """The one sentence with which a command is refused."""

    def run(*words):
        status, _, said = lab(*words)
        lines = re.split(r"[\r\n]+", said.strip())  # bars of what was done before may stand above it
        assert (status, [line.startswith("sa2va-lab: ") for line in lines].count(True)) == (2, 1), said
        assert lines[-1].startswith("sa2va-lab: ")
        assert "Traceback" not in said
        return lines[-1]

    return run


@pytest.fixture
def base(root):
    """The demo's checkpoint."""
    return root / "data" / "demo" / "base"


@pytest.fixture
def run(make_dataset, make_segmenter, tmp_path):
    """A Run in out/runs/ of the six images in data/."""
    dataset = open_dataset(make_dataset())
    return predict_dataset(make_segmenter(), dataset, folder=tmp_path / "out/runs/20260101T000000Z_one", progress=False)


def test_an_object_may_have_any_number_of_polygons(make_dataset, lab, tmp_path):
    """B1: pycocotools counts the polygons that it merges in a byte."""
    path = make_dataset() / "annotations.json"
    entries = json.loads(path.read_text())
    places = [(3 * (n % 10), n // 10) for n in range(256)]
    entries[0]["mask"] = [[[x, y, x + 2, y, x + 2, y + 1, x, y + 1] for x, y in places]]
    path.write_text(json.dumps(entries))
    assert lab("audit", "data")[0] == 0
    assert lab("convert", "data", "copy")[0] == 0
    assert len(json.loads((tmp_path / "copy/annotations.json").read_text())) == 6


@pytest.mark.slow
def test_an_unreadable_image_costs_its_own_line(make_dataset, make_segmenter, lab, tmp_path, root):
    """B2: in the Run, in the table, and in the notebook that shows it."""
    data = make_dataset()
    next(iter(sorted((data / "images").iterdir()))).write_bytes(b"")
    made = predict_dataset(make_segmenter(), open_dataset(data), folder=tmp_path / "run", progress=False)
    assert len(made.failed_ids) == 1
    status, printed, said = lab("evaluate", "run", "--data", "data")
    assert (status, "1 failed" in printed) == (0, True), said
    given = {"data": str(data), "run": str(made.folder), "outputs": str(tmp_path / "out")}
    run_cells(root / "notebooks/03_evaluation.ipynb", given)


def run_cells(path, parameters):
    """A notebook's cells in this process: what its last expressions are is drawn as JupyterLab would, and dropped."""

    def draw(*things):
        for thing in things:
            ways = (getattr(thing, f"_repr_{kind}_", None) for kind in ("mimebundle", "html", "markdown", "png"))
            next((way() for way in ways if way), None)

    names = {"display": draw}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            last = tree.body.pop().value if isinstance(tree.body[-1], ast.Expr) else ast.parse("None").body[0].value
            exec(compile(tree, path.name, "exec"), names)
            names |= parameters if "parameters" in cell.metadata.get("tags", []) else {}
            draw(eval(compile(ast.Expression(last), path.name, "eval"), names))


def test_a_damaged_run_hides_no_other(run, lab, tmp_path):
    """B3."""
    for name, content in (("a", "{}"), ("b", "[]"), ("c", DEEP), ("d", json.dumps(run.meta | {"started": 4}))):
        shutil.copytree(run.folder, tmp_path / "out/runs" / f"20270101T000000Z_{name}")
        (tmp_path / "out/runs" / f"20270101T000000Z_{name}/run.json").write_text(content)
    status, printed, _ = lab("runs", "--outputs", "out")
    assert (status, len(printed.splitlines()), printed.count("cannot be read")) == (0, 5, 4)
    assert "20260101T000000Z_one: weights" in printed


def test_a_turned_tiff_is_turned_once(make_dataset, lab):
    """B4: uncompressed, orientation 6; Pillow maps such a file by its name and turns it wrongly."""
    data = make_dataset()
    entries = json.loads((data / "annotations.json").read_text())
    pixels = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(data / "images" / "turned.tif", exif=exif)
    (data / "annotations.json").write_text(json.dumps([entries[0] | {"image": "turned.tif"}]))
    (data / "splits.json").unlink()
    [sample] = [sample for sample in open_dataset(data) if sample.image.name == "turned.tif"]
    assert sample.image_size() == (30, 20)
    assert lab("audit", "data")[0] == 0


WEIGHT = "text_hidden_fcs.0.bias"


@pytest.mark.parametrize(
    "value",
    [np.ones(3, np.float32), [1.0], {"a": 1}, None, 3.5, "x", torch.bool, torch.int64, torch.int8],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_weight_is_not_dropped_in_silence(base, refused, tmp_path, value):
    """B6."""
    source = Checkpoint(base)
    whole = {name: source.tensor(name) for name in source.names() if name.startswith("text_hidden_fcs")}
    odd = torch.ones(whole[WEIGHT].shape, dtype=value) if isinstance(value, torch.dtype) else value
    torch.save({"state_dict": whole | {WEIGHT: odd}}, tmp_path / "tuned.pth")
    said = refused("merge", base, "new", "--finetune", "tuned.pth")
    assert WEIGHT in said
    assert "which is no tensor" in said or "which no weight is" in said
    assert not (tmp_path / "new").exists()


@contextmanager
def full_disk():
    """Nothing that is written within it reaches the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITING = [
    "init --data data",
    "init --phrase vessel --out sub/lab.yml",
    "split data",
    "convert data new",
    "audit data --fix new",
    "report 00_inspect --outputs new",
    "predict data --model BASE --outputs new --limit 1",
    "predict data/images/INVENTED-P00_000.png --model BASE --prompt x --out new",
    "merge BASE new",
]


@pytest.mark.parametrize("words", WRITING)
def test_a_full_disk_is_a_sentence_and_leaves_no_half(make_dataset, base, refused, tmp_path, words):
    """B7: also what has no permission ends where these end, at an OSError."""
    data = make_dataset()
    (data / "splits.json").unlink()
    given = [base if word == "BASE" else word for word in words.split()]
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with full_disk():
        said = refused(*given)
    assert "File too large" in said
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size and path not in before]
    assert left == []
    assert not list(tmp_path.rglob("lab.yml"))
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("place", [LONG, "loop", "loop/x", "file", "file/x"], ids=lambda place: place[:8])
def test_places_that_cannot_be(make_dataset, base, lab, tmp_path, place):
    """B8, B9: names of 4,000 characters, links in a circle, a file where a folder belongs."""
    make_dataset()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("precious")
    for words in (
        ("audit", place), ("audit", "data", "--against", place), ("convert", place, "new"), ("convert", "data", place),
        ("split", place), ("training", place), ("evaluate", place, "--data", "data"),
        ("compare", place, place, "--data", "data"),
        ("inspect", place), ("plan", place), ("merge", place, "new"), ("merge", base, place), ("init", "--data", place),
        ("init", "--out", place), ("report", "--settings", place), ("report", place),
        ("report", "00_inspect", "--model", place, "--outputs", "out"), ("predict", place, "--model", base),
        ("predict", "data", "--model", place),
        ("predict", place, "--model", base, "--prompt", "x", "--out", "new"),
        ("predict", "data", "--model", base, "--run", LONG),
        ("evaluate", "run", "--data", "data", "--threshold", place),
        ("training", "run", "--config", place),
    ):  # fmt: skip
        status, _, said = lab(*words)
        assert (status, "Traceback" in said, len(said) < 5000) == (2, False, True), (words, said[-500:])
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("place", [LONG, "loop", "file"], ids=lambda place: place[:8])
def test_outputs_that_cannot_be(make_dataset, base, refused, tmp_path, place):
    """B8, B9."""
    make_dataset()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("precious")
    refused("report", "00_inspect", "--outputs", place)
    refused("predict", "data", "--model", base, "--outputs", place, "--limit", 1)
    assert (tmp_path / "file").read_text() == "precious"


def test_what_is_nested_without_end(run, refused, tmp_path):
    """B9: JSON and YAML; what is nested less deep than a reader's own limit as well."""
    ring = "a: &a [*a]"
    for content in (DEEP, "[" * 150 + "]" * 150, ring, "a: 99999-99-99", "a: " + "1" * 5000, "? [a]\n: b"):
        (tmp_path / "lab.yml").write_text(content)
        refused("report")
        (tmp_path / "t.json").write_text(content)
        refused("evaluate", run.folder, "--data", "data", "--threshold", "t.json")
    sound = {"value": 0.5, "reason": "by eye", "origin": {"images": [], "note": json.loads("[" * 150 + "]" * 150)}}
    (tmp_path / "t.json").write_text(json.dumps(sound))
    assert "100 deep" in refused("evaluate", run.folder, "--data", "data", "--threshold", "t.json")


@pytest.mark.parametrize("size", ["nan", "-1", "0", "inf", "1e300"])
def test_a_size_that_is_none(base, refused, size):
    """B9."""
    assert "--shard-gb is" in refused("merge", base, "new", "--shard-gb", size)


def test_pipes_are_not_waited_for(run, make_segmenter, base, lab, tmp_path):
    """B10: in the place of each file that is read; data sets, logs, configs and checkpoints have tests of their own."""
    os.mkfifo(tmp_path / "pipe")
    for words in (
        ("report", "--settings", "pipe"), ("evaluate", run.folder, "--data", "data", "--threshold", "pipe"),
        ("training", "pipe"), ("training", "pipe", "--config", "pipe"), ("audit", "pipe"), ("inspect", "pipe"),
        ("predict", "pipe", "--model", base, "--prompt", "x", "--out", "new"), ("init", "--out", "pipe"),
    ):  # fmt: skip
        assert lab(*words)[0] == 2, words
    (tmp_path / "begun/logits").mkdir(parents=True)
    os.mkfifo(tmp_path / "begun/.lock")  # locked as a file is: it is written to in neither case
    dataset = open_dataset(tmp_path / "data")
    assert predict_dataset(make_segmenter(), dataset, folder=tmp_path / "begun", progress=False).finished


def test_a_log_of_other_numbers_than_a_trainings(refused, tmp_path):
    """B11: every loss NaN, a step of 400 digits, steps below 0."""
    line = '{{"loss": {loss}, "iter": {place}, "step": {place}}}\n'
    for numbers, said in (
        ([("NaN", n) for n in (10, 20, 30)], "NaN or infinite on all of them"),
        ([("1.5", "1" * 400)] * 3, "has 0 training lines, and 3 that cannot be read"),
        ([("1.5", -990), ("1.4", -980)], "has 0 training lines, and 2 that cannot be read"),
    ):
        (tmp_path / "log.json").write_text("".join(line.format(loss=loss, place=place) for loss, place in numbers))
        assert said in refused("training", "log.json")


def test_a_large_image_is_refused_with_the_way_to_allow_it(make_dataset, base, lab, tmp_path, monkeypatch):
    """B12: 17 kB that become 144,000,000 pixels and 5 GB."""
    data = make_dataset()
    Image.new("1", (12_000, 12_000)).save(data / "images/INVENTED-P00_000.png")
    status, printed, _ = lab("audit", "data")
    assert (status, "unreadable_image: 1" in printed) == (0, True)
    image = data / "images/INVENTED-P00_000.png"
    status, _, said = lab("predict", image, "--model", base, "--prompt", "x", "--out", "new")
    assert status == 2
    assert "12000x12000 pixels, more than 50,000,000; make it smaller, or set SA2VA_LAB_MOST_PIXELS" in said
    monkeypatch.setattr(files, "MOST_PIXELS", 144_000_000)
    with files.open_image(image) as opened:
        assert opened.size == (12_000, 12_000)


def test_an_answer_may_name_hundreds(monkeypatch):
    """B12: no more than AT_ONCE masks have the image's size at any time, and the mask is the same."""
    logits = np.random.default_rng(0).normal(size=(3 * AT_ONCE + 1, 8, 8)).astype(np.float32)
    made = Prediction(logits, (20, 30), "", canvas=16)
    whole, asked, enlarge = made.full_logits(), [], Prediction.full_logits
    monkeypatch.setattr(Prediction, "full_logits", lambda self, which: asked.append(which) or enlarge(self, which))
    np.testing.assert_array_equal(made.mask(), whole.max(axis=0) > 0)
    assert max(which.stop - which.start for which in asked) == AT_ONCE
    np.testing.assert_array_equal(made.mask(merge=-2), whole[-2] > 0)


def test_a_prompt_and_an_answer_have_an_end(make_dataset, base, refused, tmp_path):
    """B12: attention costs the square of what is read."""
    make_dataset()
    image = "data/images/INVENTED-P00_000.png"
    long = ("--model", "none", "--prompt", "x" * 100_000)
    assert "100,000 characters" in refused("predict", image, *long, "--out", "new")
    assert "100,000 characters" in refused("predict", "data", *long)
    words = ("predict", image, "--model", base, "--prompt", "x", "--out", "new", "--answer", "[SEG] " * 520)
    assert "1 of 1 images were not predicted" in refused(*words)
    assert "tokens: give one of 512 at most" in (tmp_path / "new/predictions.jsonl").read_text()


def test_a_category_id_that_is_there_twice(lab, refused, tmp_path, root):
    """B13: the objects of two categories would have the name of the last."""
    (tmp_path / "coco/images").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "coco/images/a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]], "area": 8}],
        "categories": [{"id": 1, "name": "vessel"}, {"id": 1, "name": "wire"}],
    }
    (tmp_path / "coco/annotations.json").write_text(json.dumps(content))
    assert "1" in refused("audit", "coco")


def test_logits_that_are_not_finite_are_no_empty_mask(run):
    """B13."""
    record = next(record for record in run.records if record["n_seg"])
    path = run.folder / "logits" / f"{record['id']}.npz"
    with np.load(path) as arrays:
        arrays = dict(arrays)
    np.savez_compressed(path, **arrays | {"logits": arrays["logits"] * np.nan})
    lines = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        if line["id"] == record["id"]:
            line["logits_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (run.folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(LabError, match="is not what was predicted .*not finite"):
        open_run(run.folder).prediction(record["id"])


def test_logits_that_would_fill_memory_are_not_read(run):
    """B3: a few bytes that become gigabytes."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, logits=np.zeros((2000, 256, 256), np.float32), size=np.array([8, 8]), canvas=np.int64(8)
    )
    with pytest.raises(LabError, match="is not a prediction file .more than"):
        Prediction.from_npz(io.BytesIO(buffer.getvalue()))


def test_names_that_name_nothing(run, make_dataset, base, lab, refused, tmp_path):
    """B13: a split that is not there, beside a Run too; a Run's name without a letter; a blank at a folder's end."""
    assert 'no split "nosuch"' in refused("predict", "data", "--model", base, "--split", "nosuch", "--outputs", "out")
    with pytest.raises(LabError, match='no split "nosuch"'):  # which 03_evaluation asks first
        open_dataset(tmp_path / "data").choose_split("nosuch")
    for name in ("*", "../..", " "):
        assert "the Run's name is" in refused("predict", "data", "--model", base, "--run", name, "--outputs", "out")
    shutil.copytree(tmp_path / "data", tmp_path / "blank ")
    assert lab("audit", "blank ")[0] == 0


def test_nothing_from_a_file_steers_the_terminal(make_dataset, make_segmenter, lab, tmp_path):
    """E3: codes, a NUL, letters that turn the line round, in a phrase and in a folder's name."""
    odd = "\x1b[31mves\x00sel\u202e\x9b2J"
    path = make_dataset("\x1b]0;x\x07data") / "annotations.json"
    path.write_text(path.read_text().replace("blood vessel", json.dumps(odd)[1:-1]))
    for words in (
        ("audit", path.parent),
        ("audit", path.parent, "--json"),
        ("split", path.parent),
        ("audit", "\x1b[2J"),
    ):
        status, printed, said = lab(*words)
        assert not [c for c in printed + said if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\r\t"]
    path.with_name(".sa2va-lab-key.json").unlink()
    predict_dataset(make_segmenter(), open_dataset(path), folder=tmp_path / "out/runs/1_a", progress=False)
    assert json.loads(lab("runs", "--outputs", "out", "--json")[1])[0]["phrase"] == odd


@pytest.mark.parametrize("name", [".lab.yml.part", ".metrics.json.part", "lab.yml"])
def test_no_link_is_written_through(tmp_path, name):
    """E1, E2: what is written next to a link that was laid out for it leaves the link's end as it was."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "received").mkdir()
    (tmp_path / "received" / name).symlink_to(tmp_path / "precious")
    for file in ("lab.yml", "metrics.json"):
        files.write_json(tmp_path / "received" / file, {"a": 1})
    assert (tmp_path / "precious").read_text() == "precious"
    assert json.loads((tmp_path / "received/lab.yml").read_text()) == {"a": 1}
    assert not (tmp_path / "received/lab.yml").is_symlink()


def test_init_goes_over_nothing(lab, refused, tmp_path):
    """E: neither a file that is there nor what a link points at."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lab.yml").symlink_to("precious")
    (tmp_path / "other.yml").symlink_to("nowhere")
    assert "is there already" in refused("init")
    assert "is there already" in refused("init", "--out", "other.yml")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["cases.csv", "gallery.html"])
def test_a_gallery_is_not_written_through_links(run, tmp_path, name):
    """E: pages in a folder that was received."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / name).symlink_to(tmp_path / "precious")
    dataset = open_dataset(tmp_path / "data")
    write_gallery(sort_mistakes(run, dataset, threshold=0.5), run, dataset, folder=tmp_path / "gallery")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "content", ["[]", "{}", DEEP, '{"notebooks": 5}', '{"name": "x", "asked": [], "notebooks": [5]}']
)
def test_a_damaged_report_is_not_taken_up(tmp_path, content):
    """D1: nor one in which links lie; what is to be resumed, reports/test_runner.py has."""
    report = {"name": "x", "asked": [], "parameters_sha256": ""}
    for name, there in (("b", content), ("a", json.dumps(report | {"notebooks": {}, "asked": ["03"]}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(there)
    (tmp_path / "a/gallery").symlink_to(tmp_path)
    assert runner._find_unfinished(tmp_path, report | {"asked": ["03"]}) is None
    (tmp_path / "a/gallery").unlink()
    assert runner._find_unfinished(tmp_path, report | {"asked": ["03"]}) == tmp_path / "a"


def test_files_are_written_in_one_way():
    """By `files.write_whole`: a name of its own, created anew, then put into its place."""
    texts = {path: path.read_text("utf-8") for path in Path(files.__file__).parent.rglob("*.py")}
    found = [f"{path.name}: {line}" for path, text in texts.items() for line in text.splitlines()]
    direct = re.compile(
        r"\.write_(text|bytes)\(|open\((?!buffer)[^)]*[\"'][wx]b?[\"']|\.to_csv\([^)i]|savefig\((?!buffer)"
    )
    found = [line for line in found if direct.search(line)]
    found = [line for line in found if "clear_refs" not in line]  # a file of the kernel's
    assert [line for line in found if not line.startswith("files.py")] == []


def test_where_a_path_leads_is_asked_in_one_way():
    """Path.resolve raises a RuntimeError for links in a circle, which is nobody's sentence."""
    package = Path(files.__file__).parent
    texts = {path: path.read_text("utf-8") for path in package.rglob("*.py")}
    found = [
        f"{path.name}: {line}" for path, text in texts.items() for line in text.splitlines() if ".resolve(" in line
    ]
    assert [line for line in found if "__file__" not in line] == []
