"""What 00_inspect shows is what the files hold, beside what notes say of them."""

import json

import pytest
from matplotlib.text import Text

from sa2va_lab import paths
from sa2va_lab.language import use_language
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.reports.runner import run_report
from sa2va_lab.views import inventories, style


@pytest.fixture(scope="module")
def tuned():
    return read_inventory(paths.demo_finetune())


@pytest.fixture(scope="module")
def whole():
    return read_inventory(paths.demo_model(), finetune=paths.demo_finetune())


def test_answer(whole, tuned):
    said = inventories.answer_inventory(whole, tuned)
    assert said.sentence.startswith(f"{whole.parameters:,} parameters: ")
    assert f"{tuned.path.name} holds {tuned.parameters:,} parameters" in said.sentence
    assert (said.metrics.inventory["complete"], said.metrics.finetune["complete"]) == (True, False)
    assert said.stamp
    alone = inventories.answer_inventory(tuned)
    assert "does not run yet; missing: Vision tower, Language model layers, SAM2 image encoder" in alone.sentence
    with use_language("zh"):
        assert "视觉塔" in inventories.answer_inventory(tuned).sentence


def test_tables(whole, tuned):
    rows = inventories.part_table(whole).rows
    assert rows[-1][:3] == ["Together", f"{len(whole.tensors):,}", f"{whole.parameters:,}"]
    assert "rank 8, alpha 16, scale 2" in repr(inventories.trained_table(tuned))
    assert "sam2_hiera_large.pt" in repr(inventories.missing_table(tuned))
    assert inventories.missing_table(whole).rows == [["nothing", "–"]]


@pytest.mark.parametrize(
    ("noted", "verdicts"),
    [
        ({}, ["nothing noted"] * 3),
        ({"billions": 9.2, "gigabytes": 23.5, "complete": "yes"}, ["does not agree"] * 3),
        ({"billions": 0.00457, "gigabytes": 0.0183, "complete": "no"}, ["agrees"] * 3),
    ],
)
def test_notes_are_held_against_the_files(whole, tuned, noted, verdicts):
    assert [row[-1] for row in inventories.note_table(whole, tuned, **noted).rows] == verdicts


def test_figure(whole):
    figure, alt = inventories.bytes_figure(whole)
    largest = max(whole.parts, key=lambda part: part.bytes)
    assert largest.name == "sam2_encoder"
    assert "SAM2 image encoder is the largest" in alt
    stored = figure.axes[0].containers[0]
    assert sorted(bar.get_width() for bar in stored)[-1] == pytest.approx(largest.bytes / (1 << 20))


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_report_of_a_users_own_parts(tmp_path, read_page, lang):
    given = {"model": paths.demo_model(), "finetune": paths.demo_finetune(), "noted_billions": "9.2", "lang": lang}
    index = run_report(["00_inspect"], parameters=given, outputs=tmp_path, name="own")
    report = json.loads((index.parent / "metrics.json").read_text("utf-8"))["notebooks"]["00_inspect"]
    assert report["error"] is None
    assert report["answer"]["metrics"]["inventory"]["complete"] is True
    page = read_page(index.parent / "00_inspect.html")
    page.assert_self_contained(index.parent)
    assert ("does not agree" if lang == "en" else "不一致") in page.text
    assert all(image["alt"] for image in page.images)


def test_every_word_of_the_chinese_figure_is_in_a_font_that_has_it(whole, monkeypatch):
    monkeypatch.setattr(style, "_CHINESE_FONTS", ("DejaVu Serif",))  # stands for any font that is installed
    style._find_chinese_font.cache_clear()
    with use_language("zh"):
        figure, _ = inventories.bytes_figure(whole)
    style._find_chinese_font.cache_clear()
    words = [text for text in figure.findobj(Text) if text.get_text().strip()]
    assert any("视觉塔" in text.get_text() for text in words)
    assert {text.get_fontfamily()[0] for text in words} == {"DejaVu Serif"}
