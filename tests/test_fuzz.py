"""A few hundred damaged files and command lines; `tests/fuzz.py` says what is asked of each, and tries more."""

import pytest

from tests.fuzz import fuzz


@pytest.mark.slow
def test_whatever_was_damaged_a_command_ends_with_an_answer_or_a_sentence():
    tried, found = fuzz(400, seconds=120)
    assert found == []
    assert tried > 100
