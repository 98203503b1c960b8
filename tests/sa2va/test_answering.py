"""A draft changes how long an answer takes, never the answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from sa2va_lab.sa2va.answering import read_answers, write_answers

LIMIT = 9
VOCABULARY = 480


@pytest.fixture(scope="module")
def prompt(tiny_segmenter):
    with torch.inference_mode():
        return tiny_segmenter.model.embed(torch.tensor([[5, 80, 200, 31, 7]]))


def write(segmenter, prompt, draft, *, limit=LIMIT, stops=frozenset()):
    cache = DynamicCache()
    with torch.inference_mode():
        [reply] = write_answers(segmenter.model, prompt, cache, draft=draft, stops=set(stops), limit=limit)
    assert cache.get_seq_length() == prompt.shape[1] + len(reply.ids) - 1
    assert len(reply.states) == len(reply.ids) - 1
    return reply


@pytest.fixture(scope="module")
def plain(tiny_segmenter, prompt):
    return write(tiny_segmenter, prompt, [])


def test_plain_decoding_is_greedy(tiny_segmenter, prompt, plain):
    """Against a whole pass a token, with no cache at all."""
    ids = []
    with torch.inference_mode():
        for _ in range(LIMIT):
            embedded = torch.cat([prompt, tiny_segmenter.model.embed(torch.tensor([ids]).long())], dim=1)
            states = tiny_segmenter.model.read(embedded, DynamicCache())
            ids.append(int(tiny_segmenter.model.score_tokens(states[0, -1]).argmax()))
    assert plain.ids == ids
    torch.testing.assert_close(plain.states, states[0, prompt.shape[1] :], atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_draft_gives_the_same_answer(tiny_segmenter, prompt, plain, data):
    agreed = data.draw(st.integers(0, LIMIT))
    draft = plain.ids[:agreed] + data.draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=4))
    reply = write(tiny_segmenter, prompt, draft)
    assert reply.ids == plain.ids
    assert reply.accepted >= min(agreed, len(draft), LIMIT)
    torch.testing.assert_close(reply.states, plain.states, atol=1e-5, rtol=0)


def test_a_stop_token_ends_the_answer_with_and_without_a_draft(tiny_segmenter, prompt, plain):
    stop = plain.ids[4]
    first = plain.ids.index(stop) + 1
    for draft in ([], plain.ids[:first], plain.ids[:2], [1, 2]):
        reply = write(tiny_segmenter, prompt, draft, stops={stop})
        assert reply.ids == plain.ids[:first]


def test_the_very_last_token_has_no_state(tiny_segmenter, prompt, plain):
    """As in the official code: a [SEG] that was generated last never was an input, so it gives no mask."""
    last = plain.ids[LIMIT - 1]
    assert len(plain.states_at(last)) == plain.ids[:-1].count(last)
    with torch.inference_mode():
        [given_answer] = read_answers(tiny_segmenter.model, prompt, DynamicCache(), answer=plain.ids)
    torch.testing.assert_close(given_answer.states, plain.states, atol=1e-5, rtol=0)
