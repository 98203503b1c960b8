"""A loaded Sa2VA that answers prompts about images. It never sees a ground truth: there is no way to hand it one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from sa2va_lab.errors import LabError
from sa2va_lab.prediction import AT_ONCE, Prediction
from sa2va_lab.sa2va.answering import Reply, read_answers, shrink, write_answers
from sa2va_lab.sa2va.family import Sight
from sa2va_lab.sa2va.modeling import CanvasFeatures, Sa2VA, stack
from sa2va_lab.sa2va.processing import ImageLike, Picture, PromptIds, PromptReader, normalise, phrase_prompt

FIRST_DRAFT = "Sure, [SEG]."
ANSWER_LIMIT = 512
MOST_TOGETHER = 8  # images; on an H100, 16 at once took as long an image as 8


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

    picture: Picture
    sight: Sight | None = None
    features: CanvasFeatures | None = None
    head: list[int] = field(default_factory=list)  # the ids that `cache` has read: everything up to the question
    cache: DynamicCache | None = None


@dataclass
class _Asked:
    """A question on its way: the image as seen, the prompt's ids, the answer, the masks' logits (n, g, g) each."""

    question: _Question
    seen: _Seen
    ids: PromptIds | None = None
    reply: Reply | None = None
    logits: list[np.ndarray] = field(default_factory=list)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


class Overflow(LabError):
    """The network's numbers left the range of their format."""


