"""The index: a reader's questions in order, each answered or absent with its reason."""

import copy
import json

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output, writes

from sa2va_lab.language import use_language
from sa2va_lab.reports.html import render_index
from sa2va_lab.reports.index import build_blocks, find_pictures, list_steps

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
DICE = {"macro": 0.712, "low": 0.65, "high": 0.77, "n": 29, "n_groups": 5, "pooled": 0.7}
METRICS = {
    "00_inspect": {},
    "01_dataset": {"audit": {"samples": 30, "problems": {"bad_text": ["a"], "split_near_duplicate": ["a", "b"]}}},
    "02_loss_curves": {"runs": [], "alarms": ["ONE process took part."]},
    "03_evaluation": {
        "summary": {"n_images": 30, "n_groups": 5, "threshold": 0.4, "dice": DICE},
        "beside": {"with its fine-tune": {"macro": 0.7, "low": 0.6, "high": 0.75, "n": 28, "n_groups": 4}},
        "split": "test", "seen": "yes", "run": "a_run", "weights_sha256": "f00d", "manifest_sha256": "beef",
        "baselines": [{"name": "frangi", "title": "Frangi + Otsu", "dice": 0.41, "low": 0.3, "high": 0.5,
                       "n_images": 30, "n_groups": 5}],
        "threshold": {"value": 0.4, "origin": "validation", "reason": "best on validation", "dice": 0.712,
                      "dice_at_half": 0.69, "difference": 0.022, "low": 0.01, "high": 0.03},
        "honesty": [{"kind": "identical_to_truth", "alarm": True, "sentence": "Truth was copied."},
                    {"kind": "mask_without_seg", "alarm": False, "sentence": "Probabilities are not binary."}],
    },
    "05_error_gallery": {
        "mistakes": [{"kind": kind, "title": f"title of {kind}", "images": n, "help": "Help."}
                     for kind, n in (("thin", 9), ("border", 4), ("blob", 2), ("rare", 1))],
        "cases": 30, "suspect_truths": ["P01-V1-F001"],
    },
    "06_precision_vram": {
        "plan": {"chosen": 0, "rungs": [{"precision": "bf16", "fits": True, "reason": "room enough",
                 "devices": [{"name": "cpu", "needed": 2**30, "budget": 2**31}]}]},
        "precisions": [{"precision": "fp32", "device": "cpu", "ran": True, "forecast_bytes": 2**30, "own_bytes": None,
                        "seconds": 0.5, "dice": 0.712, "low": 0.65, "high": 0.77, "agreement": 1.0},
                       {"precision": "nf4", "device": "cuda", "ran": False, "reason": "no CUDA device"}],
    },
    "07_films": {"n_films": 4, "n_frames": 48, "asked": {"still": 48, "tracked": 4}},
}  # fmt: skip


def make_report(metrics=METRICS, **changes):
    parts = {
        stem: {
            "title": stem, "error": None, "seconds": 1.0, "page": f"{stem}.html", "notebook": f"{stem}.ipynb",
            "answer": {"sentence": f"Sentence of {stem}.", "stamp": None, "metrics": copy.deepcopy(found)},
        }
        for stem, found in metrics.items()
    }  # fmt: skip
    return {
        "name": "x", "created": "2020-01-02 03:04:05", "parameters": {}, "versions": {}, "left_out": {},
        "notebooks": parts,
    } | changes  # fmt: skip


def blocks_of(report, **more):
    return {block.key: block for block in build_blocks(report, **more)}


def test_refusals_and_what_was_made_again_stand_beside_the_dice():
    report = make_report()
    found = report["notebooks"]["03_evaluation"]["answer"]["metrics"]
    found |= {
        "verified": "Not verified.",
        "refused": {"n": 7, "of": 30, "ids": list("abcdefg"), "asked": 6, "named": 4},
    }
    quality = blocks_of(report)["quality"]
    assert quality.sentences[0] == "Not verified."
    assert quality.alarms == [
        "Refused although something is annotated there: 7 of 30 images (a, b, c, d, e …).",
        "Asked in other words, 4 of 6 got a mask.",
    ]
    assert blocks_of(make_report())["quality"].alarms == []


