"""Splits, folds and groups: patients are never cut, leaks are errors that show the pairs."""

import json

import numpy as np
import pytest
from PIL import Image

from sa2va_lab import cli
from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.pseudonyms import KEY_FILE
from sa2va_lab.datasets.splits import (
    draw_splits,
    find_near_duplicates,
    fingerprint,
    fingerprint_dataset,
    fold_shares,
    refuse_near_duplicates,
    write_splits,
)
from sa2va_lab.errors import LabError
from sa2va_lab.files import hash_splits


@pytest.fixture
def films(tmp_path):
    """Twelve patients with 2 to 5 frames of 64x64, the later ones with more vessel, as a mask folder."""
    root = tmp_path / "films"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / KEY_FILE).write_text(json.dumps({"key": f"{12:064x}", "numbers": {}}))  # draws follow the numbers
    random = np.random.default_rng(0)
    for patient in range(12):
        for frame in range(2 + patient % 4):
            name = f"INVENTED-{chr(65 + patient)}_V1_F{frame}.png"
            mask = np.zeros((64, 64), np.uint8)
            mask[:, : 2 + 2 * patient] = 255
            clouds(random).save(root / "images" / name)
            Image.fromarray(mask).save(root / "masks" / name)
    return root


def clouds(random):
    """A picture like no other."""
    return Image.fromarray(random.integers(0, 255, (16, 16), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)


def group_of(dataset):
    return {sample.id: sample.group for sample in dataset}


def test_patients_and_videos_are_read_from_the_file_names(films):
    dataset = open_dataset(films)
    assert 'by the file names, read as "patient_V#_F#"' in dataset.reason
    assert len({sample.group for sample in dataset}) == 12


@pytest.mark.parametrize(
    ("names", "count", "shown"),
    [
        (["a_001_0001.png", "a_001_0002.png", "a_002_0001.png", "b_001_0001.png"], 2, "patient_video_frame"),
        (["film1_1.png", "film1_2.png", "film2_1.png"], 2, "video_frame"),
        (["x-V1-F1.png", "x-V1-F2.png"], 1, "patient_V#_F#"),
        (["img_001.png", "img_002.png"], 2, "each image a group of its own"),
        (["1.png", "2.png"], 2, "each image a group of its own"),
        (["a.png", "film1_2.png"], 2, "each image a group of its own"),
    ],
)
def test_patterns_are_shown_and_only_used_where_they_tell_something(make_folder, names, count, shown):
    root = make_folder(images=tuple(names))
    (root / "masks").mkdir()
    dataset = open_dataset(root)
    assert shown in dataset.reason
    assert len({sample.group for sample in dataset}) == count


def test_tables_and_patterns_can_say_the_video(make_folder):
    root = make_folder(images=("x_a_1.png", "x_a_2.png", "x_b_1.png"))
    (root / "masks").mkdir()
    videos = [sample.video for sample in open_dataset(root, groups=r"^(?P<patient>\w)_(?P<video>\w)_")]
    assert sorted(videos) == ["P01-V1", "P01-V1", "P01-V2"]
    table = {"x_a_1.png": {"patient": "x", "video": 1}, "x_a_2.png": {"patient": "x", "video": 2}, "x_b_1.png": "y"}
    (root / "groups.json").write_text(json.dumps(table))
    dataset = open_dataset(root)
    assert len({sample.video for sample in dataset}) == 3
    assert len({sample.group for sample in dataset}) == 2
    with pytest.raises(LabError, match="it has 2 capture groups"):
        open_dataset(root, groups=r"^(\w)_(\w)_")


def test_a_split_cuts_no_patient_and_is_balanced(films):
    dataset = open_dataset(films)
    splits, reason = draw_splits(dataset, shares={"train": 0.5, "val": 0.25, "test": 0.25}, seed=3)
    groups = group_of(dataset)
    assert sorted(i for ids in splits.values() for i in ids) == sorted(groups)
    where = {}
    for name, ids in splits.items():
        for sample_id in ids:
            assert where.setdefault(groups[sample_id], name) == name
    for name, share in (("train", 0.5), ("val", 0.25), ("test", 0.25)):
        assert abs(len(splits[name]) / len(dataset) - share) < 0.06
    means = [np.mean([dataset[i].truth().mean() for i in ids]) for ids in splits.values()]
    assert max(means) / min(means) < 1.15  # patients differ twelvefold
    assert "seed 3" in reason
    assert draw_splits(dataset, shares={"train": 0.5, "val": 0.25, "test": 0.25}, seed=3)[0] == splits
    assert draw_splits(dataset, shares={"train": 0.5, "val": 0.25, "test": 0.25}, seed=4)[0] != splits


def test_a_written_split_is_read_again_with_its_seed_and_hash(films, capsys, monkeypatch):
    status, said = run_cli(["split", films, "--test", 0, "--train", 0.8, "--seed", 5], capsys, monkeypatch)
    assert (status, "INVENTED" in said) == (0, False)
    dataset = open_dataset(films)
    assert set(dataset.splits) == {"train", "val"}
    about = json.loads((films / "splits.json").read_text())["about"]
    assert about["seed"] == 5
    assert about["sha256"] == hash_splits(dataset.splits)
    with pytest.raises(LabError, match="exists already"):
        write_splits(dataset, dataset.splits, seed=5, reason="again")


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"train": 1.0}, "two or more"),
        ({"train": 0.5, "test": 0.4}, "add up to 1"),
        ({"train": 1.5, "test": -0.5}, "positive"),
        ({"all": 0.5, "test": 0.5}, "are taken"),
        ({str(n): 1 / 20 for n in range(20)}, "12 groups cannot make 20 splits"),
    ],
)
def test_splits_that_cannot_be(films, shares, said):
    with pytest.raises(LabError, match=said):
        draw_splits(open_dataset(films), shares=shares)


