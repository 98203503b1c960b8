"""Pseudonyms: stable, in no telling order, kept in a file that only its owner can read and that names nobody."""

import hmac
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.pseudonyms import KEY_FILE, PSEUDONYM, name_images, natural
from sa2va_lab.errors import LabError

NAMES = [f"INVENTED-Name{person}_{700100 + person}_V{video}_F{frame}.png" for person in range(5) for video in (1, 2)
         for frame in (1, 2, 10)]  # fmt: skip
PLACES = {name: (name.split("_")[0], name.split("_")[2]) for name in NAMES}


def ids(root, places=PLACES, *, stated=False):
    return {name: pseudonym.id for name, pseudonym in name_images(root, places, stated=stated)[0].items()}


def test_ids_say_patient_video_and_frame(tmp_path):
    found = ids(tmp_path)
    assert all(PSEUDONYM.fullmatch(name) for name in found.values())
    assert len(set(found.values())) == len(NAMES)
    assert {name[:3] for name in found.values()} == {f"P0{n}" for n in range(1, 6)}
    one = [found[name] for name in NAMES if "Name3" in name]
    assert [name[3:] for name in one] == [f"-V{v}-F00{f}" for v in (1, 2) for f in (1, 2, 3)]  # frame 10 after 2


def test_the_key_file_is_private_and_names_nobody(tmp_path):
    name_images(tmp_path, PLACES, stated=True)
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(word in path.read_text() for word in ("INVENTED", "Name", "7001", ".png"))
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY_FILE]
    path.chmod(0o644)  # as a copy may be
    name_images(tmp_path, PLACES, stated=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_numbers_stay_when_the_data_grows_or_shrinks(tmp_path):
    few = dict(list(PLACES.items())[::2])
    before = ids(tmp_path, few)
    assert {name: found for name, found in ids(tmp_path).items() if name in few} == before
    assert ids(tmp_path, few) == before


def test_another_key_gives_other_numbers(tmp_path):
    orders = set()
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        orders.add(tuple(ids(tmp_path / str(number)).values()))
    assert len(orders) > 1  # twelve keys that agree on the order of five patients: one in 120^11


def test_a_copied_key_file_gives_the_same_ids_elsewhere(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    here = ids(tmp_path / "one")
    (tmp_path / "two" / KEY_FILE).write_bytes((tmp_path / "one" / KEY_FILE).read_bytes())
    assert ids(tmp_path / "two") == here


def test_what_was_stated_is_remembered_and_what_is_stated_now_wins(tmp_path):
    stated = {name: ("one patient", "") for name in NAMES}
    told = ids(tmp_path, stated, stated=True)
    assert ids(tmp_path) == told
    assert ids(tmp_path, {name: (f"alone: {name}", "") for name in NAMES}) == told
    assert ids(tmp_path, stated=True) != told
    assert len({found[:3] for found in ids(tmp_path).values()}) == 5


def groupings():
    """Ways to say whose the images are: none, by the file names, and two that somebody stated."""
    stated = {name: (name[13:18], "1") for name in NAMES}
    return [
        ({name: (f"alone: {name}", "") for name in NAMES}, False),
        (PLACES, False),
        (stated, True),
        ({name: (f"person {name[20]}", "") for name in NAMES}, True),
    ]


@pytest.mark.parametrize("last", [2, 3])
def test_ids_follow_from_key_and_grouping_whatever_was_opened_before(tmp_path, last):
    roots = [tmp_path / name for name in ("fresh", "used")]
    for root in roots:
        root.mkdir()
        (root / KEY_FILE).write_text(json.dumps({"key": f"{7:064x}", "numbers": {}}))
    for places, stated in groupings():
        ids(roots[1], places, stated=stated)
    places, stated = groupings()[last]
    found = ids(roots[0], places, stated=stated)
    assert ids(roots[1], places, stated=stated) == found
    assert {name[:3] for name in found.values()} == {f"P0{n}" for n in range(1, 6)}
    more = places | {"new.png": ("somebody", "")}
    assert {name: one for name, one in ids(roots[1], more, stated=stated).items() if name in places} == found


def test_file_names_may_be_read_otherwise_when_images_come(tmp_path):
    alone, by_name = (places for places, _ in groupings()[:2])
    first = ids(tmp_path, by_name)
    ids(tmp_path, alone)
    assert ids(tmp_path, by_name) == first


def test_a_key_file_of_the_first_form_keeps_its_ids():
    demo = Path(__file__).parents[2] / "data" / "demo" / "angiograms"
    content = json.loads((demo / KEY_FILE).read_bytes())
    assert set(content["numbers"]) == {"patients", "videos", "frames", "images"}
    dataset = open_dataset(demo)
    assert json.loads((demo / KEY_FILE).read_bytes()) == content  # nothing new, so nothing is written
    assert len({sample.group for sample in dataset}) == len(content["numbers"]["patients"]) == 12
    stated = {f"P{p:02d}-V{v}-F{f:03d}" for p, v, f in content["numbers"]["images"].values()}
    assert {sample.id for sample in dataset} == stated


def test_a_key_file_of_the_first_form_grows(tmp_path):
    few = dict(list(PLACES.items())[::2])
    numbers = {"patients": {}, "videos": {}, "frames": {}, "images": {}}
    key, last = bytes(32), {}

    def digest(*words):
        return hmac.new(key, "\0".join(words).encode(), "sha256").hexdigest()[:24]

    for name, (patient, video) in few.items():  # as it was written
        owner = digest("patient", patient)
        sequence = f"{owner}/{digest('video', patient, video)[:12]}"
        frame = f"{sequence}/{digest('frame', patient, video, name)[:12]}"
        numbers["patients"].setdefault(owner, 20 - len(numbers["patients"]))
        numbers["videos"].setdefault(sequence, int(video[1:]) + 3)
        last[sequence] = last.get(sequence, 6) + 1
        numbers["frames"][frame] = last[sequence]
    (tmp_path / KEY_FILE).write_text(json.dumps({"key": key.hex(), "numbers": numbers}))
    before = ids(tmp_path, few)
    assert before[NAMES[0]] == "P20-V4-F007"
    after = ids(tmp_path)
    assert {name: after[name] for name in few} == before
    assert ids(tmp_path) == after
    assert len(set(after.values())) == len(NAMES)


def test_the_draft_of_a_key_file_follows_no_link(tmp_path):
    root, victim = tmp_path / "received", tmp_path / "victim.txt"
    root.mkdir()
    victim.write_text("VICTIM")
    os.symlink(victim, root / f"{KEY_FILE}.part")
    ids(root)
    assert victim.read_text() == "VICTIM"


@pytest.mark.parametrize("where", ["outputs/data", "outputs"])
def test_no_key_lies_under_outputs(tmp_path, where):
    root = tmp_path / where
    root.mkdir(parents=True)
    found, reason = name_images(root, PLACES, stated=False)
    assert "no key file (the data lies under an outputs folder)" in reason
    assert not list(tmp_path.rglob(KEY_FILE))
    assert found == name_images(root, PLACES, stated=False)[0]


def test_a_read_only_folder_needs_no_key(tmp_path):
    tmp_path.chmod(0o555)
    try:
        found, reason = name_images(tmp_path, PLACES, stated=False)
        assert "the folder is read-only" in reason
        assert found == name_images(tmp_path, PLACES, stated=False)[0]
        assert not list(tmp_path.iterdir())
    finally:
        tmp_path.chmod(0o755)


def test_names_that_are_pseudonyms_are_kept_unless_a_table_says_otherwise(make_folder):
    names = ("P07-V2-F011.png", "P07-V2-F012.png", "P123-V1-F001.png")
    root = make_folder(images=names)
    (root / "masks").mkdir()
    dataset = open_dataset(root)
    assert [sample.id for sample in dataset] == ["P07-V2-F011", "P07-V2-F012", "P123-V1-F001"]
    assert [sample.group for sample in dataset] == ["P07", "P07", "P123"]
    assert [sample.video for sample in dataset] == ["P07-V2", "P07-V2", "P123-V1"]
    assert dataset.pseudonyms == "the file names are pseudonyms already"
    (root / "groups.json").write_text(json.dumps(dict(zip(names, ["x", "y", "z"], strict=True))))
    assert len({sample.group for sample in open_dataset(root)}) == 3


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"key": "zz", "numbers": {}}', '{"key": "00", "numbers": {}}', '{"key": 3, "numbers": {}}',
     '{"key": "%s", "numbers": []}' % ("0" * 64), '{"key": "%s", "numbers": {"frames": {"x": -1}}}' % ("0" * 64),
     '{"key": "%s", "numbers": {"images": {"x": 4}}}' % ("0" * 64), '{"key": "%s", "images": {"x": 4}}' % ("0" * 64),
     '{"key": "%s", "images": {"x": {"home": "a/b", "id": "P1", "stated": true}}}' % ("0" * 64)],
)  # fmt: skip
def test_a_damaged_key_file_is_one_sentence(tmp_path, content):
    (tmp_path / KEY_FILE).write_text(content)
    with pytest.raises(LabError, match="is not a key file"):
        name_images(tmp_path, PLACES, stated=False)
    assert (tmp_path / KEY_FILE).read_text() == content