def test_questions_stand_in_the_readers_order():
    keys = [block.key for block in build_blocks(make_report())]
    expected = ["fit", "quality", "threshold", "mistakes", "precision", "films", "data", "training", "next", "honesty"]
    assert keys == expected


def test_every_block_is_filled_from_its_notebook():
    blocks = blocks_of(make_report())
    assert not [block.key for block in blocks.values() if block.absent]
    assert blocks["fit"].sentences == ["Yes: left to choose, it runs at bf16 here."]
    assert blocks["fit"].rows == [["bf16", "cpu: 1.00 GiB / 2.00 GiB", "yes", "room enough"]]
    assert blocks["quality"].rows == [
        ["this model", "0.712", "0.650 – 0.770", "29", "5"],
        ["with its fine-tune", "0.700", "0.600 – 0.750", "28", "4"],
        ["Frangi + Otsu", "0.410", "0.300 – 0.500", "30", "5"],
    ]
    assert blocks["threshold"].sentences[1].startswith("It matters: against 0.5, Dice changes by +0.022")
    assert [picture["caption"] for picture in blocks["mistakes"].pictures] == [
        "Title of thin: 9 images. Help.", "Title of border: 4 images. Help.", "Title of blob: 2 images. Help.",
    ]  # fmt: skip
    assert blocks["precision"].rows[0] == (
        ["fp32", "cpu", "1.00 GiB", "–", "0.50", "0.712", "0.650 – 0.770", "1.000", ""]
    )
    assert blocks["precision"].rows[1][-1] == "no CUDA device"
    assert blocks["training"].alarms == ["ONE process took part."]
    assert blocks["honesty"].alarms == ["Truth was copied."]
    assert blocks["honesty"].points == ["Probabilities are not binary."]
    assert blocks["precision"].sentences == ["Sentence of 06_precision_vram."]
    assert (blocks["films"].page, blocks["films"].sentences) == ("07_films.html", ["Sentence of 07_films."])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_nothing_at_all_is_ten_reasons(lang):
    use_language(lang)
    blocks = blocks_of(make_report({}, left_out={"02_loss_curves": "log"}))
    assert len(blocks) == 10
    for key, block in blocks.items():
        assert block.absent or key == "next"
    assert "`log`" in blocks["training"].absent


def test_a_failed_notebook_says_so_in_its_block_and_first_among_the_steps():
    report = make_report()
    report["notebooks"]["05_error_gallery"] |= {"error": "KeyError: 'x'", "answer": None}
    assert "05_error_gallery failed (KeyError: 'x')" in blocks_of(report)["mistakes"].absent
    assert list_steps(report)[0].startswith("Let the failed notebooks run: 05_error_gallery")


@pytest.mark.parametrize("stem", METRICS)
def test_missing_keys_never_break_the_index(stem):
    """Each key of each notebook's metrics taken away in turn, and all of them."""
    for key in [*METRICS[stem], None]:
        metrics = copy.deepcopy(METRICS)
        metrics[stem] = {k: v for k, v in metrics[stem].items() if key and k != key}
        render_index(make_report(metrics))


def test_what_is_in_the_checkpoint_stands_in_for_whether_it_fits():
    report = make_report({"00_inspect": {}})
    block = blocks_of(report)["fit"]
    assert block.sentences == ["Sentence of 00_inspect."]
    assert "06_precision_vram was not run" in block.absent
    assert 'href="00_inspect.html"' in render_index(report)


def test_a_model_that_fits_nowhere_is_an_alarm():
    report = make_report()
    report["notebooks"]["06_precision_vram"]["answer"]["metrics"]["plan"]["chosen"] = None
    block = blocks_of(report)["fit"]
    assert block.sentences == []
    assert block.alarms == ["No: at no number format does it fit into the memory that is here."]


