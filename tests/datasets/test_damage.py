"""Correct data sets of every format, damaged at random: the ground truth is right, or something is said of it."""

import copy
import hashlib
import io
import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.datasets.folders import IMAGE_SUFFIXES
from sa2va_lab.errors import LabError

SIZE = (12, 16)
NAMES = ("a", "b", "c")
BOXES = {"a": [(1, 1, 4, 4), (8, 6, 13, 9)], "b": [(2, 3, 9, 5)], "c": [(0, 7, 5, 11), (6, 0, 9, 2)]}
AWAY = "outputs"  # below a folder of this name no key file is written


def truth_of(name):
    mask = np.zeros(SIZE, bool)
    for left, top, right, bottom in BOXES[name]:
        mask[top:bottom, left:right] = True
    return mask


def outline(box):
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def picture(name):
    return np.random.default_rng(ord(name)).integers(0, 200, SIZE, np.uint8)


def sa2va():
    entries = [
        {"image": f"{n}.png", "mask": [[outline(box)] for box in BOXES[n]], "text": ["vessel"] * len(BOXES[n])}
        for n in NAMES
    ]
    return {f"images/{n}.png": picture(n) for n in NAMES} | {"annotations.json": entries}


def coco(names=NAMES, folder="images/"):
    numbers = {name: number for number, name in enumerate(names, 1)}
    boxes = [(n, box) for n in names for box in BOXES[n]]
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": SIZE[1], "height": SIZE[0]} for n, i in numbers.items()],
        "annotations": [
            {"id": i, "image_id": numbers[n], "category_id": 1, "segmentation": [outline(box)], "iscrowd": 0}
            for i, (n, box) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 1, "name": "vessel"}],
    }
    return {f"{folder}{n}.png": picture(n) for n in names} | {"annotations.json": content}


def coco_splits():
    train, val = coco("ab"), coco("c")
    train["annotations/instances_train.json"] = train.pop("annotations.json")
    val["annotations/instances_val.json"] = val.pop("annotations.json")
    return train | val


def labelme(folder="", images=""):
    files = {}
    for n in NAMES:
        shapes = [
            {"label": "vessel", "points": np.reshape(outline(box), (-1, 2)).tolist(), "shape_type": "polygon"}
            for box in BOXES[n]
        ]
        files[f"{images}{n}.png"] = picture(n)
        files[f"{folder}{n}.json"] = {
            "shapes": shapes,
            "imagePath": f"{n}.png",
            "imageHeight": SIZE[0],
            "imageWidth": SIZE[1],
        }
    return files


def masks(image="images/{}.png", mask="masks/{}.png", value=255):
    files = {image.format(n): picture(n) for n in NAMES}
    return files | {mask.format(n): truth_of(n).astype(np.uint8) * value for n in NAMES}


def label_images():
    files = masks(value=1)
    files["masks/a.png"][0, 0] = 2
    return files | {"labels.json": {"vessel": 1, "wire": 2}}


def yolo():
    files = {f"images/{n}.png": picture(n) for n in NAMES} | {"data.yaml": "names: [vessel, wire]\n"}
    for n in NAMES:
        shares = [np.reshape(outline(box), (-1, 2)) / (SIZE[1], SIZE[0]) for box in BOXES[n]]
        files[f"labels/{n}.txt"] = "".join("0 " + " ".join(f"{v:.8f}" for v in s.ravel()) + "\n" for s in shares)
    return files


FORMATS = {
    "sa2va": sa2va,
    "coco": coco,
    "coco, splits": coco_splits,
    "labelme": labelme,
    "labelme, annotations/": lambda: labelme("annotations/", "images/"),
    "masks": masks,
    "masks, endings": lambda: masks(mask="masks/{}_mask.png"),
    "masks beside": lambda: masks("{}.png", "{}_1stHO.png"),
    "masks by patient": lambda: masks("{}/img/1.png", "{}/gt/1.png"),
    "label images": label_images,
    "yolo": yolo,
}


