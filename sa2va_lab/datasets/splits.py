"""Parts of a data set for training, choosing and testing, which never cut a patient in two and share no picture.

Images are nearly the same by the correlation of their thumbnails' details.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from sa2va_lab.datasets.folders import Folder, as_table
from sa2va_lab.datasets.naming import read_place
from sa2va_lab.datasets.pictures import look
from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.errors import LabError
from sa2va_lab.files import hash_splits, write_json

ABOUT = "about"  # the key of splits.json that says how the splits were made
DRAWS = 2000
SHOWN_PAIRS = 5
SIDE = 48  # of the thumbnail
FINE, COARSE = 0.8, 3.0  # pixels of the thumbnail: noise finer and shading coarser than this say nothing
RIM = 2
# Copies that were resized, recompressed or shifted by 3 pixels have 0.98 and more; different retinas, which resemble
# each other far more than angiograms, 0.85 at most.
LEAST_LIKENESS = 0.93
CHUNK = 512  # images that are compared at once: all of 20,000 would take two gigabytes


def read_splits(
    folder: Folder, samples: Mapping[str, Sample], said: Mapping[str, Iterable[str]]
) -> dict[str, list[str]]:
    """Ids by split name from the folder's splits.json; without it from the annotations files, which `said` them by
    image name, or from folders such as train/ and val/. `samples` by image name.

    Raises LabError for a table that is none, a name that is not in the folder, and a group that is in two splits.
    """
    table = folder.table("splits.json")
    if table is None:
        by_folder: dict[str, list[str]] = {}
        for image in samples:
            by_folder.setdefault(read_place(image).split, []).append(image)
        table = said or {name: images for name, images in by_folder.items() if name}
        if not table:
            return {}
    stated = {name: images for name, images in as_table(table).items() if name != ABOUT}
    right = stated and all(isinstance(images, list) for images in stated.values()) and "all" not in stated
    folder.expect("splits.json", right, 'splits such as {"train": ["a.png", ...], "test": [...]} ("all" is taken)')
    splits = {}
    for split, images in stated.items():
        chosen = set()
        for number, name in enumerate(images, 1):
            place = f'entry {number} of split "{split}"'
            chosen.add(image := folder.image(name, place))
            if image not in samples:
                raise LabError(f"{place} names an image that is not in the data folder; correct splits.json")
        splits[split] = [sample.id for image, sample in samples.items() if image in chosen]
    _refuse_cuts(splits, {sample.id: sample.group for sample in samples.values()})
    return splits


def _refuse_cuts(splits: Mapping[str, Iterable[str]], group_of: Mapping[str, str]) -> None:
    """LabError, with the pairs, where a group (or an image) is in more than one split."""
    seen: dict[str, dict[str, str]] = {}
    for split, ids in splits.items():
        for sample_id in ids:
            seen.setdefault(group_of[sample_id], {}).setdefault(split, sample_id)
    cut = {group: parts for group, parts in seen.items() if len(parts) > 1}
    if cut:
        told = "; ".join(
            f"group {group}: " + " and ".join(f'{sample_id} in "{split}"' for split, sample_id in parts.items())
            for group, parts in list(cut.items())[:SHOWN_PAIRS]
        )
        raise LabError(
            f"{len(cut)} groups are in the splits of others ({told}); expected each group (and each image) in one "
            "split only, or a test would be on what was trained; write a splits.json that keeps them together"
        )


def refuse_near_duplicates(first: Dataset, second: Dataset) -> None:
    """LabError, with the pairs, where two data sets (or two parts of one) share nearly identical frames.

    Decodes every image of both.
    """
    if pairs := find_near_duplicates(fingerprint_dataset(first), fingerprint_dataset(second)):
        raise LabError(
            f"{len(pairs)} pairs of nearly identical frames lie on both sides ({_tell(pairs)}); expected none, or a "
            "test would be on what was trained; put their patients on one side"
        )


def draw_splits(dataset: Dataset, *, shares: Mapping[str, float], seed: int = 0) -> tuple[dict[str, list[str]], str]:
    """Splits of whole groups, stratified by vessel share, with the reason: ({name: ids}, in words).

    shares: of the images, by split name; they add up to 1 (`fold_shares` for cross-validation). Of many draws the one
    is taken whose splits come nearest to the shares and whose mean share of vessel pixels differ least. Groups that
    share nearly identical frames stay on one side. Decodes every image and truth. The same seed gives the same.
    """
    if len(shares) < 2 or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise LabError(f"the shares are {shares}; expected two or more positive shares that add up to 1")
    if {"all", ABOUT} & set(shares):
        raise LabError(f'the splits are called {", ".join(shares)}; "all" and "{ABOUT}" are taken, choose other names')
    pairs = find_near_duplicates(fingerprint_dataset(dataset))
    unit_of = _join_groups(dataset, pairs)
    units, unit = np.unique([unit_of[sample.group] for sample in dataset], return_inverse=True)
    if len(units) < len(shares):
        raise LabError(
            f"{len(units)} groups cannot make {len(shares)} splits; expected a group for each at least, where groups "
            "with nearly identical frames count as one"
        )
    vessel = {sample.id: truth.mean() for sample, truth in dataset.truths()}  # nothing of a damaged image is known
    vessels = np.array([vessel.get(sample.id, np.nan) for sample in dataset])
    places, wanted = _draw(unit, vessels, np.array(list(shares.values())), seed)
    splits = {
        name: [sample.id for sample, number in zip(dataset, unit, strict=True) if places[number] == place]
        for place, name in enumerate(shares)
    }
    sizes_said = ", ".join(f"{name} {len(ids)}" for name, ids in splits.items())
    said = f"{len(unit_of)} groups, none cut: {sizes_said} images; seed {seed}, best of {DRAWS} draws ({wanted})"
    if pairs:
        said += f"; {len(pairs)} pairs of nearly identical frames of different groups kept on one side: {_tell(pairs)}"
    return splits, said


def fold_shares(count: int) -> dict[str, float]:
    """Shares of `count` splits for cross-validation, "fold1" and so on: each is held out once, the others train."""
    if count < 2:
        raise LabError(f"{count} folds were asked for; expected 2 or more")
    return {f"fold{number}": 1 / count for number in range(1, count + 1)}


def write_splits(dataset: Dataset, splits: Mapping[str, list[str]], *, seed: int, reason: str) -> Path:
    """Writes splits.json into the data folder (image names, as other tools read them), with its seed and hash.

    Raises LabError where there is one already.
    """
    path = dataset.root / "splits.json"
    if path.exists():
        raise LabError(f"{path} exists already; move it away first, so that no split is lost")
    content = {name: [image_name(dataset, sample_id) for sample_id in ids] for name, ids in splits.items()}
    content[ABOUT] = {"seed": seed, "sha256": hash_splits(splits), "how": reason}
    return write_json(path, content)


def image_name(dataset: Dataset, sample_id: str) -> str:
    """The image of a sample as tables beside the data name it. It may hold a person's name: for these tables only."""
    image = dataset[sample_id].image
    base = dataset.root / "images" if (dataset.root / "images").is_dir() else dataset.root
    return image.relative_to(base).as_posix() if image.is_relative_to(base) else image.name


