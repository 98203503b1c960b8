import re

import pytest

from sa2va_lab import paths
from sa2va_lab.errors import LabError


def test_the_checkout_is_found_from_anywhere(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.find_root() == root


def test_a_copied_package_finds_the_checkout_it_is_called_in(root, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site-packages" / "sa2va_lab" / "paths.py"))
    monkeypatch.chdir(root / "notebooks")
    assert paths.find_root() == root
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match="No sa2va_lab checkout above"):
        paths.find_root()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "find_root", lambda: tmp_path)
    with pytest.raises(LabError, match="the demo images should lie in .*angiograms, which does not exist"):
        paths.demo_data()


def test_demo_data_is_known_by_its_place(root):
    assert paths.is_demo_data(root / "notebooks" / ".." / "data" / "demo" / "angiograms")
    assert not paths.is_demo_data(root)


@pytest.mark.parametrize(("name", "stem"), [("a/b c", "a-b-c"), ("../..", "unnamed"), ("影像 1", "影像-1")])
def test_new_folders_have_safe_names_that_are_free(tmp_path, name, stem):
    first = paths.new_folder(tmp_path, name)
    assert first.parent == tmp_path
    assert first.name.split("_", 1)[1] == stem
    assert not first.exists()
    first.mkdir()
    assert paths.new_folder(tmp_path, name) != first


@pytest.mark.parametrize(
    ("name", "shown"),
    [("iter_480.pth", True), ("20251123_101530.log", True), ("train.log", True), ("Sa2VA-InternVL3-8B", True),
     ("sam2_hiera_large.pt", True), ("INVENTED-P01.log", False), ("NOTREAL-0042", False), ("04217381", False),
     ("Sa2VA_INVENTED", False)],
)  # fmt: skip
def test_a_name_that_a_person_gave_is_not_shown(name, shown):
    assert (paths.shown_name("log", f"/any/where/{name}") == name) is shown
    assert shown or re.fullmatch(r"log-[0-9a-f]{4}", paths.shown_name("log", name))