class Segmenter:
    """`predict(image, prompt)` gives a Prediction. Make one with `sa2va_lab.load`.

    The last image is remembered (its tokens, SAM2 features and the key/value cache of all that stands before the
    question); `forget` gives that memory back. `provenance` says which weights run where and why, also after a step.
    ladder: knows whether another network would help against an error (`helps`), loads it (`step_down`), and how many
    images have room together (`choose_batch`); what failed is tried again.
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
        self._most: int | None = None  # so many images at once, where more had no room
        self._ahead: dict[Path | str, Future[Picture]] = {}
        self._pool = ThreadPoolExecutor(1, "pixels")

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

        Images of a batch are seen together, and read together where they have as many tokens; what is greedy stays
        greedy, and logits move by rounding. The answer to a batch is the draft for the next. Where an image fails, the
        predictions of those before it come first, then its error.
        """
        if batch < 1:
            raise LabError(f"batch is {batch}; expected at least 1.")
        questions = (_Question(image, prompt, **options) for image in images)
        while group := list(itertools.islice(questions, batch)):
            yield from self._answer_all(group)

    def prepare(self, images: Iterable[Path | str]) -> None:
        """Begins to read these images, which are asked about next, beside whatever the network does meanwhile. What was
        begun before stays where it is among them, else it is given back."""
        begun, config = self._ahead, self.reader.config
        self._ahead = {one: begun.get(one) or self._pool.submit(Picture.prepare, one, config) for one in images}

    def choose_batch(self) -> tuple[int, str]:
        """How many images to ask about at once, and why."""
        return self._ladder.choose_batch(MOST_TOGETHER) if self._ladder else (1, "1: nothing is known of memory")

    def _answer_all(self, questions: list[_Question]) -> Iterator[Prediction]:
        """The predictions in order. Where memory runs out, fewer questions are asked at once; where that does not help
        or numbers overflow, what is left is asked of the network of another rung, as often as that helps."""
        while questions:
            if self.model is None:  # no rung held in the last call; memory may have come back since
                self.model = self._ladder.load()
                self._ladder.note(self.provenance)
            done: list[Prediction] = []
            failure, group = None, questions[: self._most]
            try:
                with _in_full(self.model.dtype):
                    self._predict_batch(group, done)
            except Exception as error:
                failure = error
            yield from done
            questions = questions[len(done) :]
            if failure is None:
                continue
            halved = is_out_of_memory(failure) and len(group) > 1
            if not halved and (self._ladder is None or not self._ladder.helps(failure)):
                raise failure
            failure = failure.with_traceback(None)  # its frames hold tensors, which must go before anything is loaded
            self.forget()
            if halved:
                self._most = len(group) // 2
                step = {"from": f"{len(group)} images at once", "to": str(self._most), "why": "out of memory"}
                self.provenance.setdefault("steps", []).append(step)
                continue
            self.model = None
            self.model = self._ladder.step_down(failure)
            self._ladder.note(self.provenance)

    @torch.inference_mode()
    def _predict_batch(self, questions: list[_Question], done: list[Prediction]) -> None:
        """Answers the questions together and adds the predictions to `done`: all, or those before the first whose image
        cannot be read, which then is raised."""
        seconds: dict[str, float] = {}
        cards = {tensor.device for tensor in self.model.parameters() if tensor.device.type == "cuda"}
        for card in cards:
            torch.cuda.reset_peak_memory_stats(card)
        with self._timed(seconds, "pixels"):
            asked, failure = self._look(questions)
        with self._timed(seconds, "vision"):
            fresh = [seen for seen in _different(asked) if seen.sight is None]
            if fresh:
                sights = self.model.encode_images([seen.picture.pixels for seen in fresh])
                for seen, sight in zip(fresh, sights, strict=True):
                    seen.sight = sight
                    seen.picture.drop("pixels")
        with self._timed(seconds, "answer"):
            self._read(asked)
        with self._timed(seconds, "canvas"):
            drawn = [one for one in asked if one.question.draw and self.reader.seg in one.reply.ids]
            fresh = [seen for seen in _different(drawn) if seen.features is None]
            if fresh:
                levels = torch.cat([seen.picture.levels for seen in fresh]).to(self.device)
                canvas = normalise(levels.to(self.model.grounding_encoder.no_memory_embedding.dtype))
                for seen, features in zip(fresh, self.model.encode_canvas(canvas).split(), strict=True):
                    seen.features = features
                    seen.picture.drop("levels")
        with self._timed(seconds, "masks"):
            for one in drawn:
                few = one.reply.states_at(self.reader.seg).split(AT_ONCE)
                one.logits += [
                    self.model.draw(one.seen.features, some).logits.cpu().numpy() for some in few if len(some)
                ]
        peak = sum(map(torch.cuda.max_memory_allocated, cards)) or None
        share = {stage: spent / max(len(asked), 1) for stage, spent in seconds.items()}
        done += [self._tell(one, share, peak) for one in asked]
        if failure is not None:
            raise failure

    def _tell(self, one: _Asked, seconds: dict[str, float], peak: int | None) -> Prediction:
        logits = np.concatenate([self._no_masks(), *one.logits])
        if not np.isfinite(logits).all():
            raise Overflow("the mask logits are not finite, though the language model's states are")
        (width, height), config = one.seen.picture.image.size, self.model.config
        told = dict(answer=self.reader.decode(one.reply.ids), canvas=config.canvas, seconds=seconds, peak_bytes=peak)
        return Prediction(logits=logits, size=(height, width), **told)

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

    def _look(self, questions: list[_Question]) -> tuple[list[_Asked], Exception | None]:
        """The questions whose images can be read, up to the first that cannot, and its error."""
        known = {self._seen.picture.digest: self._seen} if self._seen else {}
        asked: list[_Asked] = []
        self._seen = None  # what is not asked about again makes room
        for question in questions:
            try:
                text, _ = phrase_prompt(question.prompt)
                ready = self._ahead.pop(question.image, None) if isinstance(question.image, Path | str) else None
                picture = ready.result() if ready else Picture(question.image, self.reader.config)
            except Exception as error:  # of this image; those before it are answered
                return asked, error
            seen = known.setdefault(picture.digest, _Seen(picture))
            asked.append(_Asked(replace(question, prompt=text), seen))
            self._seen = seen
        return asked, None

    def _read(self, asked: list[_Asked]) -> None:
        """The replies; of questions that are as long in tokens as each other together."""
        alike: dict[tuple, list[_Asked]] = {}
        for one in asked:
            one.ids = self.reader.prompt_ids(one.question.prompt, len(one.seen.sight))
            size = (len(one.ids.head), len(one.ids.tail), one.seen.sight.grid, one.ids.head.index(self.reader.context))
            alike.setdefault((*size, one.question.answer, one.question.limit), []).append(one)
        for group in alike.values():
            for one, reply in zip(group, self._answer(group), strict=True):
                if not torch.isfinite(reply.states).all():
                    raise Overflow(self._name_overflow(one.seen))
                one.reply = reply

    def _answer(self, group: list[_Asked]) -> list[Reply]:
        first, question = group[0], group[0].question
        seen, alone = first.seen, len(group) == 1
        cache, seen.cache = seen.cache, None  # given back only when all went well
        if not alone or cache is None or seen.head != first.ids.head:
            cache, inputs = self._begin([one.ids for one in group], [one.seen.sight for one in group])
        else:
            inputs = self.model.embed(self._rows([first.ids.tail]))
        if question.answer is None:
            how = dict(draft=self.draft, stops=self.reader.stops, limit=question.limit)
            replies = write_answers(self.model, inputs, cache, **how)
            if self._drafts_change and replies[-1].ids[-1] in self.reader.stops:
                self.draft = replies[-1].ids
        else:
            if not question.answer.strip():
                raise LabError('The given answer is empty: give a sentence such as "Sure, [SEG]." or none at all.')
            if len(given := self.reader.answer_ids(question.answer)) > question.limit:
                raise LabError(f"The given answer has {len(given):,} tokens: give one of {question.limit:,} at most.")
            replies = read_answers(self.model, inputs, cache, answer=given)
        if alone:
            shrink(cache, cache.get_seq_length() - len(first.ids.head))
            seen.head, seen.cache = first.ids.head, cache
        return replies

    def _rows(self, ids: list[list[int]]) -> Tensor:
        return torch.tensor(ids, device=self.device)

    def _begin(self, prompts: list[PromptIds], sights: list[Sight]) -> tuple[DynamicCache, Tensor]:
        """A cache for prompts about as many images, and the prompts as the language model takes them (b, length, C)."""
        rows, sight = self._rows([prompt.all for prompt in prompts]), stack(sights)
        embeddings = self.model.embed(rows)
        embeddings[rows == self.reader.context] = sight.tokens.flatten(0, 1).to(embeddings)
        return self.model.new_cache(sight, start=prompts[0].head.index(self.reader.context)), embeddings

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
            sight = self.model.encode_image(seen.picture.pixels)
            question = self.reader.prompt_ids(phrase_prompt("it")[0], len(sight))
            cache, inputs = self._begin([question], [sight])
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


def _different(asked: list[_Asked]) -> list[_Seen]:
    """The images that the questions are about, each once."""
    return list({id(one.seen): one.seen for one in asked}.values())


@contextmanager
def _in_full(dtype: torch.dtype) -> Iterator[None]:
    """fp32 means fp32: left alone, cuDNN rounds what convolutions take to TF32, which moves logits by 2.5e-2 (H100)."""
    products = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [product.allow_tf32 for product in products]
    for product, allowed in zip(products, before, strict=True):
        product.allow_tf32 = allowed and dtype != torch.float32
    try:
        yield
    finally:
        for product, allowed in zip(products, before, strict=True):
            product.allow_tf32 = allowed