def _tell(pairs: list[Pair]) -> str:
    return "; ".join(f"{pair.first} and {pair.second} ({pair.likeness:.2f})" for pair in pairs[:SHOWN_PAIRS])


def _join_groups(dataset: Dataset, pairs: list[Pair]) -> dict[str, str]:
    """One of its groups for every group, the same for groups that a pair of near duplicates joins."""
    group_of = {sample.id: sample.group for sample in dataset}
    joined = {group: group for group in group_of.values()}
    for pair in pairs:
        both = {joined[group_of[name]] for name in (pair.first, pair.second)}
        joined = {group: min(both) if one in both else one for group, one in joined.items()}
    return joined


def _draw(unit: np.ndarray, vessels: np.ndarray, shares: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """The split number of every unit: of many orders, cut where the shares say, the most even one.

    unit, vessels: of each image its unit's number, and its share of vessel pixels (NaN where nobody knows).
    """
    random, known = np.random.default_rng(seed), np.isfinite(vessels)
    sizes = np.bincount(unit)
    total, told = (np.bincount(unit[known], each[known], len(sizes)) for each in (vessels, known))
    weights, filled = np.where(told > 0, sizes, 0), total / np.maximum(told, 1)
    mean = (weights * filled).sum() / max(weights.sum(), 1)
    edges = np.cumsum(shares)[:-1] * sizes.sum()
    best, least = None, np.inf
    for _ in range(DRAWS):
        order = random.permutation(len(sizes))
        middle = np.cumsum(sizes[order]) - sizes[order] / 2
        places = np.empty(len(sizes), int)
        places[order] = np.searchsorted(edges, middle)
        images = np.bincount(places, sizes, minlength=len(shares))
        if (np.bincount(places, minlength=len(shares)) == 0).any():
            continue
        counted = np.bincount(places, weights, minlength=len(shares))
        means = np.bincount(places, weights * filled, minlength=len(shares)) / np.maximum(counted, 1)
        uneven = np.abs(images / sizes.sum() - shares).sum()
        unlike = np.abs(means - mean)[counted > 0].mean() / mean if mean > 0 else 0.0
        if uneven + unlike < least:
            least, best = uneven + unlike, (places, uneven, unlike)
    if best is None:
        raise LabError(f"no draw of {len(sizes)} groups fills {len(shares)} splits; ask for fewer or more even splits")
    places, uneven, unlike = best
    return places, f"sizes off by {uneven / 2:.1%} of the images, vessel share by {unlike:.1%} on average"


@dataclass(frozen=True)
class Fingerprint:
    """id and group of a sample; thumbnail: its details, float32 (n,) of unit length."""

    id: str
    group: str
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Two samples that look alike; likeness: correlation of their thumbnails, at most 1."""

    first: str
    second: str
    likeness: float


def fingerprint(grey: np.ndarray, *, id: str, group: str) -> Fingerprint:
    """The fingerprint of a picture, (H, W) of any number type."""
    picture = Image.fromarray(np.asarray(grey, np.float32))
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    details = gaussian_filter(small, FINE) - gaussian_filter(small, COARSE)
    details = details[RIM:-RIM, RIM:-RIM]
    details = (details - details.mean()).ravel()
    length = np.linalg.norm(details)
    return Fingerprint(id, group, (details / length if length > 1e-6 else 0 * details).astype(np.float32))


def fingerprint_dataset(dataset: Dataset) -> list[Fingerprint]:
    """Fingerprints of all images that can be read; the audit reports the others."""
    seen = ((sample, look(sample.image)[0]) for sample in dataset)
    return [fingerprint(grey, id=sample.id, group=sample.group) for sample, grey in seen if grey is not None]


def find_near_duplicates(first: list[Fingerprint], second: list[Fingerprint] | None = None) -> list[Pair]:
    """Pairs that look alike, the most alike first: between two lists, or between the groups of one."""
    others = first if second is None else second
    if not first or not others:
        return []
    there = np.stack([found.thumbnail for found in others])
    pairs = []
    for start in range(0, len(first), CHUNK):
        likeness = np.stack([found.thumbnail for found in first[start : start + CHUNK]]) @ there.T
        for row, column in np.argwhere(likeness >= LEAST_LIKENESS):
            one, other = first[start + row], others[column]
            if second is not None or (start + row < column and one.group != other.group):
                pairs.append(Pair(one.id, other.id, float(likeness[row, column])))
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))
