"""A question on its way to the network: alone, or a turn of a conversation, of which what was read is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from transformers import DynamicCache

from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction
from sa2va_lab.sa2va.answering import Reply
from sa2va_lab.sa2va.family import Sa2VAConfig, Sight
from sa2va_lab.sa2va.modeling import CanvasFeatures
from sa2va_lab.sa2va.processing import ImageLike, Picture, PromptIds, phrase_prompt
from sa2va_lab.shown import Shown

ANSWER_LIMIT = 512


@dataclass(frozen=True)
class Question:
    """One prompt about one image, or none, as `Segmenter.predict` takes it. draw: whether its masks are wanted; talk:
    the conversation that it goes on with."""

    image: ImageLike | None
    prompt: str
    answer: str | None = None
    limit: int = ANSWER_LIMIT
    draw: bool = True
    regions: Sequence[np.ndarray] = ()
    talk: Conversation | None = None


@dataclass
class Seen:
    """What is kept about an image (or none), so that a second question about it costs little."""

    picture: Picture | None
    sight: Sight | None = None
    features: CanvasFeatures | None = None
    read: list[tuple[int, int]] = field(default_factory=list)  # the keys of all that `cache` has read
    cache: DynamicCache | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of the image."""
        return self.picture and self.picture.image.size[::-1]


@dataclass
class Asked:
    """A question on its way: the image as seen, the prompt as text and as ids, the tokens of the image that its regions
    cover, the answer, the masks' logits (n, g, g) each."""

    question: Question
    seen: Seen
    text: str
    cells: list[int]
    ids: PromptIds | None = None
    reply: Reply | None = None
    logits: list[np.ndarray] = field(default_factory=list)


class Conversation(Shown):
    """Questions one after the other about one image, or about none; `Segmenter.chat` begins one.

    turns: [(what was asked, what was answered)]. The keys and values of all that was read are kept, so a turn reads
    only what is new; where they had to be given back, it reads all turns again. A [SEG] of a former turn gives no mask.
    Regions are counted through the conversation: those of a later turn stand beside the first ones, where the model
    was taught to find them, and what follows them is read again.
    """

    def __init__(self, image: Image.Image | None, answer: Callable[[Question], Prediction]):
        self.image, self._answer = image, answer
        self.turns: list[tuple[str, str]] = []
        self.regions: list[np.ndarray] = []
        self.seen: Seen | None = None

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        size = "{} x {} pixels".format(*self.image.size) if self.image else "none"
        return {"Image": size} | {f"{turn}. {asked}": answer for turn, (asked, answer) in enumerate(self.turns, 1)}

    def ask(
        self,
        text: str,
        *,
        answer: str | None = None,
        regions: Sequence[np.ndarray] = (),
        limit: int = ANSWER_LIMIT,
    ) -> Prediction:
        """The next turn; all as `Segmenter.predict` has it. What is refused becomes no turn.

        Raises LabError also where the conversation is longer than what the model can read.
        """
        given = tuple(regions)
        prediction = self._answer(Question(self.image, text, answer, limit, regions=given, talk=self))
        self.turns.append((text, prediction.answer))
        self.regions += given
        return prediction

    def forget(self) -> None:
        """Gives back the memory that is held for it; the turns stay."""
        self.seen = None


def write_out(question: Question, size: tuple[int, int] | None, config: Sa2VAConfig) -> tuple[str, list[int]]:
    """A question and all turns before it as `Family.lay_out` takes them, joined as they were in training, and the
    tokens of the image that its regions cover. size: (H, W) of the image, None for none. LabError for what cannot be
    asked."""
    past, marked = (question.talk.turns, question.talk.regions) if question.talk else ([], [])
    asked, regions = [*(text for text, _ in past), question.prompt], [*marked, *question.regions]
    texts, words, cells = [phrase_prompt(text)[0] for text in asked], "", []
    if size is None and regions:
        raise LabError("Regions are parts of an image, and this question has none: give the image as well.")
    if regions:
        words, cells = config.family.mark(regions, size, config)
    first, *later = texts if size else asked  # without an image a phrase is no question about one
    whole = first.replace("<image>", "<image>" + words if size else "")
    between = (config.turn.after, config.turn.stops[0] + "\n" + config.turn.before)
    for (_, answer), text in zip(past, later, strict=True):
        for mark in ("<image>", config.family.image[1]):  # an answer may hold them, but they would stand for an image
            answer = answer.replace(mark, "")
        whole += answer.join(between) + text.replace("<image>\n", "").replace("<image>", "")
    return whole, cells
