"""Nothing is silently empty: what became of every annotation, file and image that a reader met.

Each is read, left out on request, or wrong; a sum that does not close is a defect of its own. Where more than half of
them fit nothing, it is not they that are wrong but how they were read, and that is an error that shows one of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from difflib import SequenceMatcher

from sa2va_lab.datasets.defects import Account, Defect
from sa2va_lab.datasets.drawings import CHECK, Found, MaskFile
from sa2va_lab.datasets.folders import Folder
from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError

INVERTED = 0.5  # share of foreground above which a mask may be meant the other way round
LOOKED_AT = 12  # truths that an opening looks at, at least


def settle(folder: Folder, found: Found) -> tuple[list[Account], list[Defect]]:
    """The accounts of all that was read, and what is wrong with them.

    Raises LabError where more than half of the things of a file, or of the images that were annotated, fit nothing.
    """
    defects = []
    for stray in found.strays:
        if 2 * stray.count > stray.total:
            wrong = stray.wrong.format(n=f"{stray.count} of {stray.total}")
            raise LabError(f"{wrong}: {stray.pair}; correct one of the two")
        if not stray.noted:
            defects.append(Defect("orphan_file", stray.wrong.format(n=stray.count)))
    first = found.drawings.get(1, {})
    missing = [image for image in first if image not in folder.listed and not folder.path(image).exists()]
    if 2 * len(missing) > len(first):
        raise LabError(
            f"{len(missing)} of the {len(first)} images that are annotated are not there: "
            f"{pair_up(missing, folder.listed)}; copy them into the data folder, or correct their names"
        )
    accounts = []
    for things, met in found.met.items():
        every = [d for each in (1, 2, CHECK) for d in found.drawings.get(each, {}).values()]
        every += [ignored for ignored in found.ignored.values() if isinstance(ignored, MaskFile)]
        drawn = [drawing for drawing in every if things in drawing.counts]
        read, lost = (sum(drawing.counts[things][place] for drawing in drawn) for place in (0, 1))
        lost += sum(stray.count for stray in found.strays if stray.things == things and not stray.noted)
        accounts.append(Account(things, met, read, lost))
        if not accounts[-1].closed:
            defects.append(Defect("unaccounted", f"of {met} {things} {read} were read and {lost} not"))
    images = {*folder.listed, *first}
    whole = len(first) - len(missing)
    accounts.append(Account("images", len(images), whole, len(images) - whole))
    return accounts, defects


def pair_up(lost: Collection[str], there: Collection[str]) -> str:
    """One of the lost names beside the likest of those that are there, what both share left out: it may be a person's
    name."""
    if not there or not lost:
        return "there are none at all"
    stems = [os.path.splitext(os.path.basename(name))[0] for name in lost]
    own, ending = stems[0], os.path.splitext(next(iter(lost)))[1]
    others = [os.path.splitext(os.path.basename(name)) for name in sorted(there)[:500]]
    other, its = max(others, key=lambda each: SequenceMatcher(None, own, each[0]).ratio())
    same = SequenceMatcher(None, own, other).find_longest_match()
    rest = own[same.a + same.size :]
    rest = rest if len(stems) > 1 and all(stem.endswith(rest) for stem in stems) else shape(rest)  # of all: no name
    dots = "..." * (same.size > 0)
    own = f"{shape(own[: same.a])}{dots}{rest}"
    other = f"{shape(other[: same.b])}{dots}{shape(other[same.b + same.size :])}"
    return f'one is called like "{own}{ending}", and what is there like "{other}{its}"'


def shape(text: str) -> str:
    """A text without what it says, which may be a person's name: a letter is x and beside letters a digit 9."""
    if not re.search(r"[^\W\d_]", text):
        return text
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text))


def look_at_truths(dataset: Dataset) -> list[Defect]:
    """What is odd about all truths alike; reads a few, and only where these are empty the others.

    Raises LabError where the phrase has no pixel in any truth, or most of the masks that were looked at are none.
    Where an image cannot be read nobody knows.
    """
    drawn = [sample for sample in dataset if sample.source() is not None]
    step = max(len(drawn) // LOOKED_AT, 1)
    order = drawn[::step] + [sample for place, sample in enumerate(drawn) if place % step]
    shares, unknown, refused = [], 0, []
    for place, sample in enumerate(order, 1):
        if place > LOOKED_AT and (any(shares) or refused):
            break
        try:
            size = sample.image_size()
        except LabError:
            unknown += 1
            continue
        source = sample.source()
        mask, defect = source.read(size) if isinstance(source, MaskFile) else (source.rasterise(size), None)
        if mask is not None:  # perhaps of the named values only: the audit says which are not
            shares.append(mask.mean())
        else:
            refused.append(f"{sample.id}: {defect.text}")
    looked = len(shares) + len(refused)
    if 2 * len(refused) > looked:
        raise LabError(f"{len(refused)} of {looked} masks that were looked at cannot be used: {refused[0]}")
    if drawn and not any(shares) and not unknown and not refused:
        raise LabError(
            f'"{dataset.phrase}" has not one pixel in any of the {len(drawn)} images that are annotated; '
            "expected some: choose another phrase, or look at what the annotations are made of"
        )
    wide = sum(share > INVERTED for share in shares)
    text = f"{wide} of {len(shares)} ground truths that were looked at cover more than half of the image"
    return [Defect("inverted_suspected", text)] if 2 * wide > len(shares) else []
