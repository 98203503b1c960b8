"""What 01_dataset shows: tables that agree with the audit, pictures whose alt texts have the numbers, two languages."""

import re

import numpy as np
import pytest

from sa2va_lab import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.datasets.ceilings import resolution_ceilings
from sa2va_lab.datasets.defects import KINDS
from sa2va_lab.errors import LabError
from sa2va_lab.language import read_catalogue, use_language
from sa2va_lab.views import audits, style


@pytest.fixture(scope="module")
def drawn(drawn_data):
    return audit_dataset(open_dataset(drawn_data, groups=r"p(\d+)_"))


@pytest.fixture(scope="module")
def ceilings(drawn):
    return resolution_ceilings(drawn.dataset)


def test_every_kind_of_defect_is_told_in_both_languages():
    told = {text for kind in KINDS.values() for text in (kind.title, kind.training, kind.repair) if text}
    assert told <= set(read_catalogue("zh"))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_answer_says_how_many_and_what(drawn, ceilings, lang):
    use_language(lang)
    answer = audits.answer_audit(drawn, ceilings)
    assert f"{ceilings[0].dice:.3f}" in answer.sentence
    assert (
        "6 images of 3 patients, 6 annotated" if lang == "en" else "3 名患者的 6 幅图像，6 幅有标注"
    ) in answer.sentence
    assert ("blank" in answer.sentence or "one grey value" in answer.sentence) == (lang == "en")  # p03_a is all light
    assert answer.metrics.audit.problems == {"image_blank": ["P03-V1-F001"]}
    assert answer.metrics.ceilings[0]["by_width"]
    assert answer.stamp is None


def test_tables_agree_with_the_audit(drawn, ceilings):
    rows = dict(audits.overview_table(drawn).rows)
    assert rows["Images"] == "6 images of 3 patients"
    assert rows["Sizes, px"] == "64x48 (6)"
    shares = [row["share"] for row in drawn.rows]
    assert rows["Share of vessel pixels"] == f"{min(shares):.2%} to {max(shares):.2%}, median {np.median(shares):.2%}"
    [defect] = audits.defect_table(drawn).rows
    assert defect[:2] == ["image_blank", "1"]
    assert defect[3] == KINDS["image_blank"].training
    assert audits.detail_table(drawn).rows == [["P03-V1-F001", "its image has one grey value everywhere"]]
    [ungiven] = audits.split_table(drawn).rows
    assert ungiven == ["not in any", "6", "3", f"{np.mean(shares):.2%}", "0"]
    table = audits.ceiling_table(ceilings)
    assert [row[1:3] for row in table.rows] == [[str(c.n), f"{c.dice:.3f}"] for c in ceilings]
    assert audits.source_table(drawn.dataset).rows[0][1] == drawn.dataset.manifest_sha256


def test_a_sound_data_set_says_so(make_sound):
    audit = audit_dataset(open_dataset(make_sound))
    assert (
        audits.answer_audit(audit, []).sentence
        == "1 images, each counted as one patient, 1 annotated: no defect was found."
    )
    assert audits.defect_table(audit).rows[0][0] == "none was found"


@pytest.fixture
def make_sound(tmp_path):
    from PIL import Image

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    picture = np.full((40, 40), 90, np.uint8)
    picture[9] = 30
    Image.fromarray(picture).save(tmp_path / "images" / "a.png")
    Image.fromarray((picture == 30).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    return tmp_path


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.filterwarnings("ignore:no Chinese font")
def test_pictures_have_alt_texts_with_numbers(drawn, ceilings, lang):
    use_language(lang)
    sample = audits.choose_example(drawn)
    shares = sorted(row["share"] for row in drawn.rows if row["share"])
    assert sample.truth().mean() == shares[len(shares) // 2]
    least = min(dice for ceiling in ceilings for dice, _ in ceiling.by_width.values())
    drawings = {
        "zoom": (audits.zoom_figure(sample), [sample.id, "64 x 48", str(int(sample.truth().sum()))]),
        "widths": (audits.distribution_figure(drawn), [f"{np.median(drawn.widths):.1f}"]),
        "matrix": (audits.matrix_figure(drawn), ["P01", "P03"]),
        "ceilings": (audits.ceiling_figure(ceilings), [f"{least:.2f}"]),
    }  # fmt: skip
    for name, ((figure, alt), expected) in drawings.items():
        assert all(word in alt for word in expected), (name, alt)
        assert not re.search(r"\{|\}|nan", alt)
        assert style.to_png(figure).startswith(b"\x89PNG")


def test_an_outline_is_drawn_as_it_is(root):
    dataset = open_dataset(root / "data" / "demo" / "angiograms")
    sample = dataset.samples[0]
    _, alt = audits.zoom_figure(sample)
    assert f"{len(sample.source().polygons)} outlines with" in alt


def test_nothing_to_draw_is_one_sentence(make_sound):
    (make_sound / "masks" / "a.png").unlink()
    audit = audit_dataset(open_dataset(make_sound))
    with pytest.raises(LabError, match="nothing to draw"):
        audits.choose_example(audit)
    with pytest.raises(LabError, match="nothing to draw"):
        audits.ceiling_figure([])
