"""Samples: what is read when, sizes as a person sees them, masks as files, hashes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sa2va_lab.datasets import Sample, annotations, open_dataset
from sa2va_lab.datasets.drawings import DrawnTruth, MaskFile
from sa2va_lab.datasets.pictures import look
from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.processing import read_image


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_what_a_person_sees(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    with Image.open(path) as opened:
        width, height = ImageOps.exif_transpose(opened).size
    assert Sample("P01-V1-F001", path, "x", "P01").image_size() == (height, width)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_upright_however_it_is_stored(tmp_path, compression, orientation):
    pixels = np.arange(60, dtype=np.uint8).reshape(5, 12)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "turned.tif", exif=exif, compression=compression)
    with Image.open(tmp_path / "turned.png") as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    seen, defects = look(tmp_path / "turned.tif")
    assert (seen == upright).all()
    assert (np.asarray(read_image(tmp_path / "turned.tif").convert("L")) == upright).all()
    assert Sample("P01-V1-F001", tmp_path / "turned.tif", "x", "P01").image_size() == upright.shape
    assert ("image_rotated" in {defect.kind for defect in defects}) == (orientation > 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "I;16", "CMYK"])
def test_every_kind_of_image_has_its_size(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I;16") else "image.png")
    Image.new(mode, (7, 5)).save(path)
    assert Sample("P01-V1-F001", path, "x", "P01").image_size() == (5, 7)


def test_an_unreadable_image_is_one_sentence(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(LabError, match="cannot be read"):
        Sample("P01-V1-F001", tmp_path / "broken.png", "x", "P01").image_size()


def test_nothing_is_decoded_before_it_is_asked_for(make_folder, square):
    root = make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}])
    for path in (root / "images").iterdir():
        path.write_bytes(b"no picture at all")
    dataset = open_dataset(root)
    assert len(dataset) == 3
    with pytest.raises(LabError, match="cannot be read"):
        dataset["P01-V1-F001"].truth()


def test_a_sample_cannot_be_changed(make_folder, square):
    root = make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}])
    sample = open_dataset(root)["P01-V1-F001"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.id = "P09-V1-F001"
    with pytest.raises(TypeError):
        sample.drawings[2] = None


TRUTH = np.array([[0, 1, 1], [0, 0, 1]], bool)


def save_mask(path, mode):
    grey = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    if mode == "0/1":
        Image.fromarray(TRUTH.astype(np.uint8)).save(path)
    elif mode == "16-bit":
        Image.fromarray(TRUTH.astype(np.uint16) * 65535).save(path)
    elif mode == "palette, white first":
        image = Image.fromarray((~TRUTH).astype(np.uint8), "P")
        image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(path)
    elif mode == "palette, red":
        image = Image.fromarray(TRUTH.astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 128, 0, 0])
        image.save(path)
    else:
        grey.convert(mode).save(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Pillow's own, about naming the mode of an array
@pytest.mark.parametrize(
    "mode", ["L", "0/1", "1", "RGB", "RGBA", "LA", "16-bit", "palette, white first", "palette, red"]
)
def test_a_mask_is_the_same_truth_however_it_was_saved(tmp_path, mode):
    save_mask(tmp_path / "mask.png", mode)
    truth = MaskFile(tmp_path / "mask.png").rasterise((2, 3))
    assert truth.dtype == bool
    assert (truth == TRUTH).all()


def test_a_mask_of_another_size_is_refused(tmp_path):
    save_mask(tmp_path / "mask.png", "L")
    with pytest.raises(LabError, match="is 3x2 but its image is 2x3"):
        MaskFile(tmp_path / "mask.png").rasterise((3, 2))


def test_a_mask_of_many_values_is_refused(tmp_path):
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(tmp_path / "mask.png")
    with pytest.raises(LabError, match="5 values besides 0"):
        MaskFile(tmp_path / "mask.png").rasterise((2, 3))


def test_a_mask_drawn_in_transparency_is_not_taken_for_an_empty_one(tmp_path):
    image = Image.new("RGBA", (3, 2))
    image.putalpha(Image.fromarray(TRUTH.astype(np.uint8) * 255))
    image.save(tmp_path / "mask.png")
    with pytest.raises(LabError, match="transparency"):
        MaskFile(tmp_path / "mask.png").rasterise((2, 3))


def test_an_unreadable_mask_is_one_sentence(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"\x89PNG no")
    with pytest.raises(LabError, match="cannot be read"):
        MaskFile(tmp_path / "mask.png").rasterise((2, 3))


def test_hashes_follow_what_they_are_about(make_folder, square):
    entry = {"image": "a.png", "mask": [[square]], "text": ["vessel"]}
    root = make_folder(annotations=[entry])

    def hashes():
        dataset = open_dataset(root)
        return dataset.manifest_sha256, dataset.truth_sha256

    manifest, truth = hashes()
    assert hashes() == (manifest, truth)

    make_folder(annotations=[entry | {"mask": [[[2, *square[1:]]]]}])
    assert hashes()[0] == manifest  # a corrected truth leaves what a model was given as it was
    assert hashes()[1] != truth

    make_folder(annotations=[entry | {"text": ["catheter"]}])
    assert hashes()[0] != manifest

    make_folder(annotations=[entry], size=(9, 6))
    assert hashes()[0] != manifest
    assert hashes()[1] == truth


def test_the_manifest_opens_no_truth(make_masks):
    root = make_masks({"a.png": np.eye(6, 8)})
    dataset = open_dataset(root)
    before = dataset.manifest_sha256
    (root / "masks" / "a.png").unlink()
    assert dataset.manifest_sha256 == before
    with pytest.raises(LabError, match="cannot be read"):
        _ = dataset.truth_sha256


def hide(sample, box, **more):
    """The sample with what lies in a box (top, left, bottom, right) ignored."""
    top, left, bottom, right = box
    drawn = np.array([left, top, right, top, right, bottom, left, bottom], float)
    return dataclasses.replace(sample, ignored=DrawnTruth((drawn,)), **more)


def test_what_is_ignored_is_neither_there_nor_not_there(make_folder, square):
    data = open_dataset(make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}]))
    plain = data.samples[0]
    assert plain.ignore() is None
    assert plain.truth().sum() == 9
    half = hide(plain, (0, 0, 3, 8))
    assert half.ignore().dtype == bool
    assert half.ignore().sum() == 24
    assert half.ignore().shape == (6, 8)
    assert half.truth().sum() == 3
    assert not (half.truth() & half.ignore()).any()
    assert hide(plain, (0, 0, 0, 0)).ignore() is None  # nothing of it lies in the image
    other = dataclasses.replace(data, samples=[half, *data.samples[1:]])
    assert other.truth_sha256 != data.truth_sha256
    assert other.manifest_sha256 == data.manifest_sha256


def test_what_is_ignored_of_an_image_file_that_is_gone_is_one_sentence(make_folder, square):
    data = open_dataset(make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}]))
    gone = dataclasses.replace(data.samples[0], ignored=MaskFile(Path("gone.png")))
    with pytest.raises(LabError, match="^P[0-9]+.*: its mask cannot be read"):
        gone.ignore()


def test_an_image_may_bring_its_own_question_for_its_phrase(make_folder, square):
    data = open_dataset(make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}]))
    asks = dataclasses.replace(data.samples[0], prompts={"vessel": "What carries the blood?"})
    assert data.samples[0].prompt is None
    assert asks.prompt == "What carries the blood?"
    assert dataclasses.replace(asks, phrase="catheter").prompt is None
    other = dataclasses.replace(data, samples=[asks, *data.samples[1:]])
    assert other.manifest_sha256 != data.manifest_sha256
    assert other.truth_sha256 == data.truth_sha256


def test_a_reader_hands_over_what_is_ignored_and_what_to_ask(make_folder, square, monkeypatch):
    read = annotations.find

    def find(folder, file):
        found = read(folder, file)
        found.ignored["a.png"] = DrawnTruth((np.array([0, 0, 2, 0, 2, 6, 0, 6], float),))
        found.prompts["a.png"] = {"vessel": "What carries the blood?"}
        return found

    monkeypatch.setattr(annotations, "find", find)
    data = open_dataset(make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}]))
    assert data.samples[0].ignore().sum() == 12
    assert data.samples[0].prompt == "What carries the blood?"
    assert data.samples[1].ignore() is None
    assert data.samples[1].prompt is None
