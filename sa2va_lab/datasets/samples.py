"""What every data set looks like once it is open, whatever it was on disk.

Nothing here decodes an image or a truth before somebody asks for it: a data set of a thousand images opens at the
cost of reading its annotations. It is opened once and holds every phrase; one of them is the default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sa2va_lab import files
from sa2va_lab.datasets.defects import Account, Defect
from sa2va_lab.datasets.drawings import Drawing, DrawnTruth, MaskFile
from sa2va_lab.datasets.pictures import read_size
from sa2va_lab.errors import LabError
from sa2va_lab.shown import Shown

WORDLESS = 'a name without a letter says nothing to a model: name it in labels.json ("1": "vessel", or "*" for all)'
UNKNOWN = Defect("unknown_truth", "nothing usable was drawn: the truth is unknown")


@dataclass(frozen=True, repr=False)
class Sample(Shown):
    """One image and what there is to find in it.

    id: a pseudonym such as P07-V2-F011, stable as long as the key beside the data is; never the file name, which may
        name a patient.
    phrase: what to find unless another phrase is asked for; None where nobody said. group: pseudonym of what must not
    be cut apart (a patient), shared by its images. noted: what is wrong with the image, whatever the phrase.
    drawings: by annotator, 1 the first; empty where nobody annotated the image. `drawings.CHECK` is a mask file beside
    outlines. video: pseudonym of the sequence that the image is a frame of.
    ignored: where neither "there" nor "not there" is true, whatever the phrase; None where every pixel counts.
    prompts: {phrase: the question that the data bring for this image}. origin: of a truth that a person drew over a
    prediction, whose that was: weights_sha256, model, threshold, prompt.
    """

    id: str
    image: Path = field(repr=False)  # its name may be a person's
    phrase: str | None
    group: str
    noted: tuple[Defect, ...] = ()
    drawings: Mapping[int, Drawing | MaskFile] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    video: str = ""
    ignored: DrawnTruth | MaskFile | None = field(default=None, repr=False)
    prompts: Mapping[str | None, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    origin: Mapping[str, object] | None = None

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        facts = {"Id": self.id, "Looked for": self.phrase or "–", "Patient": self.group}
        facts |= {"Sequence": self.video} if self.video else {}
        facts["Annotated"] = "no" if self.source() is None else "yes"
        return facts | ({"Defects": ", ".join(dict.fromkeys(d.kind for d in found))} if (found := self.defects) else {})

    @property
    def prompt(self) -> str | None:
        """The question that the data bring for this image and its phrase; None where they bring none."""
        return self.prompts.get(self.phrase)

    @property
    def defects(self) -> tuple[Defect, ...]:
        """What is wrong with it, without file names."""
        found = list(self.noted)
        for annotator, drawing in self.drawings.items():
            by = "second annotator: " if annotator == 2 else ""
            own = [*drawing.defects] + ([UNKNOWN] if drawing.truth(self.phrase) is None else [])
            found += [Defect(defect.kind, by + defect.text) for defect in own]
        return tuple(found)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, in words."""
        return tuple(defect.text for defect in self.defects)

    def source(self, phrase: str | None = None, annotator: int = 1) -> DrawnTruth | MaskFile | None:
        """What a truth is made from; None where that annotator drew nothing, or nothing usable."""
        drawing = self.drawings.get(annotator)
        return None if drawing is None else drawing.truth(phrase or self.phrase)

    def truth(self, phrase: str | None = None, annotator: int = 1) -> np.ndarray | None:
        """bool (H, W) as that annotator drew the phrase (its own if not given), rasterised now; False where ignored.

        None where that annotator drew nothing. An image that was annotated and does not hold the phrase has an
        all-False truth, which is not None. Raises LabError when the image or the truth cannot be read.
        """
        source = self.source(phrase, annotator)
        return None if source is None else self.leave_out(self._rasterise(source))

    def ignore(self) -> np.ndarray | None:
        """bool (H, W), True where no count, metric or figure looks; None where nothing is ignored. Raises as `truth`
        does."""
        mask = None if self.ignored is None else self._rasterise(self.ignored)
        return mask if mask is not None and mask.any() else None

    def leave_out(self, mask: np.ndarray) -> np.ndarray:
        """A mask bool (H, W) of this image without what is ignored."""
        ignore = self.ignore()
        return mask if ignore is None else mask & ~ignore

    def _rasterise(self, source: DrawnTruth | MaskFile) -> np.ndarray:
        size = self.image_size()
        try:
            return source.rasterise(size)
        except LabError as error:
            raise LabError(f"{self.id}: {error}") from None

    def image_size(self) -> tuple[int, int]:
        """(height, width) as a person sees it, EXIF orientation applied; reads the file's header only."""
        try:
            return read_size(self.image)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            said = f"{type(error).__name__}: {error}".replace(str(self.image), "the file")
            raise LabError(f"the image of {self.id} cannot be read ({said}); replace the file") from None

    def image_sha256(self) -> str | None:
        """Hash of the image file's bytes as they are now; None when it cannot be read."""
        return files.hash_if_readable(self.image)