def run_cli(arguments, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sa2va-lab", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    return stop.value.code or 0, said.out + said.err


def test_folds_hold_every_patient_out_once(films, capsys, monkeypatch):
    assert run_cli(["split", films, "--folds", 4, "--seed", 1], capsys, monkeypatch)[0] == 0
    dataset = open_dataset(films)
    groups = group_of(dataset)
    assert list(dataset.splits) == ["fold1", "fold2", "fold3", "fold4"]
    assert sorted(i for ids in dataset.splits.values() for i in ids) == sorted(groups)
    for held in dataset.splits.values():
        others = {i for ids in dataset.splits.values() if ids is not held for i in ids}
        assert not {groups[i] for i in others} & {groups[i] for i in held}
        assert len(others) + len(held) == len(dataset)
    with pytest.raises(LabError, match="1 folds"):
        fold_shares(1)


def test_patients_with_the_same_film_stay_on_one_side(films):
    names = sorted(path.name for path in (films / "images").iterdir())
    film_a, film_b, film_l = (next(n for n in names if f"-{letter}_" in n) for letter in "ABL")
    for copy in (film_b, film_l):
        Image.open(films / "images" / film_a).save(films / "images" / copy)
    dataset = open_dataset(films)
    same = {sample.group for sample in dataset if sample.image.name in (film_a, film_b, film_l)}
    assert len(same) == 3
    for seed in range(6):
        splits, reason = draw_splits(dataset, shares={"train": 0.6, "test": 0.4}, seed=seed)
        assert sum(bool({dataset[i].group for i in ids} & same) for ids in splits.values()) == 1
        assert "3 pairs of nearly identical frames of different groups kept on one side: P" in reason


def test_a_cut_patient_is_an_error_with_the_pairs(films):
    names = sorted(path.name for path in (films / "images").iterdir())
    (films / "splits.json").write_text(json.dumps({"train": names[::2], "test": names[1::2]}))
    with pytest.raises(LabError, match=r"12 groups .*group P\d\d: P\d\d-V1-F001 in .* and P\d\d-V1-F00\d in ") as error:
        open_dataset(films)
    assert "INVENTED" not in str(error.value)


def test_near_identical_frames_in_two_sets_are_an_error_with_the_pairs(films, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other"
    for name in ("images", "masks"):
        (other / name).mkdir(parents=True)
    source = sorted((films / "images").iterdir())[0]
    Image.open(source).resize((56, 56), Image.Resampling.BICUBIC).save(other / "images" / "new.png")
    clouds(np.random.default_rng(9)).save(other / "images" / "unlike.png")
    with pytest.raises(LabError, match=r"1 pairs of nearly identical frames lie on both sides \(P\d\d-V1-F001 and P0"):
        refuse_near_duplicates(open_dataset(films), open_dataset(other))
    status, said = run_cli(["audit", films, "--against", other], capsys, monkeypatch)
    assert (status, "1 pairs of nearly identical frames" in said) == (2, True)
    (other / "images" / "new.png").unlink()
    refuse_near_duplicates(open_dataset(films), open_dataset(other))


def test_likeness_survives_what_copying_does_to_a_picture(root):
    path = sorted((root / "data" / "demo" / "angiograms" / "images").iterdir())[0]
    picture = Image.open(path).convert("L")
    pixels = np.asarray(picture, float)
    random = np.random.default_rng(0)
    copies = [
        picture.resize((320, 320), Image.Resampling.BILINEAR),
        Image.fromarray(np.clip(1.1 * pixels + 8 + random.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)),
        Image.fromarray(np.roll(pixels, (2, 3), (0, 1)).astype(np.uint8)),
    ]
    first = [fingerprint(pixels, id="one", group="P01")]
    for copy in copies:
        assert len(find_near_duplicates(first, [fingerprint(np.asarray(copy), id="other", group="P02")])) == 1
    mirrored = fingerprint(pixels[:, ::-1], id="other", group="P02")
    assert find_near_duplicates(first, [mirrored]) == []
    assert (
        find_near_duplicates([fingerprint(np.zeros((9, 9)), id=i, group=i) for i in "ab"]) == []
    )  # blank is no picture


def test_different_people_are_not_alike(chasedb1):
    prints = fingerprint_dataset(open_dataset(chasedb1))
    assert len(prints) == 8
    assert find_near_duplicates(prints) == []
