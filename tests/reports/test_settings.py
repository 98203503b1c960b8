"""lab.yml: written for the user's own paths, read back as they were meant, refused in one sentence."""

import os
from pathlib import Path

import pytest

from sa2va_lab.errors import LabError
from sa2va_lab.reports.settings import Settings, read_settings, write_settings


def test_what_is_written_is_read_back_and_everything_else_is_explained(tmp_path):
    for name in ("base", "my data"):
        (tmp_path / name).mkdir()
    (tmp_path / "iter_7.pth").touch()
    settings = Settings(
        model=tmp_path / "base", data=tmp_path / "my data", finetune=tmp_path / "iter_7.pth", phrase="血管",
        groups=r"p(\d+)_", lang="zh", parameters={"threshold": 0.4},
    )  # fmt: skip
    path = write_settings(tmp_path / "lab.yml", settings)
    assert read_settings(path) == settings
    text = path.read_text(encoding="utf-8")
    assert "\nmodel: base\n" in text, "a path below the file is written as seen from it"
    for name, field in Settings.model_fields.items():
        assert f"# {field.description}\n" in text
        assert f"{name}:" in text
    with pytest.raises(LabError, match="is there already"):
        write_settings(path, settings)
    assert path.read_text(encoding="utf-8") == text


def test_paths_are_those_of_the_file_not_of_the_caller(tmp_path, monkeypatch):
    (tmp_path / "here" / "data").mkdir(parents=True)
    (tmp_path / "here" / "lab.yml").write_text("data: data\noutputs: ../new\n")
    monkeypatch.chdir(tmp_path)
    read = read_settings("here/lab.yml")
    assert (read.data, read.outputs) == (tmp_path / "here" / "data", tmp_path / "new")
    assert read.as_parameters() == {"data": str(tmp_path / "here" / "data"), "outputs": str(tmp_path / "new")}


def test_an_empty_file_says_nothing(tmp_path):
    (tmp_path / "lab.yml").write_text("# nothing yet\n")
    assert read_settings(tmp_path / "lab.yml").as_parameters() == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("daat: x", "says 'daat', which means nothing here; did you mean data?"),
        ("zzz: x", "known are: model, sam2"),
        ("lang: fr", "lang is 'fr'; input should be 'en' or 'zh'"),
        ("data: 3", "data is 3"),
        ("data: no/such", "data is no/such, which does not exist"),
        ("parameters: [1]", "parameters is"),
        ("parameters: {threshold: [1]}", "parameters.threshold is"),
        ("just words", "holds str"),
        ("a: b: c", "is not YAML"),
        ("!!python/object/apply:os.system ['touch ran']", "is not YAML"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yml").write_text(content)
    with pytest.raises(LabError) as caught:
        read_settings("lab.yml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["lab.yml"]


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(LabError, match="sa2va-lab init"):
        read_settings(tmp_path / "lab.yml")


@pytest.mark.slow
def test_init_names_what_it_recognised_and_report_takes_it_from_there(call, tmp_path, root, drawn_data):
    status, printed, said = call("init", "--data", drawn_data, "--groups", r"p(\d+)_", here=tmp_path)
    assert status == 0, said
    assert "6 images" in printed
    assert read_settings(tmp_path / "lab.yml").data == Path(drawn_data)
    status, printed, said = call("report", "01_dataset", "--outputs", tmp_path / "out", here=tmp_path)
    assert status == 0, said
    assert "settings: lab.yml" in said
    page = Path(printed.strip().splitlines()[-1])
    assert page.is_relative_to(tmp_path / "out")
    assert "6 images" in page.read_text(encoding="utf-8")
    status, *_ = call("init", "--data", tmp_path / "nowhere", "--out", "other.yml", here=tmp_path)
    assert (status, (tmp_path / "other.yml").exists()) == (2, False)
    status, _, said = call("report", "01_dataset", "--all", here=tmp_path)
    assert status == 2
    assert "--all and 01_dataset" in said
