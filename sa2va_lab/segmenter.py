"""A loaded Sa2VA that answers prompts about images. It never sees a ground truth: there is no way to hand it one."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from sa2va_lab.errors import LabError
from sa2va_lab.prediction import AT_ONCE, Prediction
from sa2va_lab.sa2va.answering import Reply, read_answer, shrink, write_answer
from sa2va_lab.sa2va.family import Sight
from sa2va_lab.sa2va.modeling import CanvasFeatures, Sa2VA
from sa2va_lab.sa2va.processing import PromptIds, PromptReader, fill_canvas, phrase_prompt, read_image

FIRST_DRAFT = "Sure, [SEG]."
ANSWER_LIMIT = 512

ImageLike = Path | str | Image.Image | np.ndarray


@dataclass(frozen=True)
class _Question:
    """One prompt about one image, as `Segmenter.predict` takes it. draw: whether its masks are wanted."""

    image: ImageLike
    prompt: str
    answer: str | None = None
    limit: int = ANSWER_LIMIT
    draw: bool = True


@dataclass
class _Seen:
    """What is kept about the last image, so that a second question about it costs little."""

    digest: str
    image: Image.Image
    sight: Sight | None = None
    features: CanvasFeatures | None = None
    head: list[int] = field(default_factory=list)  # the ids that `cache` has read: everything up to the question
    cache: DynamicCache | None = None


class Overflow(LabError):
    """The network's numbers left the range of their format."""