@dataclass(frozen=True, repr=False)
class Dataset(Shown):
    """Samples in a fixed order, and what was recognised on the way.

    format: "sa2va", "labelme", "coco", "mask folder" or "images". reason: what was recognised and chosen, without file
    names. phrase: the default, None where nothing is annotated and nobody said. objects: how many there are of each
    phrase that the annotations name, the most frequent first. splits: ids by split name, as the data folder states
    them; often empty. split_name: the part that this is. defects: what belongs to no single sample.
    rasteriser: what makes the masks, with its version. pseudonyms: what the ids stand on, in words.
    words: of the reason, what stands before and after the phrase. accounts: what became of all that was read.
    """

    root: Path
    format: str
    samples: list[Sample]
    phrase: str | None = None
    reason: str = ""
    objects: Mapping[str, int] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)
    split_name: str = "all"
    defects: tuple[Defect, ...] = ()
    rasteriser: str = ""
    pseudonyms: str = ""
    accounts: tuple[Account, ...] = ()
    words: tuple[str, str] = field(default=("", ""), repr=False)

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        patients, parts = len({sample.group for sample in self}), [f"{n} {len(ids)}" for n, ids in self.splits.items()]
        facts = {"Format": self.format, "Images": f"{len(self)} images of {patients} patients"}
        facts |= {"Looked for": self.phrase or "–", "Phrases": ", ".join(self.phrases) or "none"}
        facts["Annotated"] = str(sum(sample.source() is not None for sample in self))
        facts |= {"Split": self.split_name, "Splits": ", ".join(parts) or "none"}
        return facts | {"With defects": str(sum(bool(sample.defects) for sample in self))}

    @property
    def phrases(self) -> list[str]:
        """Every phrase that the annotations name, the most frequent first; empty where they name none."""
        return list(self.objects)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong and belongs to no single sample, in words."""
        return tuple(defect.text for defect in self.defects)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, sample_id: str) -> Sample:
        for sample in self.samples:
            if sample.id == sample_id:
                return sample
        raise LabError(f"no sample {sample_id} among the {len(self)} of this data set; see Dataset.samples for the ids")

    def about(self, phrase: str | None) -> Dataset:
        """The same samples with another default phrase; LabError for one that the annotations do not name."""
        if self.objects and phrase not in self.objects:
            known = ", ".join(f'"{word}"' for word in self.phrases[:5])
            table = f'{{"{self.phrases[0]}": "{phrase}"}}, or {{"*": "{phrase}"}} for all'
            wrong = f'no object is called "{phrase}" in {self.root}; the phrases there are {known}'
            raise LabError(f"{wrong}; choose one of them, or name them so in a labels.json such as {table}")
        samples = [replace(sample, phrase=phrase) for sample in self.samples]
        odd = sum(bool(sample.defects) for sample in samples)
        more = [f"{odd} images with problems"] * bool(odd) + [*self.problems]
        reason = self.words[0] + self._say_phrase(phrase) + self.words[1] + "".join(f", {each}" for each in more)
        return replace(self, phrase=phrase, samples=samples, reason=reason)

    def _say_phrase(self, phrase: str | None) -> str:
        total = sum(self.objects.values())
        if phrase is None or not total:
            return "no phrase" if phrase is None else f'phrase "{phrase}"'
        why = "the most frequent" if phrase == self.phrases[0] else "as asked"
        told = f'phrase "{phrase}" ({why}: {self.objects[phrase]} of {total} objects)'
        return told if re.search(r"[^\W\d_]", phrase) else f"{told}, {WORDLESS}"

    def split(self, name: str) -> Dataset:
        """The part called `name`; "all" is everything that this data set holds."""
        if name == "all":
            return self
        if name not in self.splits:
            known = ", ".join(sorted(self.splits)) or "none (there is no splits.json)"
            raise LabError(f'no split "{name}" in this data set; its splits are: {known}; choose one of them, or "all"')
        part = self.select(self.splits[name])
        if not part.samples:
            raise LabError(f'split "{name}" holds no image of this data set; correct splits.json')
        return replace(part, split_name=name)

    def choose_split(self, asked: str = "") -> tuple[str, str]:
        """The split to look at, and why: the one asked for, else "test" where there is one, else "all".

        Raises LabError for one that is not there.
        """
        if asked:
            return self.split(asked).split_name, "as asked"
        if "test" in self.splits:
            return "test", "the data set has a test split"
        return "all", "the data set has no test split"

    def select(self, ids: Iterable[str]) -> Dataset:
        """The samples with these ids, in this data set's order."""
        wanted = set(ids)
        return replace(self, samples=[sample for sample in self.samples if sample.id in wanted])

    def spread(self, count: int) -> Dataset:
        """So many samples at most, evenly spread over the ids, so that they are not all of one patient."""
        count = min(count, len(self))
        return self.select([self.samples[place * len(self) // count].id for place in range(count)])

    def truths(self) -> Iterator[tuple[Sample, np.ndarray]]:
        """Each sample that has a truth, with it; what is damaged is left out, as the audit's to report."""
        for sample in self.samples:
            try:
                truth = sample.truth()
            except LabError:
                continue
            if truth is not None:
                yield sample, truth

    @property
    def manifest_sha256(self) -> str:
        """Hash of what a model is given: ids, phrases, prompts, and the bytes of the images, read now.

        The truths are left out on purpose. A process that predicts needs this hash and must not open a truth.
        """
        rows = [[s.id, s.phrase, s.image_sha256()] + [s.prompt] * (s.prompt is not None) for s in self.samples]
        return files.hash_value(rows)

    @property
    def truth_sha256(self) -> str:
        """Hash of what the predictions are compared with: every annotator's polygons or mask bytes, and what is
        ignored, read now."""
        rows = []
        for sample in self.samples:
            sources = [(annotator, sample.source(annotator=annotator)) for annotator in sorted(sample.drawings)]
            hashes = [[annotator, source.sha256()] for annotator, source in sources if source is not None]
            left_out = [] if sample.ignored is None else [sample.ignored.sha256()]
            rows.append([sample.id, sample.phrase, hashes, *left_out])
        return files.hash_value(rows)