def test_a_bare_number_is_no_choice_of_threshold():
    report = make_report()
    report["notebooks"]["03_evaluation"]["answer"]["metrics"]["threshold"] = 0.5
    assert blocks_of(report)["threshold"].absent


def test_a_threshold_that_cannot_be_told_from_half_hardly_matters():
    report = make_report()
    report["notebooks"]["03_evaluation"]["answer"]["metrics"]["threshold"] |= {"low": -0.01}
    assert "hardly matters" in blocks_of(report)["threshold"].sentences[1]
    assert not [step for step in list_steps(report) if "threshold" in step]
    assert [step for step in list_steps(make_report()) if "Use threshold 0.4" in step]


def test_a_nested_choice_is_not_what_was_reported():
    report = make_report()
    report["notebooks"]["03_evaluation"]["answer"]["metrics"]["threshold"] |= {"origin": "nested"}
    first, second = blocks_of(report)["threshold"].sentences
    assert first.startswith("A pixel counts as found above 0.5, for want of a validation split.")
    assert "would be 0.4 at the median" in first
    assert second.startswith("It matters")


def test_a_half_is_not_compared_with_a_half():
    report = make_report()
    report["notebooks"]["03_evaluation"]["answer"]["metrics"]["threshold"] |= {"value": 0.5, "low": None}
    assert len(blocks_of(report)["threshold"].sentences) == 1


def test_the_threshold_notebook_speaks_where_the_evaluation_does_not():
    metrics = copy.deepcopy(METRICS)
    metrics["04_threshold_tuning"] = {"threshold": metrics["03_evaluation"].pop("threshold")}
    block = blocks_of(make_report(metrics))["threshold"]
    assert (block.page, block.absent) == ("04_threshold_tuning.html", None)


def test_what_makes_numbers_wrong_comes_before_what_makes_them_better():
    steps = list_steps(make_report())
    order = ["marked findings", "Part the splits", "Repair", "not in training", "log reveals", "Use threshold",
             "more patients", "seem wrong", "commonest mistake"]  # fmt: skip
    assert len(steps) == len(order)
    for step, words in zip(steps, order, strict=True):
        assert words in step
    assert list_steps(make_report({})) == ["Nothing here asks for an action."]


def test_pictures_come_from_the_notebooks_by_their_role(tmp_path, read_page):
    shown = new_output("display_data", data={"image/png": PICTURE})
    shown.metadata["image/png"] = {"alt": 'Thin "branches" are missed.', "role": "thin"}
    report = make_report({"05_error_gallery": METRICS["05_error_gallery"]})
    notebook = writes(new_notebook(cells=[new_code_cell("x", outputs=[shown])]))
    (tmp_path / "05_error_gallery.ipynb").write_text(notebook)
    assert find_pictures(tmp_path, report) == {"thin": {"data": PICTURE, "alt": 'Thin "branches" are missed.'}}
    for name in ("metrics.json", "05_error_gallery.html"):
        (tmp_path / name).write_text(json.dumps({}))
    (tmp_path / "index.html").write_text(render_index(report, folder=tmp_path))
    page = read_page(tmp_path / "index.html")
    page.assert_self_contained(tmp_path)
    assert [image["alt"] for image in page.images] == ['Thin "branches" are missed.']


def test_what_shakes_the_numbers_stands_above_them():
    html = render_index(make_report())
    assert html.index("Truth was copied.") < html.index("Sentence of 03_evaluation.")
    assert html.index("Probabilities are not binary.") > html.index("Sentence of 03_evaluation.")


def test_words_from_files_are_escaped():
    report = make_report()
    report["notebooks"]["03_evaluation"]["answer"]["metrics"]["honesty"][0]["sentence"] = "<script>x</script>"
    report["notebooks"]["05_error_gallery"] |= {"error": "<b>", "answer": None}
    html = render_index(report)
    assert "<script>" not in html
    assert "<b>" not in html
