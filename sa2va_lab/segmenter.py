"""A loaded Sa2VA that answers prompts about images. It never sees a ground truth: there is no way to hand it one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from sa2va_lab.conversation import ANSWER_LIMIT, Asked, Conversation, Question, Seen, write_out
from sa2va_lab.errors import LabError
from sa2va_lab.prediction import AT_ONCE, Prediction
from sa2va_lab.sa2va.answering import Reply, read_answers, shrink, write_answers
from sa2va_lab.sa2va.family import Sight
from sa2va_lab.sa2va.modeling import CanvasFeatures, Sa2VA, stack
from sa2va_lab.sa2va.processing import ImageLike, Picture, PromptIds, PromptReader, normalise, phrase_prompt, read_image
from sa2va_lab.sa2va.watching import Overflow, in_full, is_out_of_memory, timed, watch_memory, watch_overflow
from sa2va_lab.shown import Shown
from sa2va_lab.tracking import Tracker, choose_frames

FIRST_DRAFT = "Sure, [SEG]."
T = TypeVar("T")
MOST_TOGETHER = 8  # images; on an H100, 16 at once took as long an image as 8


class Segmenter(Shown):
    """`predict(image, prompt)` gives a Prediction. Make one with `sa2va_lab.load`.

    The last image is remembered (its tokens, SAM2 features and the key/value cache of all that stands before the
    question); `forget` gives that memory back. `provenance` says which weights run where and why, also after a step.
    `stamp` is a text that belongs on every figure made with this model (the demo has one), else None.
    ladder: knows whether another network would help against an error (`helps`), loads it (`step_down`), and how many
    images have room together (`choose_batch`); what failed is tried again.
    """

    def __init__(self, model: Sa2VA, reader: PromptReader, *, provenance: dict, ladder=None):
        self.model = model
        self.reader = reader
        self.provenance = provenance
        self.stamp: str | None = reader.config.stamp
        self._ladder = ladder
        self.draft = reader.answer_ids(FIRST_DRAFT)
        self._drafts_change = True
        self._seen: Seen | None = None
        self._talks: WeakSet[Conversation] = WeakSet()
        self._most: int | None = None  # so many images at once, where more had no room
        self._ahead: dict[Path | str, Future[Picture]] = {}
        self._pool = ThreadPoolExecutor(1, "pixels")

    @property
    def device(self) -> torch.device:
        """Where tokens go in."""
        return self.model.device

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        said = self.provenance
        facts = {"Model": f"{said['model']}, {said['parameters']:,} parameters"}
        for what in ("precision", "device"):
            actual, reason = said[what]["actual"], said[what]["reason"]
            facts[what.capitalize()] = reason if reason.startswith(actual) else f"{actual}: {reason}"
        forecast = [f"{share['total'] / (1 << 30):.2f} GiB on {share['name']}" for share in said["plan"]["devices"]]
        facts["Forecast"] = ", ".join(forecast)
        if steps := said.get("steps"):
            facts["Stepped down"] = "{from} to {to}: {why}".format(**steps[-1])
        return facts | ({"Note": said["stamp"]} if said["stamp"] else {})

    def predict(
        self,
        image: ImageLike | None,
        prompt: str,
        *,
        answer: str | None = None,
        limit: int = ANSWER_LIMIT,
        regions: Sequence[np.ndarray] = (),
    ) -> Prediction:
        """Masks and text for one prompt about one image.

        image: path, PIL image or array (see `read_image`); None asks about no image: text, no masks, size (0, 0).
        prompt: a phrase ("blood vessel") or a full question, with or without `<image>`. answer: use this text instead
        of generating ("Sure, [SEG]."); it may hold several [SEG] or none. limit: at most so many answer tokens.
        regions: bool (H, W) masks of the image's size, which the prompt calls region1, region2 ... (InternVL only).
        Raises LabError for an unreadable image, an empty prompt or a region that covers nothing, and for numbers that
        overflow where no other precision is left.
        """
        return self._ask(Question(image, prompt, answer, limit, regions=regions))

    def chat(self, image: ImageLike | None = None) -> Conversation:
        """A conversation about one image, or about none: `chat(image).ask("Where is the catheter?")`, and so on."""
        talk = Conversation(None if image is None else read_image(image), self._ask)
        self._talks.add(talk)
        return talk

    def answer(self, image: ImageLike, prompt: str, *, limit: int = ANSWER_LIMIT) -> str:
        """The text alone, without the masks that its [SEG] tokens mean: SAM2 is not run. Otherwise as `predict`."""
        return self._ask(Question(image, prompt, limit=limit, draw=False)).answer

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
        questions = (Question(image, prompt, **options) for image in images)
        while group := list(itertools.islice(questions, batch)):
            yield from self._answer_all(group)

    def track(
        self,
        frames: Iterable[ImageLike],
        prompt: str,
        *,
        answer: str | None = None,
        limit: int = ANSWER_LIMIT,
        keep: int = 5,
        sample: str | None = None,
    ) -> Iterator[Prediction]:
        """A Prediction for each frame of a film, in order: one question, and SAM2 follows what the answer names.

        frames: images as `predict` takes them, or what `datasets.films.open_film` gives; read one at a time. The
        language model sees `keep` frames together and answers once; prompt, answer and limit are as in `predict`. On
        those frames each [SEG] is drawn as in a still image, from the answer; on all others SAM2 draws from its memory
        of those and of the last six frames, each [SEG] from its own. No [SEG]: no masks.
        sample: None shows the first frames, as the official code does. "spread" shows frames from the middle of as many
        equal parts of the film, since a film of contrast begins without; what comes before them is followed as well.
        frames must have a length then, and be iterable again: the film is read twice up to the last of them.
        A frame that cannot be read has a Prediction with an `error`; the film goes on, and where the model was to see
        that frame it sees the next that can be read. Memory runs out or numbers overflow: the frame is drawn by the
        network of another rung, as in `predict`, from what is remembered already.
        Raises LabError at once for what cannot be asked; in the film as `predict`, but for frames.
        """
        question, wanted = Question(None, phrase_prompt(prompt)[0], answer, limit), choose_frames(frames, keep, sample)
        return Tracker(self, question).track(frames, wanted, again=sample is not None)

    def prepare(self, images: Iterable[Path | str]) -> None:
        """Begins to read these images, which are asked about next, beside whatever the network does meanwhile. What was
        begun before stays where it is among them, else it is given back."""
        begun, config = self._ahead, self.reader.config
        self._ahead = {one: begun.get(one) or self._pool.submit(Picture.prepare, one, config) for one in images}

    def choose_batch(self) -> tuple[int, str]:
        """How many images to ask about at once, and why."""
        return self._ladder.choose_batch(MOST_TOGETHER) if self._ladder else (1, "1: nothing is known of memory")

    def _ask(self, question: Question) -> Prediction:
        [prediction] = self._answer_all([question])
        return prediction

    def _answer_all(self, questions: list[Question]) -> Iterator[Prediction]:
        """The predictions in order. Where memory runs out, fewer questions are asked at once; where that does not help
        or numbers overflow, what is left is asked of the network of another rung, as often as that helps."""
        while questions:
            done: list[Prediction] = []
            failure, group = None, questions[: self._most]
            try:
                self._run(partial(self._predict_batch, group, done))
            except Exception as error:
                failure = error
            yield from done
            questions = questions[len(done) :]
            if failure and len(group) > 1 and is_out_of_memory(failure):
                del failure  # its frames hold tensors
                self.forget()
                self._most = len(group) // 2
                step = {"from": f"{len(group)} images at once", "to": str(self._most), "why": "out of memory"}
                self.provenance.setdefault("steps", []).append(step)
            elif failure:
                self._step_down(failure)

    def _insist(self, work: Callable[[], T]) -> T:
        """What `work` gives; where memory runs out or numbers overflow, with the network of another rung."""
        while True:
            try:
                return self._run(work)
            except Exception as error:
                failure = error
            self._step_down(failure)

    def _run(self, work: Callable[[], T]) -> T:
        if self.model is None:  # no rung held in the last call; memory may have come back since
            self.model = self._ladder.load()
            self._ladder.note(self.provenance)
        with torch.inference_mode(), in_full(self.model.dtype):
            return work()

    def _step_down(self, failure: Exception) -> None:
        """To the network of another rung; raises the failure where none helps."""
        if self._ladder is None or not self._ladder.helps(failure):
            raise failure
        failure = failure.with_traceback(None)  # its frames hold tensors, which must go before anything is loaded
        self.forget()
        self.model = None
        self.model = self._ladder.step_down(failure)
        self._ladder.note(self.provenance)

    def _predict_batch(self, questions: list[Question], done: list[Prediction]) -> None:
        """Answers the questions together and adds the predictions to `done`: all, or those before the first whose image
        cannot be read, which then is raised."""
        seconds: dict[str, float] = {}
        measure = watch_memory(self.model)
        with timed(self.device, seconds, "pixels"):
            asked, failure = self._look(questions)
        with timed(self.device, seconds, "vision"):
            if fresh := [seen for seen in _different(asked) if seen.sight is None]:
                sights = self.model.encode_images([seen.picture.pixels for seen in fresh])
                for seen, sight in zip(fresh, sights, strict=True):
                    seen.sight = sight
                    seen.picture.drop("pixels")
        with timed(self.device, seconds, "answer"):
            self._read(asked)
        with timed(self.device, seconds, "canvas"):
            wanted = [one for one in asked if one.question.draw and one.seen.picture]
            drawn = [one for one in wanted if self.reader.seg in one.reply.ids]
            if fresh := [seen for seen in _different(drawn) if seen.features is None]:
                for seen, features in zip(fresh, self._see([seen.picture for seen in fresh]).split(), strict=True):
                    seen.features = features
        with timed(self.device, seconds, "masks"):
            for one in drawn:
                few = one.reply.states_at(self.reader.seg).split(AT_ONCE)
                one.logits += [
                    self.model.draw(one.seen.features, some).logits.cpu().numpy() for some in few if len(some)
                ]
        share = {stage: spent / max(len(asked), 1) for stage, spent in seconds.items()}
        done += [self._tell(one, share, measure()) for one in asked]
        if failure is not None:
            raise failure

    def _see(self, pictures: list[Picture]) -> CanvasFeatures:
        levels = torch.cat([picture.levels for picture in pictures]).to(self.device)
        for picture in pictures:
            picture.drop("levels")
        return self.model.encode_canvas(normalise(levels.to(self.model.grounding_encoder.no_memory_embedding.dtype)))

    def _tell(self, one: Asked, seconds: dict[str, float], peak: int | None) -> Prediction:
        logits = np.concatenate([self._no_masks(), *one.logits])
        if not np.isfinite(logits).all():
            raise Overflow("the mask logits are not finite, though the language model's states are")
        size, config, picture = one.seen.size or (0, 0), self.model.config, one.seen.picture
        told = dict(answer=self.reader.decode(one.reply.ids), canvas=config.canvas, seconds=seconds, peak_bytes=peak)
        told |= dict(thumbnail=picture and picture.thumbnail, stamp=self.stamp)
        return Prediction(logits=logits, size=size, **told)

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
        """Gives back the memory held for the last image and for conversations, which go on all the same."""
        self._seen = None
        for talk in self._talks:
            talk.forget()

    def _look(self, questions: list[Question]) -> tuple[list[Asked], Exception | None]:
        """The questions whose images can be read, up to the first that cannot, and its error."""
        known = {self._seen.picture.digest: self._seen} if self._seen else {}
        asked: list[Asked] = []
        self._seen = None  # what is not asked about again makes room
        for question in questions:
            try:
                seen = self._recall(question, known)
                asked.append(Asked(question, seen, *write_out(question, seen.size, self.reader.config)))
            except Exception as error:  # of this image; those before it are answered
                return asked, error
            if question.talk:
                question.talk.seen = seen
            elif seen.picture:
                self._seen = seen
        return asked, None

    def _recall(self, question: Question, known: dict[str, Seen]) -> Seen:
        """What is known of the question's image, by its pixels, or a place for it."""
        if question.talk and question.talk.seen:
            return question.talk.seen
        if question.image is None:
            return Seen(None, Sight())
        ready = self._ahead.pop(question.image, None) if isinstance(question.image, Path | str) else None
        picture = ready.result() if ready else Picture(question.image, self.reader.config)
        return known.setdefault(picture.digest, Seen(picture))

    def _read(self, asked: list[Asked]) -> None:
        """The replies; of questions that are as long in tokens as each other together."""
        alike: dict[tuple, list[Asked]] = {}
        for one in asked:
            counts = one.seen.sight.counts
            one.ids = self.reader.prompt_ids(one.text, *counts, cells=one.cells)
            size = (len(one.ids.head), len(one.ids.tail), one.seen.sight.grid, one.ids.starts(counts))
            alike.setdefault((*size, one.question.answer, one.question.limit), []).append(one)
        for group in alike.values():
            for one, reply in zip(group, self._answer(group), strict=True):
                if not torch.isfinite(reply.states).all():
                    raise Overflow(self._name_overflow(one.seen))
                one.reply = reply

    def _answer(self, group: list[Asked]) -> list[Reply]:
        first, question = group[0], group[0].question
        seen, alone, keys = first.seen, len(group) == 1, first.ids.keys
        most = self.model.language_model.config.max_position_embeddings
        if (limit := min(question.limit, most - len(keys))) < 1:
            raise LabError(
                f"The question and all before it have {len(keys):,} tokens, and the model reads {most:,} with its "
                "answer: begin a new conversation or ask in fewer words."
            )
        cache, seen.cache = seen.cache, None  # given back only when all went well
        most_alike = min(len(seen.read), len(keys) - 1)  # a state comes only from what is read now
        same = next((i for i in range(most_alike) if seen.read[i] != keys[i]), most_alike)
        if not alone or cache is None or same < len(first.ids.head):
            cache, inputs = self._begin([one.ids for one in group], [one.seen.sight for one in group])
        else:
            shrink(cache, cache.get_seq_length() - same)
            inputs = self._embed([first.ids], [seen.sight], same)
        if question.answer is None:
            how = dict(draft=self.draft, stops=self.reader.stops, limit=limit)
            replies = write_answers(self.model, inputs, cache, **how)
            if self._drafts_change and replies[-1].ids[-1] in self.reader.stops:
                self.draft = replies[-1].ids
        else:
            if not question.answer.strip():
                raise LabError('The given answer is empty: give a sentence such as "Sure, [SEG]." or none at all.')
            if len(given := self.reader.answer_ids(question.answer)) > limit:
                raise LabError(f"The given answer has {len(given):,} tokens: give one of {limit:,} at most.")
            replies = read_answers(self.model, inputs, cache, answer=given)
        if alone:  # of a conversation all is kept, else what any question about the image begins with
            keys += [(token, -1) for token in replies[0].ids]
            seen.read, seen.cache = keys[: cache.get_seq_length() if question.talk else len(first.ids.head)], cache
            shrink(cache, cache.get_seq_length() - len(seen.read))
        return replies

    def _begin(self, prompts: list[PromptIds], sights: list[Sight]) -> tuple[DynamicCache, Tensor]:
        """A cache for prompts about as many images, and the prompts as the language model takes them (b, length, C)."""
        sight = stack(sights) if len(sights[0]) else None
        return self.model.new_cache(sight, starts=prompts[0].starts(sights[0].counts)), self._embed(prompts, sights)

    def _embed(self, prompts: list[PromptIds], sights: list[Sight], start: int = 0) -> Tensor:
        """The prompts from their token `start` on as the language model takes them (b, length - start, C)."""
        embeddings = self.model.embed(torch.tensor([prompt.all[start:] for prompt in prompts], device=self.device))
        for i, (prompt, sight) in enumerate(zip(prompts, sights, strict=True)):
            rows = torch.tensor(prompt.rows[start:], device=self.device)
            if (places := rows >= 0).any():
                embeddings[i, places] = sight.tokens.to(embeddings)[rows[places]]
        return embeddings

    def _name_overflow(self, seen: Seen) -> str:
        """Which module's output was the first that is not finite; the image is read once more to find out."""
        with watch_overflow(self.model) as found:
            sight = self.model.encode_image(seen.picture.pixels) if seen.picture else Sight()
            question = self.reader.prompt_ids(phrase_prompt("it")[0], len(sight))
            cache, inputs = self._begin([question], [sight])
            self.model.read(inputs, cache)
        where = f"first in {found[0]}" if found else "in this answer only"
        kind = str(self.model.dtype).removeprefix("torch.")
        return f"numbers left the range of {kind}, {where}"

    def _no_masks(self) -> np.ndarray:
        grid = self.model.grounding_encoder.config.vision_config.backbone_feature_sizes[0][0]
        return np.zeros((0, grid, grid), np.float32)


def _different(asked: list[Asked]) -> list[Seen]:
    """The images that the questions are about, each once."""
    return list({id(one.seen): one.seen for one in asked}.values())
