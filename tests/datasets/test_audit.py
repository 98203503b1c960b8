"""The audit finds what was planted, all of it and nothing else; the repaired copy is free of what can be repaired."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from sa2va_lab import cli
from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset, write_sizes
from sa2va_lab.datasets.defects import KINDS
from sa2va_lab.datasets.export import export_dataset
from sa2va_lab.errors import LabError


class Planter:
    """The demo set, one defect after the other put into images of its own; `planted` is what an audit must say."""

    def __init__(self, source, root):
        self.root = root
        shutil.copytree(source, root, ignore=lambda folder, names: [".sa2va-lab-key.json", "annotations_obs2.json"])
        self.entries = {entry["image"]: entry for entry in json.loads((root / "annotations.json").read_text())}
        self.extra, self.sizes = [], {}
        self.planted: dict[str, set[str]] = {}
        self.free = list(self.entries)

    def take(self, *kinds, patient=None):
        """An image that has no defect yet, of any patient or of one; it will have these."""
        name = next(n for n in self.free if patient is None or patient in n)
        self.free.remove(name)
        for kind in kinds:
            self.planted.setdefault(kind, set()).add(name)
        return name

    def image(self, name):
        return Image.open(self.root / "images" / name)

    def save(self, name, image, **options):
        image.save(self.root / "images" / name, **{"format": "png"} | options)

    def write(self):
        content = [*self.entries.values(), *self.extra]
        (self.root / "annotations.json").write_text(json.dumps(content))
        (self.root / "sizes.json").write_text(json.dumps(self.sizes))


def plant_annotations(plants):
    """Defects of entries, of phrases, of outlines. Vessels are the first object in every entry of the demo."""
    name = plants.take("few_points")
    plants.entries[name]["mask"][0].append([7.0, 7.0])
    name = plants.take("bad_coordinates")
    plants.entries[name]["mask"][0] += [[1.0, 2.0, float("nan"), 3.0, 4.0, 5.0], [1, 2, 3, 4, 5, 6, 7]]
    name = plants.take("wrong_type")
    plants.entries[name]["mask"].append("a shape")
    plants.entries[name]["text"].append("blood vessel")
    name = plants.take("wrong_type", "unknown_truth")
    plants.entries[name]["mask"] = {}
    name = plants.take("empty_object")
    plants.entries[name]["mask"].append([])
    plants.entries[name]["text"].append("blood vessel")
    name = plants.take("flat_nesting")
    entry = plants.entries[name]
    entry["text"] = [p for p, o in zip(entry["text"], entry["mask"], strict=True) for _ in o]
    entry["mask"] = [polygon for polygons in entry["mask"] for polygon in polygons]
    name = plants.take("text_type")
    plants.entries[name]["text"] = "blood vessel"
    name = plants.take("text_length")
    plants.entries[name]["text"].append("left over")
    name = plants.take("duplicate_entry", "duplicate_annotation")
    plants.extra.append(plants.entries[name])
    name = plants.take("self_intersection")
    plants.entries[name]["mask"].append([[10, 10, 50, 50, 50, 10, 10, 50]])
    plants.entries[name]["text"].append("catheter")
    name = plants.take("zero_area")
    plants.entries[name]["mask"][0].append([20, 20, 60, 20, 40, 20])
    name = plants.take("overlap")
    plants.entries[name]["mask"].append([[10, 10, 60, 10, 60, 60, 10, 60], [50, 10, 90, 10, 90, 60, 50, 60]])
    plants.entries[name]["text"].append("catheter")
    name = plants.take("out_of_bounds")
    plants.entries[name]["mask"].append([[-200, 10, 60, 10, 60, 60, -200, 60]])
    plants.entries[name]["text"].append("catheter")
    del plants.entries[plants.take("unannotated")]
    plants.extra.append({"image": "INVENTED-P77_NOTREAL-0077_V1_F00.png", "mask": [], "text": []})
    plants.planted["missing_image"] = {"INVENTED-P77_NOTREAL-0077_V1_F00.png"}
    first, second = plants.take("copied_annotation"), plants.take("copied_annotation")
    plants.entries[second] |= {key: plants.entries[first][key] for key in ("mask", "text")}
    name = plants.take("size_mismatch")
    plants.sizes[name] = [512, 512]
    plants.save(name, plants.image(name).resize((320, 320)))
    name = plants.take("size_suspected", "out_of_bounds")
    plants.save(name, plants.image(name).resize((320, 320)))


def plant_images(plants):
    """Defects of image files; a name may end in .png whatever the file is."""
    path = plants.root / "images" / plants.take("unreadable_image")
    path.write_bytes(path.read_bytes()[:2000])
    name = plants.take("image_16bit")
    plants.save(name, Image.fromarray(np.asarray(plants.image(name).convert("L")).astype(np.uint16) * 200))
    name = plants.take("image_cmyk")
    plants.save(name, plants.image(name).convert("CMYK"), format="tiff")
    name = plants.take("image_transparent")
    plants.save(name, plants.image(name).convert("LA"))
    name = plants.take("image_animated")
    picture = plants.image(name).convert("L")
    plants.save(name, picture, format="gif", save_all=True, append_images=[picture.rotate(90)])
    name = plants.take("image_rotated")
    exif = Image.Exif()
    exif[0x0112] = 3
    plants.save(name, plants.image(name), exif=exif)
    name = plants.take("private_metadata")
    text = PngImagePlugin.PngInfo()
    text.add_text("PatientName", "INVENTED-P99")
    plants.save(name, plants.image(name), pnginfo=text)
    name = plants.take("image_blank")
    plants.save(name, Image.new("L", plants.image(name).size, 90))
    name = plants.take("burnt_in_text")
    picture = plants.image(name).convert("L")
    ImageDraw.Draw(picture).text((8, 8), "NOT A REAL NAME 12345", fill=255, font_size=18)
    plants.save(name, picture)
    one = plants.take("near_duplicate", "split_near_duplicate", patient="INVENTED-P10")  # in "train"
    other = plants.take("near_duplicate", "split_near_duplicate", patient="INVENTED-P12")  # not in "train"
    plants.save(other, plants.image(one).resize(plants.image(other).size))


def plant_masks(plants):
    """Mask files beside the outlines; the others of the folder have none."""
    where = plants.root / "masks"
    where.mkdir()
    source = open_dataset(plants.source)
    truths = {sample.image.name: sample.truth() for sample in source}
    good = plants.take()
    Image.fromarray(truths[good]).save(where / good)
    name = plants.take("truth_disagrees")
    Image.fromarray(np.roll(truths[name], 9, axis=1)).save(where / name)
    name = plants.take("mask_size")
    Image.fromarray(truths[name][::2, ::2]).save(where / name)
    (where / plants.take("mask_unreadable")).write_bytes(b"no mask")
    Image.new("L", (8, 8)).save(where / "of_no_image.png")
    plants.planted["orphan_file"] = {""}


@pytest.fixture(scope="module")
def planted(root, tmp_path_factory):
    source = tmp_path_factory.mktemp("demo") / "clean"
    shutil.copytree(root / "data" / "demo" / "angiograms", source)
    plants = Planter(source, source.with_name("planted"))
    plants.source = source
    plant_images(plants)
    plant_annotations(plants)
    plant_masks(plants)
    plants.write()
    return plants


@pytest.mark.slow
def test_the_shipped_set_has_no_defect(planted):
    found = audit_dataset(open_dataset(planted.source))
    assert found.by_kind() == {}
    assert found.pairs == []
    said = found.to_dict()
    assert (said["samples"], said["images"], said["groups"], said["problems"]) == (72, 72, 12, {})
    assert said["stats"]["sizes"] == {"512x512": 48, "800x800": 24}
    assert 0.02 < said["stats"]["vessel_share"]["mean"] < 0.08
    json.dumps(said, allow_nan=False)


@pytest.mark.slow
def test_it_audits_exactly_as_planted_and_the_repaired_copy_is_better(planted, tmp_path):
    dataset = open_dataset(planted.root)
    before = {path: path.read_bytes() for path in planted.root.rglob("*") if path.is_file()}
    audit = audit_dataset(dataset)
    name_of = {sample.id: sample.image.name for sample in dataset} | {"": ""}
    found = {kind: {name_of[sample_id] for sample_id in ids} for kind, ids in audit.by_kind().items()}
    assert found == planted.planted
    elsewhere = {"unreadable_annotation", "not_an_area"}  # LabelMe's alone: see test_labelme; of masks: test_masks
    assert set(KINDS) - set(found) == elsewhere | {"unnamed_value", "inverted_suspected", "unaccounted"}
    told = json.dumps(audit.to_dict(), allow_nan=False) + "\n".join(audit.to_lines())
    assert "INVENTED" not in told
    assert ".png" not in told

    changes = export_dataset(dataset, tmp_path / "repaired").changes
    assert {path: path.read_bytes() for path in planted.root.rglob("*") if path.is_file()} == before
    listed = json.loads((tmp_path / "repaired" / "changes.json").read_text())
    assert len(listed) == len(changes)
    repairable = {(i, k) for k, ids in audit.by_kind().items() for i in ids if KINDS[k].repair}
    gone = {sample_id for sample_id, kind in repairable if kind in ("unreadable_image", "missing_image")}
    assert {(c["id"], c["kind"]) for c in listed if c["kind"] in KINDS} == repairable
    copy = open_dataset(tmp_path / "repaired")
    assert {sample.id for sample in copy} == {sample.id for sample in dataset} - gone
    left = {kind: set(ids) for kind, ids in audit_dataset(copy).by_kind().items()}
    expected = {k: set(ids) - gone for k, ids in audit.by_kind().items() if not KINDS[k].repair}
    for kind in ("orphan_file", "truth_disagrees", "mask_size", "mask_unreadable"):  # mask files are not copied
        del expected[kind]
    expected["unannotated"] |= expected.pop("unknown_truth")
    del expected[
        "size_suspected"
    ]  # cut off at the border it cannot be seen any more: the lines above say to look first
    assert left == expected
    for sample in copy:
        original = dataset[sample.id]
        if sample.truth() is not None and not {d.kind for d in original.defects} & {"unknown_truth"}:
            assert dice(sample.truth(), original.truth()) > 0.99
    assert not [
        path for path in (tmp_path / "repaired").rglob("*") if path.is_file() and b"INVENTED" in path.read_bytes()
    ]


def dice(a, b):
    return 1.0 if not (a | b).any() else 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture
def small(make_folder, square):
    return make_folder(
        annotations=[
            {"image": "a.png", "mask": [[square, square]], "text": ["vessel"]},
            {"image": "b.png", "mask": [[square]], "text": "vessel"},
        ]
    )


def run_cli(arguments, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sa2va-lab", *map(str, arguments)])
    status = 0
    try:
        cli.main()
    except SystemExit as stop:
        status = stop.code or 0
    return status, *capsys.readouterr()


def test_the_command_says_what_training_does_and_where_the_copy_is(small, tmp_path, capsys, monkeypatch):
    status, out, _ = run_cli(["audit", small, "--fix", tmp_path / "copy"], capsys, monkeypatch)
    assert status == 0
    assert "duplicate_annotation: 1 (the same outline twice)" in out
    assert "text_type: 1" in out
    assert "takes one letter as the phrase" in out
    assert "a.png" not in out
    assert (tmp_path / "copy" / "annotations.json").is_file()
    _, out, _ = run_cli(["audit", small, "--names"], capsys, monkeypatch)
    assert "P01-V1-F001 is a.png" in out


def test_the_command_speaks_json(small, capsys, monkeypatch):
    status, out, _ = run_cli(["audit", small, "--json"], capsys, monkeypatch)
    said = json.loads(out)
    assert status == 0
    assert {"samples", "images", "groups", "problems", "stats"} <= set(said)
    assert said["problems"]["duplicate_annotation"] == ["P01-V1-F001"]
    assert said["problems"]["unannotated"] == ["P03-V1-F001"]
    assert "a.png" not in out


@pytest.mark.parametrize(
    ("out", "said"), [("data/copy", "lies in the data set itself"), ("data", "not empty"), ("full", "not empty")]
)
def test_a_copy_overwrites_nothing(small, tmp_path, capsys, monkeypatch, out, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    status, _, err = run_cli(["audit", small, "--fix", tmp_path / out], capsys, monkeypatch)
    assert status == 2
    assert said in err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_sizes_are_suspected_only_where_another_size_fits(make_folder):
    far = [1, 1, 900, 1, 900, 700, 1, 700]
    wide = [1, 1, 900, 1, 900, 2000, 1, 2000]
    root = make_folder(
        annotations=[{"image": n, "mask": [[p]], "text": ["x"]} for n, p in (("a.png", far), ("b.png", wide))],
        size=(512, 512),
    )
    audit = audit_dataset(open_dataset(root))
    assert audit.suspected == {"P01-V1-F001": (1024, 1024)}
    assert write_sizes(audit) == root / "sizes.json"
    assert json.loads((root / "sizes.json").read_text()) == {"a.png": [1024, 1024]}
    with pytest.raises(LabError, match="exists already"):
        write_sizes(audit)
    dataset = open_dataset(root)
    sample = dataset["P01-V1-F001"]
    assert sample.source().size == (1024, 1024)
    assert sample.truth()[1:350, 1:450].all()
    assert not sample.truth()[351:].any()
    assert "size_mismatch" in audit_dataset(dataset).by_kind()
    (root / "sizes.json").write_text(json.dumps({"a.png": [0, 5]}))
    with pytest.raises(LabError, match=r"sizes.json is not a table of sizes"):
        open_dataset(root)


def test_all_frames_of_a_video_are_suspected_and_the_command_can_believe_it(make_folder, capsys, monkeypatch):
    inside, far = [1, 1, 90, 1, 90, 70, 1, 70], [1, 1, 700, 1, 700, 700, 1, 700]
    names = ("x_V1_F1.png", "x_V1_F2.png", "x_V2_F1.png", "y_V1_F1.png")
    outlines = dict(zip(names, (inside, far, inside, inside), strict=True))
    entries = [{"image": name, "mask": [[outline]], "text": ["x"]} for name, outline in outlines.items()]
    root = make_folder(images=names, annotations=entries, size=(512, 512))
    dataset = open_dataset(root)
    by_name = {sample.image.name: sample.id for sample in dataset}
    audit = audit_dataset(dataset)
    assert audit.suspected == {by_name[name]: (800, 800) for name in names[:2]}
    status, out, _ = run_cli(["audit", root, "--write-sizes"], capsys, monkeypatch)
    assert status == 0
    assert "size_mismatch: 2" in out
    assert "size_suspected" not in out
    assert open_dataset(root)[by_name["x_V1_F1.png"]].source().size == (800, 800)
    assert open_dataset(root)[by_name["x_V2_F1.png"]].source().size is None
    assert run_cli(["audit", root, "--write-sizes"], capsys, monkeypatch)[0] == 2


def test_an_object_of_256_polygons(make_folder):
    corners = [(x, y) for y in range(0, 64, 4) for x in range(0, 64, 4)]
    polygons = [[x, y, x + 2, y, x + 2, y + 2, x, y + 2] for x, y in corners]
    assert len(polygons) == 256
    entry = {"image": "a.png", "mask": [polygons], "text": ["x"]}
    root = make_folder(images=("a.png",), annotations=[entry], size=(64, 64))
    audit = audit_dataset(open_dataset(root))
    assert audit.rows[0]["polygons"] == 256
    assert audit.rows[0]["share"] == 0.25
    assert [defect.kind for defect in audit.defects["P01-V1-F001"]] == ["image_blank"]
    polygons += [[x + 1, y, x + 3, y, x + 3, y + 2, x + 1, y + 2] for x, y in corners[:8]]
    make_folder(images=("a.png",), annotations=[entry], size=(64, 64))
    assert "overlap" in {defect.kind for defect in audit_dataset(open_dataset(root)).defects["P01-V1-F001"]}
