"""Nothing is silently empty: what became of every annotation, file and image that a reader met.

Each is read, left out on request, or wrong; a sum that does not close is a defect of its own. Where more than half of
them fit nothing, it is not they that are wrong but how they were read, and that is an error that shows one of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

from sa2va_lab.datasets.defects import Account, Defect
from sa2va_lab.datasets.drawings import Found, MaskFile
from sa2va_lab.datasets.folders import Folder
from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError

INVERTED = 0.5  # share of foreground above which a mask may be meant the other way round
LOOKED_AT = 12  # truths that an opening looks at, at least


def settle(folder: Folder, found: Found) -> tuple[list[Account], list[Defect]]:
    """The accounts of all that was read, and what is wrong with them.

    Raises LabError where more than half of the images that were annotated are not there.
    """
    first = found.drawings.get(1, {})
    missing = [image for image in first if image not in folder.listed and not folder.path(image).exists()]
    if 2 * len(missing) > len(first):
        raise LabError(
            f"{len(missing)} of the {len(first)} images that are annotated are not there: "
            f"{pair_up(missing, folder.listed)}; copy them into the data folder, or correct their names"
        )
    every = [drawing for by_image in found.drawings.values() for drawing in by_image.values()]
    read, lost = Counter(), Counter(found.lost)
    for drawing in every + [ignored for ignored in found.ignored.values() if isinstance(ignored, MaskFile)]:
        things, used, useless = drawing.counts
        read[things], lost[things] = read[things] + used, lost[things] + useless
    accounts = [Account(things, met, read[things], lost[things]) for things, met in found.met.items()]
    odd = [Defect("unaccounted", f"of {a.met} {a.things} {a.read} were read and {a.lost} not") for a in accounts]
    odd = [defect for defect, account in zip(odd, accounts, strict=True) if not account.closed]
    images, whole = len({*folder.listed, *first}), len(first) - len(missing)
    return [*accounts, Account("images", images, whole, images - whole)], odd


def pair_up(lost: Collection[str], there: Collection[str]) -> str:
    """One of the lost names beside the likest of those that are there, what both share left out: it may be a person's
    name."""
    if not there or not lost:
        return "there are none at all"
    stems = [Path(name).stem for name in lost]
    there = {Path(name).stem: Path(name).suffix for name in sorted(there)[:500]}
    own, [other] = stems[0], get_close_matches(stems[0], there, 1, 0)
    same = SequenceMatcher(None, own, other).find_longest_match()
    rest = own[same.a + same.size :]
    rest = rest if len(stems) > 1 and all(stem.endswith(rest) for stem in stems) else shape(rest)  # of all: no name
    dots, ending = "..." * (same.size > 0), Path(next(iter(lost))).suffix
    own = f"{shape(own[: same.a])}{dots}{rest}"
    said = f"{shape(other[: same.b])}{dots}{shape(other[same.b + same.size :])}"
    return f'one is called like "{own}{ending}", and what is there like "{said}{there[other]}"'


def shape(text: str) -> str:
    """A text without what it says, which may be a person's name: a letter is x and beside letters a digit 9."""
    named = re.search(r"[^\W\d_]", text)
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text)) if named else text


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