def test_a_key_file_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").write_text("{}")
    os.symlink(tmp_path / "elsewhere", tmp_path / KEY_FILE)
    with pytest.raises(LabError, match="symbolic link"):
        name_images(tmp_path, PLACES, stated=False)


def test_processes_that_open_at_once_agree(tmp_path, square, make_folder):
    root = make_folder(images=tuple(NAMES), annotations=[{"image": NAMES[0], "mask": [[square]], "text": ["vessel"]}])
    (root / KEY_FILE).unlink()
    code = "import sys, sa2va_lab as lab; print(*[s.id + s.image.name for s in lab.open_dataset(sys.argv[1])])"
    started = [subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1


@given(st.lists(st.text(max_size=6), unique=True, max_size=8))
def test_any_names_get_ids_of_their_own(tmp_path_factory, names):
    places = {name: (name[:1], name[1:2]) for name in names}
    root = tmp_path_factory.mktemp("names")
    found = name_images(root, places, stated=True)[0]
    assert len({pseudonym.id for pseudonym in found.values()}) == len(names)
    for name, pseudonym in found.items():
        assert sum(other.group == pseudonym.group for other in found.values()) == sum(n[:1] == name[:1] for n in names)


def test_the_natural_order():
    assert sorted(["F10", "F9", "F1", "a", "2"], key=natural) == ["2", "F1", "F9", "F10", "a"]
