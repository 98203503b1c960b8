"""Data sets as they are downloaded, and masks as programs save them: what belongs to what, and what the values mean."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.datasets.naming import match_files, part_images, read_place, split_of
from sa2va_lab.errors import LabError

SIZE = (6, 8)


def draw(number):
    """A mask of `number` pixels."""
    return (np.arange(48).reshape(SIZE) < number).astype(np.uint8) * 255


@pytest.fixture
def lay(tmp_path):
    """Writes files: a name with 0 is a picture, with another number a mask of so many pixels."""

    def make(files, root="set"):
        for number, (name, area) in enumerate(files.items()):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw(area) if area else np.full(SIZE, 40 + number, np.uint8)
            Image.fromarray(pixels).convert("RGB" if name.endswith(".ppm") else "L").save(path)
        return tmp_path / root

    return make


LAYOUTS = {
    "DRIVE": {
        "training/images/21_training.tif": 0,
        "training/1st_manual/21_manual1.gif": 9,
        "training/mask/21_training_mask.gif": 40,
        "test/images/01_test.tif": 0,
        "test/1st_manual/01_manual1.gif": 5,
        "test/2nd_manual/01_manual2.gif": 4,
        "test/mask/01_test_mask.gif": 40,
    },
    "CHASE_DB1": {
        "Image_01L.jpg": 0,
        "Image_01L_1stHO.png": 9,
        "Image_01L_2ndHO.png": 8,
        "Image_02R.jpg": 0,
        "Image_02R_1stHO.png": 5,
        "Image_02R_2ndHO.png": 4,
    },
    "STARE": {
        "stare-images/im0001.ppm": 0,
        "labels-ah/im0001.ah.ppm": 9,
        "labels-vk/im0001.vk.ppm": 8,
        "stare-images/im0002.ppm": 0,
        "labels-ah/im0002.ah.ppm": 5,
        "labels-vk/im0002.vk.ppm": 4,
    },
    "HRF": {
        "images/01_dr.JPG": 0,
        "manual1/01_dr.tif": 9,
        "mask/01_dr_mask.tif": 40,
        "images/02_h.jpg": 0,
        "manual1/02_h.tif": 5,
        "mask/02_h_mask.tif": 40,
    },
    "XCAD": {
        "train/images/7_1.png": 0,
        "test/images/1_1.png": 0,
        "test/masks/1_1.png": 9,
        "test/images/2_1.png": 0,
        "test/masks/2_1.png": 5,
    },
    "DCA1": {"1.pgm": 0, "1_gt.pgm": 9, "2.pgm": 0, "2_gt.pgm": 5},
    "patients": {"images/p1/a.png": 0, "masks/p1/a_mask.png": 9, "images/p2/a.png": 0, "masks/p2/a_mask.png": 5},
    "patients, masks beside": {"p1/a.png": 0, "p1/mask_a.png": 9, "p2/a.png": 0, "p2/mask_a.png": 5},
    "patients, a folder each": {"p1/img/a.png": 0, "p1/gt/a.png": 9, "p2/img/a.png": 0, "p2/gt/a.png": 5},
    "masks in one folder": {"images/p1/a.png": 0, "masks/a.png": 9, "images/p2/b.png": 0, "masks/b_seg.png": 5},
    "splits inside": {"images/train/a.png": 0, "masks/train/a.png": 9, "images/val/a.png": 0, "masks/val/a.png": 5},
    "STARE in one folder": {"im1.ppm": 0, "im1.ah.ppm": 9, "im1.vk.ppm": 8, "im2.ppm": 0, "im2.ah.ppm": 5},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_opens_as_it_was_downloaded(lay, name):
    dataset = open_dataset(lay(LAYOUTS[name]))
    truths = [sample.truth() for sample in dataset]
    assert sorted(int(truth.sum()) for truth in truths if truth is not None) == [5, 9]
    assert len(truths) == 2 + (name == "XCAD")  # one image of it has no mask
    seconds = [sample.truth(annotator=2) for sample in dataset]
    second = {"DRIVE": [4], "CHASE_DB1": [4, 8], "STARE": [4, 8], "STARE in one folder": [8]}.get(name, [])
    assert sorted(int(truth.sum()) for truth in seconds if truth is not None) == second
    fields = [sample.ignore() for sample in dataset if sample.ignore() is not None]
    assert [int(ignored.sum()) for ignored in fields] == [8, 8] * (name in ("DRIVE", "HRF"))
    splits = {
        "DRIVE": {"train": 1, "test": 1},
        "XCAD": {"train": 1, "test": 2},
        "splits inside": {"train": 1, "val": 1},
    }
    assert {split: len(ids) for split, ids in dataset.splits.items()} == splits.get(name, {})
    assert len({sample.group for sample in dataset}) == len(dataset)
    assert ("groups by the folders" in dataset.reason) == (name.startswith("patients") or name == "masks in one folder")
    audit = audit_dataset(dataset)
    assert set(audit.by_kind()) - {"near_duplicate", "image_blank"} == ({"unannotated"} if name == "XCAD" else set())
    assert all(account.closed for account in dataset.accounts)


def test_the_frames_of_a_patients_folder_are_one_group(lay):
    dataset = open_dataset(lay({"p1/a.png": 0, "p1/b.png": 0, "p2/a.png": 0, "p1/a_gt.png": 3, "p2/a_gt.png": 3}))
    folders = {group: set() for group in ("P01", "P02")}
    for sample in dataset:
        folders[sample.group].add(sample.image.parent.name)
    assert sorted(map(sorted, folders.values())) == [["p1"], ["p2"]]


def test_the_real_set_under_its_original_names(chasedb1, tmp_path):
    for image in sorted((chasedb1 / "images").iterdir()):
        shutil.copyfile(image, tmp_path / image.name)
        shutil.copyfile(chasedb1 / "masks" / image.name, tmp_path / f"{image.stem}_1stHO.png")
        shutil.copyfile(chasedb1 / "masks_obs2" / image.name, tmp_path / f"{image.stem}_2ndHO.png")
    dataset = open_dataset(tmp_path, groups=r"Image_(\d+)")
    assert (len(dataset), len({sample.group for sample in dataset})) == (8, 4)
    assert "by their names: _1stHO _2ndHO" in dataset.reason
    assert "a second annotator for 8 images" in dataset.reason
    for sample in dataset.samples[:2]:
        for annotator, folder in ((1, "masks"), (2, "masks_obs2")):
            with Image.open(chasedb1 / folder / sample.image.name) as image:
                assert (sample.truth(annotator=annotator) == (np.asarray(image.convert("L")) > 0)).all()


def test_a_field_of_view_alone_is_said_to_cover_too_much(lay):
    dataset = open_dataset(lay({"images/01_test.tif": 0, "mask/01_test_mask.gif": 40}))
    assert dataset.problems == ("1 of 1 ground truths that were looked at cover more than half of the image",)
    assert "inverted_suspected" in audit_dataset(dataset).by_kind()


def test_beside_outlines_more_masks_of_an_image_are_in_nobodys_way(lay, square):
    root = lay({"images/a.png": 0, "masks/a.png": 3, "labels/a.png": 4})
    (root / "annotations.json").write_text(json.dumps([{"image": "a.png", "mask": [[square]], "text": ["vessel"]}]))
    dataset = open_dataset(root)
    assert (dataset.format, int(dataset.samples[0].truth().sum())) == ("sa2va", 9)
    assert "1 more masks of the same images left out" in dataset.reason


def test_what_lies_elsewhere_is_said(lay):
    root = lay({"images/a.png": 0, "masks/a.png": 3, "pictures/x.png": 0, "overview.png": 0})
    (root / "im2.ppm.gz").write_bytes(b"packed")
    reason = open_dataset(root).reason
    assert "1 image files outside the folders of images left out" in reason
    assert "1 packed files (.gz) left out: unpack them" in reason


def test_letters_and_their_marks_may_be_written_apart(lay):
    dataset = open_dataset(lay({"images/\u00e9.png": 0, "masks/e\u0301.png": 3}))
    assert dataset.samples[0].truth().sum() == 3


def test_a_packed_set_is_to_be_unpacked(tmp_path):
    (tmp_path / "im1.ppm.gz").write_bytes(b"packed")
    with pytest.raises(LabError, match=r"of no format that is read; .*1 packed files \(.gz\) left out: unpack them"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"images/a.png": 0, "masks/a.png": 3, "masks/a_mask.png": 4}, "1 masks of images that have another one"),
        (
            {"images/a.png": 0, "masks/a_tr1.png": 3},
            r'1 of 1 masks belong to no image: .* like "a_xx9.png"|"\.\.\._xx9',
        ),
        (
            {"images/aa1.png": 0, "images/aa2.png": 0, "masks/aa1_new.png": 3, "masks/aa2_new.png": 3},
            r'2 of 2 .*: one is called like "\.\.\._new.png", and what is there like "\.\.\..png"',
        ),
        ({"images/p1/f.png": 0, "masks/p2/f.png": 3}, "1 of 1 masks belong to no image"),
    ],
)
def test_masks_that_fit_nothing_are_an_error_with_a_pair(lay, files, said):
    with pytest.raises(LabError, match=said):
        open_dataset(lay(files))


def test_what_names_say():
    assert read_place("training/images/21_training.tif")[:4] == ("images", ("training",), "train", "21_training")
    assert [split_of(name) for name in ("instances_val2017", "train", "strain", "testing_1")] == [
        "val",
        "train",
        "",
        "test",
    ]
    assert part_images(["a.png", "a_gt.png", "b_gt.png"]) == (["a.png", "b_gt.png"], ["a_gt.png"], [])
    assert match_files(["labels/x/f.txt", "labels/y/f.txt"], {"x/f.png": "f"})["labels/y/f.txt"] is None


def save(root, name, pixels, **how):
    (root / "masks").mkdir(exist_ok=True)
    image = Image.fromarray(pixels, **{"mode": how["mode"]} if "mode" in how else {})
    if "palette" in how:
        image.putpalette(how["palette"])
    image.save(root / "masks" / name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Pillow's own, about naming the mode of an array
def test_what_the_values_of_a_mask_mean(make_folder):
    root = make_folder(images=("a.png",))
    drawn = draw(9) > 0

    def area(pixels, labels=None, phrase=None, **how):
        (root / "labels.json").unlink(missing_ok=True)
        if labels is not None:
            (root / "labels.json").write_text(json.dumps(labels))
        save(root, "a.png", pixels, **how)
        return int(open_dataset(root, phrase=phrase).samples[0].truth().sum())

    assert area(drawn.astype(np.uint8), mode="P", palette=[0, 0, 0, 0, 0, 1]) == 9  # nearly black
    assert area(drawn.astype(np.uint8), mode="P", palette=[0, 0, 0, 0, 0, 0]) == 9  # black: the index counts
    assert area(drawn.astype(np.uint8), mode="P", palette=[9, 9, 9, 200, 0, 0]) == 9
    assert area(np.stack([0 * drawn, 0 * drawn, drawn], -1).astype(np.uint8)) == 9  # blue 1 is grey 0
    two = drawn.astype(np.uint8)
    two[0, :4] = 2
    assert area(two, {"blood vessel": [1, 2]}) == 9
    assert area(two, {"1": "blood vessel", "2": "blood vessel", "background": 0}) == 9
    assert area(two, {"*": "blood vessel"}) == 9
    assert area(two, {"2": "catheter", "*": "blood vessel"}, phrase="blood vessel") == 5
    assert area(two, {"blood vessel": 1, "background": [0, 2]}) == 5
    assert area(two, {"blood vessel": 1, "Background": 2}) == 5
    assert area(two, {"mask_threshold": 2}) == 4
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[drawn], colours[0, 0] = (255, 0, 0), (0, 255, 0)
    assert area(colours, {"#ff0000": "blood vessel", "#00ff00": "catheter"}, phrase="blood vessel") == 8
    assert "grey masks from 128 on" in open_with(root, {"mask_threshold": 128}).reason
    for labels in ({"vessel": -1}, {"vessel": 0}, {"vessel": [1, 1]}, {"#ff00": "vessel"}, {"mask_threshold": "x"}):
        with pytest.raises(LabError, match="labels.json is not a table of the values of each phrase"):
            open_with(root, labels)


def open_with(root, labels):
    (root / "labels.json").write_text(json.dumps(labels))
    return open_dataset(root)


def test_a_value_without_a_name_is_a_defect_and_never_background_in_silence(make_masks):
    values = np.zeros(SIZE, np.uint8)
    values[0, :4], values[1, :3] = 1, 2
    root = make_masks({"a.png": values, "b.png": (values == 1) * 1})
    (root / "labels.json").write_text('{"blood vessel": 1}')
    dataset = open_dataset(root)
    a, b = dataset
    assert b.truth().sum() == 4
    with pytest.raises(LabError, match="holds 1 of 2 values that labels.json does not name, such as 2; name them"):
        a.truth()
    audit = audit_dataset(dataset)
    assert audit.by_kind() == {"unnamed_value": [a.id], "image_blank": [a.id, b.id]}
    assert "2 masks: 1 read, 1 not; 2 images: 2 read" in audit.to_lines()
    save(root, "a.png", values * 50)
    save(root, "b.png", values * 50)
    with pytest.raises(LabError, match="2 of 2 masks that were looked at cannot be used: .* holds 2 of 2 values"):
        open_dataset(root)


def test_smooth_masks_are_refused_with_the_way_out(make_masks):
    root = make_masks({"a.png": np.arange(48).reshape(SIZE) * 5})
    with pytest.raises(LabError, match='"mask_threshold": 128'):
        open_dataset(root)
    assert open_dataset(root, mask_threshold=128).samples[0].truth().sum() == 22
    assert "grey masks from 128 on" in open_dataset(root, mask_threshold=128).reason


def test_an_image_that_cannot_be_read_hides_no_mask_that_is_none(make_masks):
    root = make_masks({name: np.arange(48).reshape(SIZE) for name in ("a.png", "b.png", "c.png")})
    (root / "images" / "c.png").write_bytes(b"damaged")
    with pytest.raises(LabError, match="2 of 2 masks that were looked at cannot be used"):
        open_dataset(root)


def test_an_inverted_set_is_suspected(make_masks):
    dataset = open_dataset(make_masks({"a.png": 255 - draw(5), "b.png": 255 - draw(7)}))
    assert "2 of 2 ground truths that were looked at cover more than half of the image" in dataset.reason
    assert audit_dataset(dataset).by_kind()["inverted_suspected"] == ["", "P01-V1-F001", "P02-V1-F001"]


def test_a_phrase_without_a_pixel_is_an_error(make_masks, make_folder, square):
    root = make_masks({"a.png": np.zeros(SIZE), "b.png": np.zeros(SIZE)})
    with pytest.raises(LabError, match='"blood vessel" has not one pixel in any of the 2 images that are annotated'):
        open_dataset(root)
    assert len(open_dataset(root, truths=False)) == 2  # a process that predicts looks at no truth
    shutil.rmtree(root / "masks")
    outside = [{"image": "a.png", "mask": [[[90, 90, 95, 90, 95, 95]]], "text": ["vessel"]}]
    with pytest.raises(LabError, match='"vessel" has not one pixel in any of the 1 images'):
        open_dataset(make_folder(annotations=outside))


def test_a_file_of_several_pictures_is_said_and_as_a_mask_refused(tmp_path, make_masks):
    frames = [Image.fromarray(np.full(SIZE, grey, np.uint8)) for grey in (10, 90, 200)]
    frames[0].save(tmp_path / "cine.gif", save_all=True, append_images=frames[1:])
    sample = open_dataset(tmp_path / "cine.gif").samples[0]
    assert sample.problems == (
        "it is a file of 3 pictures, no image: predict it as a film, or save the right one of its pictures alone",
    )
    root = make_masks({"b.png": draw(3)}, images=("a.png", "b.png"))
    Image.fromarray(draw(3)).save(root / "masks" / "a.tif", save_all=True, append_images=[Image.fromarray(draw(4))])
    with pytest.raises(LabError, match="its mask's file holds 2 pictures; expected one"):
        next(sample for sample in open_dataset(root) if sample.image.name == "a.png").truth()
    frames[0].save(root / "images" / "c.gif", save_all=True, append_images=frames[1:])
    assert "1 images with problems" in open_dataset(root).reason
    assert audit_dataset(open_dataset(root)).by_kind()["image_animated"]