class Segmenter:
    """`predict(image, prompt)` gives a Prediction. Make one with `sa2va_lab.load`.

    The last image is remembered (its tokens, SAM2 features and the key/value cache of all that stands before the
    question); `forget` gives that memory back. `provenance` says which weights run where and why, also after a step.
    ladder: knows whether another network would help against an error (`helps`), and loads it (`step_down`); the same
    image is tried again.
    """

    def __init__(
        self,
        model: Sa2VA,
        reader: PromptReader,
        *,
        provenance: dict,
        ladder=None,
    ):
        self.model = model
        self.reader = reader
        self.provenance = provenance
        self._ladder = ladder
        self.draft = reader.answer_ids(FIRST_DRAFT)
        self._drafts_change = True
        self._seen: _Seen | None = None

    @property
    def device(self) -> torch.device:
        """Where tokens go in."""
        return self.model.device

    @property
    def stamp(self) -> str | None:
        """A text that belongs on every figure made with this model (the demo has one), else None."""
        return self.model.config.stamp

    def predict(
        self, image: ImageLike, prompt: str, *, answer: str | None = None, limit: int = ANSWER_LIMIT
    ) -> Prediction:
        """Masks and text for one prompt about one image.

        image: path, PIL image or array (see `read_image`). prompt: a phrase ("blood vessel") or a full question, with
        or without `<image>`. answer: use this text instead of generating ("Sure, [SEG]."); it may hold several [SEG] or
        none. limit: at most so many answer tokens. Raises LabError for an unreadable image or an empty prompt, and for
        numbers that overflow where no other precision is left.
        """
        [prediction] = self._answer_all([_Question(image, prompt, answer, limit)])
        return prediction

    def answer(self, image: ImageLike, prompt: str, *, limit: int = ANSWER_LIMIT) -> str:
        """The text alone, without the masks that its [SEG] tokens mean: SAM2 is not run. Otherwise as `predict`."""
        [prediction] = self._answer_all([_Question(image, prompt, limit=limit, draw=False)])
        return prediction.answer

    def predict_many(
        self, images: Iterable[ImageLike], prompt: str, *, batch: int = 1, **options
    ) -> Iterator[Prediction]:
        """`predict` for each image in turn, lazily, `batch` of them at a time; `options` as `predict` has them.

        The answer to one is the draft for the next. Where an image fails, the predictions of those before it come
        first, then its error.
        """
        if batch < 1:
            raise LabError(f"batch is {batch}; expected at least 1.")
        questions = (_Question(image, prompt, **options) for image in images)
        while group := list(itertools.islice(questions, batch)):
            yield from self._answer_all(group)

    def _answer_all(self, questions: list[_Question]) -> Iterator[Prediction]:
        """The predictions in order. Where memory runs out or numbers overflow, the questions that are left are asked
        of the network of another rung, as often as that helps."""
        while questions:
            if self.model is None:  # no rung held in the last call; memory may have come back since
                self.model = self._ladder.load()
                self._ladder.note(self.provenance)
            done: list[Prediction] = []
            failure = None
            try:
                self._predict_batch(questions, done)
            except Exception as error:
                failure = error
            yield from done
            questions = questions[len(done) :]
            if failure is None:
                return
            if self._ladder is None or not self._ladder.helps(failure):
                raise failure
            failure = failure.with_traceback(None)  # its frames hold tensors, which must go before anything is loaded
            self.forget()
            self.model = None
            self.model = self._ladder.step_down(failure)
            self._ladder.note(self.provenance)

    @torch.inference_mode()
    def _predict_batch(self, questions: list[_Question], done: list[Prediction]) -> None:
        """Answers the questions, one after the other, and adds each prediction to `done` as soon as it is made."""
        for question in questions:
            done.append(self._predict(question))

    def _predict(self, question: _Question) -> Prediction:
        text, _ = phrase_prompt(question.prompt)
        seconds: dict[str, float] = {}
        cards = {tensor.device for tensor in self.model.parameters() if tensor.device.type == "cuda"}
        for card in cards:
            torch.cuda.reset_peak_memory_stats(card)
        with self._timed(seconds, "pixels"):
            seen = self._look_at(read_image(question.image))
            pixels = self._cut(seen) if seen.sight is None else None
        with self._timed(seconds, "vision"):
            if pixels is not None:
                seen.sight = self.model.encode_image(pixels)
        with self._timed(seconds, "answer"):
            ids = self.reader.prompt_ids(text, len(seen.sight))
            reply = self._answer(seen, ids, question.answer, question.limit)
            if not torch.isfinite(reply.states).all():
                raise Overflow(self._name_overflow(seen))
            states = reply.states_at(self.reader.seg) if question.draw else reply.states[:0]
        with self._timed(seconds, "canvas"):
            if len(states) and seen.features is None:
                dtype = self.model.grounding_encoder.no_memory_embedding.dtype
                canvas = fill_canvas(seen.image, self.model.config, dtype=dtype)
                seen.features = self.model.encode_canvas(canvas.to(self.device))
        with self._timed(seconds, "masks"):
            few = states.split(AT_ONCE) if len(states) else ()
            drawn = [self.model.draw(seen.features, some).logits.cpu().numpy() for some in few]
            logits = np.concatenate([self._no_masks(), *drawn])
        if not np.isfinite(logits).all():
            raise Overflow("the mask logits are not finite, though the language model's states are")
        width, height = seen.image.size
        return Prediction(
            logits=logits,
            size=(height, width),
            answer=self.reader.decode(reply.ids),
            canvas=self.model.config.canvas,
            seconds=seconds,
            peak_bytes=sum(map(torch.cuda.max_memory_allocated, cards)) or None,
        )

    @contextmanager
    def keep_draft(self, image: ImageLike, prompt: str) -> Iterator[None]:
        """Within it the draft is one and the same: the answer to this question, if that names a mask.

        Another draft moves logits by rounding (1e-6), since its tokens are read along with the rest. So what an image
        gives does not hang on what was asked before it, and a run that was taken up again has the bytes of one that
        was not.
        """
        self.draft, self._drafts_change = self.reader.answer_ids(FIRST_DRAFT), True
        with suppress(Exception):  # whatever is wrong with this image is told when its turn comes
            self.answer(image, prompt)
        if self.reader.seg not in self.draft:
            self.draft = self.reader.answer_ids(FIRST_DRAFT)
        self._drafts_change = False
        self.forget()
        try:
            yield
        finally:
            self._drafts_change = True

    def forget(self) -> None:
        """Gives back the memory held for the last image."""
        self._seen = None

    def _look_at(self, image: Image.Image) -> _Seen:
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        if self._seen is None or self._seen.digest != digest:
            self._seen = None  # before the next image needs room
            self._seen = _Seen(digest, image)
        return self._seen

    def _cut(self, seen: _Seen):
        return self.model.config.family.pixels(seen.image, self.model.config)

    def _answer(self, seen: _Seen, prompt: PromptIds, answer: str | None, limit: int) -> Reply:
        cache, seen.cache = seen.cache, None  # given back only when all went well
        if cache is None or seen.head != prompt.head:
            cache, inputs = self._begin(prompt, seen.sight)
        else:
            inputs = self.model.embed(self._row(prompt.tail))
        if answer is None:
            reply = write_answer(self.model, inputs, cache, draft=self.draft, stops=self.reader.stops, limit=limit)
            if self._drafts_change and reply.ids[-1] in self.reader.stops:
                self.draft = reply.ids
        else:
            if not answer.strip():
                raise LabError('The given answer is empty: give a sentence such as "Sure, [SEG]." or none at all.')
            if len(given := self.reader.answer_ids(answer)) > limit:
                raise LabError(f"The given answer has {len(given):,} tokens: give one of {limit:,} at most.")
            reply = read_answer(self.model, inputs, cache, answer=given)
        shrink(cache, cache.get_seq_length() - len(prompt.head))
        seen.head, seen.cache = prompt.head, cache
        return reply

    def _row(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self.device)

    def _begin(self, prompt: PromptIds, sight: Sight) -> tuple[DynamicCache, Tensor]:
        """A cache for a prompt about an image, and the prompt as the language model takes it (1, length, C)."""
        row = self._row(prompt.all)
        embeddings = self.model.embed(row)
        embeddings[row == self.reader.context] = sight.tokens.to(embeddings)
        return self.model.new_cache(sight, start=prompt.head.index(self.reader.context)), embeddings

    def _name_overflow(self, seen: _Seen) -> str:
        """Which module's output was the first that is not finite; the image is read once more to find out."""
        found: list[str] = []

        def look(name: str):
            def hook(module, given, out) -> None:
                first = out[0] if isinstance(out, tuple) else getattr(out, "last_hidden_state", out)
                if not found and isinstance(first, Tensor) and not torch.isfinite(first).all():
                    found.append(name)

            return hook

        handles = [module.register_forward_hook(look(name)) for name, module in self.model.named_modules()]
        try:
            sight = self.model.encode_image(self._cut(seen))
            question = self.reader.prompt_ids(phrase_prompt("it")[0], len(sight))
            cache, inputs = self._begin(question, sight)
            self.model.read(inputs, cache)
        finally:
            for handle in handles:
                handle.remove()
        where = f"first in {found[0]}" if found else "in this answer only"
        kind = str(self.model.dtype).removeprefix("torch.")
        return f"numbers left the range of {kind}, {where}"

    def _no_masks(self) -> np.ndarray:
        grid = self.model.grounding_encoder.config.vision_config.backbone_feature_sizes[0][0]
        return np.zeros((0, grid, grid), np.float32)

    @contextmanager
    def _timed(self, seconds: dict[str, float], stage: str):
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds[stage] = time.perf_counter() - start
