"""A film on its way through the network: asked about once, then followed by SAM2's memory. See `Segmenter.track`."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import partial

import numpy as np
from torch import Tensor

from sa2va_lab.conversation import Asked, Question, Seen
from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction
from sa2va_lab.sa2va.memory import FilmMemory
from sa2va_lab.sa2va.modeling import CanvasFeatures, Masks, string
from sa2va_lab.sa2va.processing import ImageLike, Picture
from sa2va_lab.sa2va.watching import timed, watch_memory

SPREAD = "spread"
TOGETHER = 4  # [SEG] that are followed at once: the keys and values of each take 44 MiB in bf16 meanwhile


def choose_frames(frames: Iterable, keep: int, sample: str | None) -> Sequence[int]:
    """The numbers of the frames that the language model is to see. LabError for what cannot be chosen."""
    if keep < 1:
        raise LabError(f"keep is {keep}; expected at least 1 frame that the language model sees.")
    if sample is None:
        return range(keep)
    if sample != SPREAD:
        raise LabError(f'sample is {sample!r}; expected None for the first frames, or "{SPREAD}".')
    if not isinstance(frames, Sized) or iter(frames) is frames:
        raise LabError(f'sample="{SPREAD}" needs the length of the film: give its frames as a list or a Film.')
    keep = min(keep, len(frames))
    return [(2 * part + 1) * len(frames) // (2 * keep) for part in range(keep)]


class Tracker:
    """One film. segmenter: whose network, reader and ladder are used; question: without its image."""

    def __init__(self, segmenter, question: Question):
        self._segmenter, self._question = segmenter, question
        self._config = segmenter.reader.config.family.of_film(segmenter.reader.config)
        self._memories: list[FilmMemory] = []  # each of some [SEG]
        self._lost: dict[int, str] = {}
        self._size, self._answer = (0, 0), ""

    def track(self, frames: Iterable[ImageLike], wanted: Sequence[int], *, again: bool) -> Iterator[Prediction]:
        """The predictions. wanted: numbers of the frames to be shown; again: whether the film begins anew for those
        that are followed, or goes on."""
        ahead, queue, read = enumerate(frames), deque(wanted), 0
        shown: dict[int, tuple[Picture, dict]] = {}
        for number, frame in ahead:
            read += 1
            if number >= queue[0] and (opened := self._open(number, frame, show=True)):
                shown[number] = opened
                queue.popleft()
                if not queue:
                    break
        if again and not shown and self._lost:  # the film may be broken from the first frame wanted to its end
            yield from self.track(frames, range(len(wanted)), again=False)
            return
        drawn = self._begin(shown) if shown else {}
        shown.clear()
        for number, frame in enumerate(frames) if again else itertools.chain(enumerate([None] * read), ahead):
            if number in drawn:
                yield drawn.pop(number)
            elif number not in self._lost and (opened := self._open(number, frame, show=False)):
                yield self._draw(number, *opened, FilmMemory.follow)
            else:
                yield self._tell(self._size, error=self._lost.pop(number))

    def _open(self, number: int, frame: ImageLike, *, show: bool) -> tuple[Picture, dict[str, float]] | None:
        """The frame in the forms that are needed and the seconds it took, or None, and why is known."""
        seconds: dict[str, float] = {}
        try:
            if error := getattr(frame, "error", None):
                raise LabError(error)
            with timed(self._segmenter.device, seconds, "pixels"):
                picture = Picture(getattr(frame, "image", frame), self._config)
                _ = picture.levels, show and picture.pixels  # made here, and kept
        except Exception as error:  # of this frame: the film goes on
            self._lost[number] = str(error) or type(error).__name__
            return None
        self._size = self._size if any(self._size) else picture.image.size[::-1]
        return picture, seconds

    def _begin(self, shown: dict[int, tuple[Picture, dict[str, float]]]) -> dict[int, Prediction]:
        """Asks about these frames together, and draws what was answered on each."""
        spent: dict[str, float] = {}
        embeddings = self._segmenter._insist(partial(self._ask, [picture for picture, _ in shown.values()], spent))
        self._memories = [FilmMemory(self._segmenter.model, some) for some in embeddings.split(TOGETHER) if len(some)]
        share = {stage: seconds / len(shown) for stage, seconds in spent.items()}
        return {
            number: self._draw(number, picture, seconds | share, FilmMemory.condition)
            for number, (picture, seconds) in shown.items()
        }

    def _ask(self, pictures: list[Picture], spent: dict[str, float]) -> Tensor:
        """What the answer asks SAM2 for, (n, D)."""
        segmenter, model = self._segmenter, self._segmenter.model
        with timed(segmenter.device, spent, "vision"):
            sight = string(model.encode_images([picture.pixels for picture in pictures]))
        with timed(segmenter.device, spent, "answer"):
            asked = Asked(self._question, Seen(pictures[0], sight), self._question.prompt, [])
            segmenter._read([asked])
        self._answer = segmenter.reader.decode(asked.reply.ids)
        return model.embed_segs(asked.reply.states_at(segmenter.reader.seg))

    def _draw(
        self,
        number: int,
        picture: Picture,
        seconds: dict[str, float],
        how: Callable[[FilmMemory, int, CanvasFeatures], Masks],
    ) -> Prediction:
        segmenter = self._segmenter

        def draw() -> tuple[list[np.ndarray], int | None]:
            measure, logits = watch_memory(segmenter.model), []
            with timed(segmenter.device, seconds, "canvas"):
                features = segmenter._see([picture])
            with timed(segmenter.device, seconds, "masks"):
                for memory in self._memories:
                    if memory.model is not segmenter.model:
                        memory.run_on(segmenter.model)
                    logits.append(how(memory, number, features).logits.cpu().numpy())
            return logits, measure()

        logits, peak = segmenter._insist(draw) if self._memories else ([], None)
        more = dict(seconds=seconds, peak_bytes=peak, thumbnail=picture.thumbnail)
        return self._tell(picture.image.size[::-1], logits, **more)

    def _tell(self, size: tuple[int, int], logits: Sequence[np.ndarray] = (), **more) -> Prediction:
        whole = np.concatenate([self._segmenter._no_masks(), *logits])
        return Prediction(whole, size, self._answer, canvas=self._config.canvas, stamp=self._segmenter.stamp, **more)