def encode(content):
    """The bytes of a file: pixels, JSON or text."""
    if isinstance(content, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(content).save(buffer, "png")
        return buffer.getvalue()
    return (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )


def nodes(value, parent=None, key=None):
    """(container, key) of everything in a JSON value."""
    if parent is not None:
        yield parent, key
    for inner, child in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from nodes(child, value, inner)


def damage_json(files, rng):
    """One node of one JSON file loses its key, its name or its type."""
    names = [name for name, content in files.items() if isinstance(content, dict | list) and content]
    if not names:
        return damage_file(files, rng)
    content = files[rng.choice(names)]
    parent, key = rng.choice(list(nodes(content)))
    value, what = parent[key], rng.randrange(5)
    if isinstance(parent, dict) and what == 0:
        del parent[key]
    elif isinstance(parent, dict) and what == 1:
        parent[f"{key}_"] = parent.pop(key)
    elif what == 2 and isinstance(value, int | float):
        parent[key] = rng.choice([str(value), float(value)])
    elif what == 3:
        parent[key] = [copy.deepcopy(value)]
    else:
        others = [other for other in (None, "x", {}, 3, ["x"]) if type(other) is not type(value)]
        others = [o for o in others if isinstance(parent, dict) or o != 3]  # another coordinate is another outline
        parent[key] = rng.choice(others)


def damage_file(files, rng):
    """One file is renamed, moved, lost, cut, doubled or encoded otherwise."""
    name = rng.choice(sorted(files))
    stem, dot, ending = name.rpartition(".")
    folder, slash, base = stem.rpartition("/")
    what = rng.randrange(9)
    if what == 0:
        files[f"{stem}{rng.choice(['_x', '_new', '_mask', '_gt', ' (1)', '_2ndHO', '_V2'])}{dot}{ending}"] = files.pop(
            name
        )
    elif what == 1:
        start = rng.choice(["new_", "mask_", "x", "1"])
        files[f"{folder}{slash}{start}{base}.{ending}"] = files.pop(name)
    elif what == 2:
        files[f"{rng.choice(['x/', 'train/', 'masks/', 'labels/', 'other/x/'])}{name}"] = files.pop(name)
    elif what == 3:
        files[f"{stem}.{rng.choice(['PNG', 'jpg', 'JSON', 'bak', 'gif', 'txt'])}"] = files.pop(name)
    elif what == 4:
        del files[name]
    elif what == 5 and ending != "txt":  # a text that is cut is another text
        files[name] = encode(files[name])[: rng.choice([0, 20, 60])]
    elif what == 6:
        files[f"{stem}_copy.{ending}"] = files[name]
    elif what == 7 and not isinstance(files[name], np.ndarray | bytes):
        encoding = rng.choice(["utf-16", "utf-8-sig", "gb18030"])
        files[name] = encode(files[name]).decode().encode(encoding)
    else:
        files[rng.choice(["notes.json", "masks/z.png", "labels/z.txt", "images/z.png", "z.png", "README.txt"])] = (
            rng.choice([b"", b"{}", b"0 1 2", encode(truth_of("a").astype(np.uint8))])
        )


def damage_mask(files, rng):
    """One mask (or all of them) is inverted, scaled, blurred, coloured or cut."""
    whole = [name for name in files if isinstance(files[name], np.ndarray) and files[name].shape == SIZE]
    chosen = [name for name in whole if len(np.unique(files[name])) < 4]
    if not chosen:
        return damage_json(files, rng)
    for name in chosen if rng.randrange(2) else [rng.choice(chosen)]:
        pixels = files[name]
        image, buffer = Image.fromarray(pixels), io.BytesIO()
        what = rng.randrange(8)
        if what == 0 and pixels.max() != 2:  # with a name for each value that would be another truth
            pixels = pixels.max() - pixels
        elif what == 1:
            pixels = np.repeat(pixels, 2, 0)
        elif what == 2 and pixels.max() > 2:  # else it would stay a mask of two values, and nobody could tell
            pixels = np.asarray(image.resize((9, 7)).resize(SIZE[::-1], Image.Resampling.BILINEAR))
        elif what == 3:
            pixels = np.stack([pixels, 0 * pixels, 0 * pixels], -1)
        elif what == 4:
            pixels = np.stack([255 + 0 * pixels] * 3 + [pixels], -1)
        elif what == 5:
            pixels = pixels // 2 if pixels.max() > 2 else pixels * 7
        elif what == 6:
            paletted = Image.new("P", SIZE[::-1])
            paletted.putdata((np.minimum(pixels, 3) if pixels.max() < 3 else pixels > 0).ravel().astype(int).tolist())
            paletted.putpalette([0, 0, 0, 0, 0, 1, 0, 1, 0])
            paletted.save(buffer, "png")
        else:
            image.save(buffer, "tiff", save_all=True, append_images=[image])
        files[name] = buffer.getvalue() or pixels


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(content))


def check(root, expected):
    """expected: {sha256 of an image file: its truth}. Every truth is right, or something is said of it."""
    try:
        dataset = open_dataset(root, phrase=None if (root / "labels.json").exists() else "vessel")
        audit = audit_dataset(dataset)
    except LabError:
        return
    if dataset.format == "images":  # nothing is left that could be an annotation
        assert dataset.reason.startswith("images without annotations of a known format")
        return
    assert all(account.closed for account in dataset.accounts)
    seen = set()
    for sample in dataset:
        digest = sample.image_sha256()
        seen.add(digest)
        if digest not in expected or sample.id in audit.defects or "" in audit.defects:
            continue
        assert (sample.truth() == expected[digest]).all(), "a wrong truth, and nothing is said"
    images = [path for path in root.rglob("*") if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
    there = {hashlib.sha256(path.read_bytes()).hexdigest() for path in images}
    lost = (expected.keys() & there) - seen
    assert not lost or audit.defects or "left out" in dataset.reason, "an image is not seen, and nothing is said"


def expect():
    return {hashlib.sha256(encode(picture(n))).hexdigest(): truth_of(n) for n in NAMES}


@pytest.mark.parametrize("name", FORMATS)
def test_without_damage_every_truth_is_right_and_nothing_is_said(tmp_path, name):
    write(tmp_path / AWAY, FORMATS[name]())
    dataset = open_dataset(tmp_path / AWAY)
    assert audit_dataset(dataset).to_lines()[-1] == "no defect found"
    assert all(account.closed and not account.lost for account in dataset.accounts)
    truths, expected = {sample.image_sha256(): sample.truth() for sample in dataset}, expect()
    assert truths.keys() == expected.keys()
    assert all((truths[digest] == expected[digest]).all() for digest in expected)


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(FORMATS)),
    kinds=st.lists(st.sampled_from([damage_json, damage_file, damage_mask]), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_damaged_truths_are_right_or_something_is_said(tmp_path_factory, name, kinds, seed):
    files, rng = copy.deepcopy(FORMATS[name]()), random.Random(seed)
    for damage in kinds:
        damage(files, rng)
    root = tmp_path_factory.mktemp("damage") / AWAY
    write(root, files)
    check(root, expect())
