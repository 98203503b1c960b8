"""A Prediction against values worked out by hand."""

import io

import numpy as np
import pytest

from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction


def corner(n=1):
    """n masks on a 4x4 grid: mask i is +2 in column i and -2 elsewhere."""
    logits = np.full((n, 4, 4), -2, np.float32)
    for i in range(n):
        logits[i, :, i] = 2
    return logits


def test_probability_is_the_sigmoid_of_the_interpolated_logits():
    prediction = Prediction(corner(), (4, 4), "[SEG].", canvas=4)
    sigmoid = 1 / (1 + np.exp(-2.0))
    expected = np.tile([sigmoid, 1 - sigmoid, 1 - sigmoid, 1 - sigmoid], (4, 1))
    np.testing.assert_allclose(prediction.probability(), expected, rtol=1e-6)
    assert prediction.probability().dtype == np.float32


def test_two_bilinear_steps_by_hand():
    """4 -> 2 -> 4: columns (2, -2, -2, -2) meet as (0, -2), then spread to (0, -.5, -1.5, -2)."""
    prediction = Prediction(corner(), (4, 4), "[SEG].", canvas=2)
    np.testing.assert_allclose(prediction.full_logits()[0], np.tile([0, -0.5, -1.5, -2], (4, 1)), atol=1e-6)
    direct = Prediction(corner(), (4, 4), "[SEG].", canvas=4)
    np.testing.assert_allclose(direct.full_logits()[0], np.tile([2, -2, -2, -2], (4, 1)), atol=1e-6)


def test_half_is_not_above_half():
    flat = Prediction(np.zeros((1, 4, 4), np.float32), (4, 4), "[SEG].", canvas=4)
    assert not flat.mask(0.5).any()
    assert flat.mask(0.49).all()


def test_union_and_single_masks():
    prediction = Prediction(corner(2), (4, 4), "[SEG] [SEG].", canvas=4)
    assert prediction.n_seg == 2
    assert prediction.mask()[0].tolist() == [True, True, False, False]
    assert prediction.mask(merge=0)[0].tolist() == [True, False, False, False]
    assert prediction.mask(merge=-1)[0].tolist() == [False, True, False, False]


def test_no_seg_is_an_empty_prediction():
    prediction = Prediction(np.zeros((0, 4, 4), np.float32), (5, 7), "There is none.")
    assert prediction.n_seg == 0
    assert prediction.probability().shape == prediction.mask(0).shape == (5, 7)
    assert not prediction.mask(0).any()


@pytest.mark.parametrize(
    "ask",
    [
        lambda p: p.mask(1.5),
        lambda p: p.mask(-0.1),
        lambda p: p.probability("mean"),
        lambda p: p.probability(1),
        lambda p: p.probability(-2),
    ],
)
def test_impossible_questions(ask):
    with pytest.raises(LabError):
        ask(Prediction(corner(), (4, 4), "[SEG]."))


@pytest.mark.parametrize("logits", [np.zeros((4, 4), np.float32), np.zeros((1, 4, 4))])
def test_other_arrays_are_refused(logits):
    with pytest.raises(ValueError, match="expected float32"):
        Prediction(logits, (4, 4), "")


def test_npz_there_and_back(tmp_path):
    prediction = Prediction(corner(2), (9, 5), "[SEG] [SEG].", canvas=8)
    path = tmp_path / "p.npz"
    path.write_bytes(prediction.to_bytes())
    again = Prediction.from_npz(path, answer=prediction.answer)
    np.testing.assert_array_equal(again.logits, prediction.logits)
    assert (again.size, again.canvas, again.answer) == ((9, 5), 8, prediction.answer)
    assert again.to_bytes() == prediction.to_bytes()
    np.testing.assert_array_equal(again.mask(), prediction.mask())


@pytest.mark.parametrize("keep", [0, 10, -3])
def test_damaged_npz(tmp_path, keep):
    path = tmp_path / "p.npz"
    path.write_bytes(Prediction(corner(), (4, 4), "").to_bytes()[:keep])
    with pytest.raises(LabError, match="not a prediction file"):
        Prediction.from_npz(path)


def test_npz_with_a_pickle_inside_is_not_opened(tmp_path):
    """Object arrays are pickles, and pickles run code: they are refused unread."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    buffer = io.BytesIO()
    np.savez(buffer, logits=np.array([Trap()], dtype=object), size=[4, 4], canvas=4)
    (tmp_path / "p.npz").write_bytes(buffer.getvalue())
    with pytest.raises(LabError):
        Prediction.from_npz(tmp_path / "p.npz")
    assert not (tmp_path / "ran").exists()


def test_a_frame_that_was_lost_shows_nothing_and_says_why():
    lost = Prediction(np.zeros((0, 8, 8), np.float32), (20, 30), "Sure, [SEG].", error="frame 3 cannot be read")
    for ask in (lost.mask, lost.probability, lost.full_logits, lost.to_bytes):
        with pytest.raises(LabError, match="frame 3 cannot be read"):
            ask()
