"""Greedy answers in one pass: a draft is read together with the prompt, and kept as far as the model agrees with it.

Sa2VA answers nearly always with a sentence it has given before. Reading that sentence costs the same pass as reading
the prompt; writing it costs one pass a token. The result is the greedy answer either way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sa2va_lab.sa2va.modeling import Sa2VA


@dataclass
class Reply:
    """ids: the answer's tokens, the stop token included where one came. states: (m, C), the last hidden state at each
    answer token that was an input, in order; the very last token never was one, so m = len(ids) - 1.
    accepted: how many tokens of the draft were kept."""

    ids: list[int]
    states: Tensor
    accepted: int

    def states_at(self, token: int) -> Tensor:
        """(n, C): the states where `token` was the input."""
        return self.states[[i for i, one in enumerate(self.ids[: len(self.states)]) if one == token]]


def write_answers(model: Sa2VA, inputs: Tensor, cache, *, draft: list[int], stops: set[int], limit: int) -> list[Reply]:
    """The greedy answer to each of `inputs` (b, p, C), which follow what `cache` holds; at most `limit` tokens.

    A wrong or empty draft costs time, never correctness: from the first token that differs an answer is decoded one by
    one, alone. `cache` grows by p and the answer's inputs where there is one question; those of several are of no use
    afterwards.
    """
    draft = draft[:limit]
    states = model.read(_followed_by(model, inputs, draft[:-1]), cache)
    start = inputs.shape[1] - 1
    choices = model.score_tokens(states[:, start:]).argmax(dim=-1).tolist()  # choices[row][i]: its own token i
    replies = []
    for row, chosen in enumerate(choices):
        accepted = next(
            (i for i, (ours, theirs) in enumerate(zip(draft, chosen, strict=False)) if ours != theirs), len(draft)
        )
        ids = draft if accepted == len(draft) and draft else [*draft[:accepted], chosen[accepted]]
        kept = states[row, start + 1 : start + len(ids)]
        goes_on = ids[-1] not in stops and len(ids) < limit
        own = cache if len(choices) == 1 else model.take_row(cache, row) if goes_on else None
        if own is not None:
            shrink(own, states.shape[1] - inputs.shape[1] - len(kept))
        written = [kept]
        while ids[-1] not in stops and len(ids) < limit:
            state = model.read(model.embed(_rows(ids[-1:], inputs[:1])), own)[0]
            written.append(state)
            ids = [*ids, int(model.score_tokens(state[-1]).argmax())]
        replies.append(Reply(ids=ids, states=torch.cat(written), accepted=accepted))
    return replies


def read_answers(model: Sa2VA, inputs: Tensor, cache, *, answer: list[int]) -> list[Reply]:
    """The states of an answer that is given to all (b, p, C), without asking whether the model would have said so."""
    states = model.read(_followed_by(model, inputs, answer[:-1]), cache)
    return [Reply(ids=answer, states=row[inputs.shape[1] :], accepted=len(answer)) for row in states]


def shrink(cache, count: int) -> None:
    """Takes the last `count` positions from a key/value cache."""
    if count:
        cache.crop(-count)


def _followed_by(model: Sa2VA, inputs: Tensor, ids: list[int]) -> Tensor:
    return torch.cat([inputs, model.embed(_rows(ids, inputs)).to(inputs)], dim=1) if ids else inputs


def _rows(ids: list[int], like: Tensor) -> Tensor:
    return torch.tensor([ids] * len(like), device=like.device)
