"""Honest evaluations are not accused and forged ones are seen: a small, seeded part of benchmarks/hints.py."""

import importlib.util

import pytest


@pytest.fixture(scope="module")
def rows(root):
    spec = importlib.util.spec_from_file_location("hints", root / "benchmarks" / "hints.py")
    hints = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hints)
    return {row["what"]: row for row in hints.measure(runs=2 * len(hints.HONEST), forged=1, images=3, side=96)}


def test_no_honest_evaluation_is_accused(rows):
    """Each kind of segmenter on organs and on vessels; with 200 of them in benchmarks/RESULTS.md."""
    assert rows["honest"]["of"] == 28
    assert (rows["honest"]["accused"], rows["honest"]["by"]) == (0, {})


def test_every_forgery_is_seen_by_making_images_again(rows):
    forged = [row for what, row in rows.items() if what != "honest"]
    assert len(forged) == 8
    assert all(row["verification"] == row["of"] for row in forged)
    assert "identical_to_truth" in rows["truth"]["by"]
