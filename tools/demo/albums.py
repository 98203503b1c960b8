"""Invented patients on disk: images with truths in Sa2VA's annotations form, and in LabelMe's.

The annotations form is a list of `{"image": name, "mask": [object][polygon][x0, y0, x1, y1, ...], "text": [phrase per
object]}`; `datasets.geometry` traces the polygons.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import morphology

from sa2va_lab.datasets.geometry import EIGHT, trace_mask
from sa2va_lab.errors import LabError
from tools.demo.angiograms import PHRASES, Frame, make_patient

LABELME_NAMES = {"blood vessel": "dongmai", "catheter": "catheter"}
TOLERANCE = 0.4  # pixels that a simplified outline may leave the traced one
QUALITY = 88  # of JPEG files; PNG files know no such thing
_SECOND_STREAM = 7_000_003


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """What `trace_mask` gives, simplified, in hundredths of a pixel: what the annotations hold."""
    return [polygon.round(2).tolist() for polygon in trace_mask(mask, tolerance=TOLERANCE)]


def image_name(frame: Frame, suffix: str = ".png") -> str:
    """A file name of the shape name_hospitalnumber_video_frame that nobody can take for a real one."""
    return f"INVENTED-P{frame.patient:02d}_NOTREAL-{frame.patient:04d}_V1_F{frame.frame:02d}{suffix}"


def _annotate(name: str, masks: dict[str, np.ndarray]) -> dict:
    objects = [(phrase, to_polygons(masks[phrase])) for phrase in PHRASES if masks[phrase].any()]
    objects = [(phrase, polygons) for phrase, polygons in objects if polygons]
    return {"image": name, "mask": [polygons for _, polygons in objects], "text": [phrase for phrase, _ in objects]}


def annotate_again(frame: Frame, *, seed: int = 0) -> dict[str, np.ndarray]:
    """A second annotator's masks: the same things, outlines about a pixel off, some thin branches missed."""
    rng = np.random.default_rng(np.random.SeedSequence([_SECOND_STREAM, seed, frame.patient, frame.frame]))
    rows, columns = np.mgrid[: frame.size, : frame.size].astype(float)
    wander = [ndimage.gaussian_filter(rng.standard_normal((frame.size, frame.size)), 7) for _ in range(2)]
    rows += wander[0] / wander[0].std() * 0.7
    columns += wander[1] / wander[1].std() * 0.7
    masks = {}
    for phrase in PHRASES:
        soft = ndimage.gaussian_filter(frame.masks[phrase].astype(float), 0.8)
        drawn = ndimage.map_coordinates(soft, [rows, columns], order=1) > rng.uniform(0.36, 0.52)
        if phrase == "blood vessel":
            broad = ndimage.binary_dilation(morphology.opening(drawn, morphology.disk(2)), iterations=2)
            twigs, count = ndimage.label(drawn & ~broad, structure=EIGHT)
            missed = np.concatenate([[False], rng.random(count) < 0.3])
            drawn &= ~missed[twigs]
        masks[phrase] = morphology.remove_small_objects(drawn, max_size=11)
    return masks


def _split(patients: Sequence[int], shares: tuple[float, float, float], seed: int) -> dict[int, str]:
    order = np.random.default_rng(np.random.SeedSequence([seed, len(patients)])).permutation(len(patients))
    held = [max(round(share * len(patients)), 1 if share and len(patients) > 2 else 0) for share in shares[1:]]
    names = ["val"] * held[0] + ["test"] * held[1]
    names += ["train"] * (len(patients) - len(names))
    return {patients[place]: name for place, name in zip(order, names, strict=True)}


def write_dataset(
    folder: str | Path,
    *,
    patients: Sequence[int],
    frames: int = 6,
    seed: int = 0,
    sizes: Sequence[int] = (512, 800),
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    suffix: str = ".png",
) -> Path:
    """Write a data set of invented patients and return its folder.

    `images/*.png`; `annotations.json`; `splits.json` with the image names of "train", "val" and "test" (`shares` of the
    patients, none of them cut); `groups.json` image name -> patient; `annotations_obs2.json`, a second annotator's view
    of the test images; `annotations_train.json`, the training images alone, which is what a training is given.
    Patients take the picture `sizes` in turn. suffix: of the images; ".jpg" takes a third of the room. Raises LabError
    where there is a data set already.
    """
    folder, patients = Path(folder), list(patients)
    if not patients or len(set(patients)) < len(patients):
        raise LabError(f"Found {len(patients)} patients with repetitions or none; give at least one, each once.")
    if (folder / "annotations.json").exists():
        raise LabError(f"{folder} holds an annotations.json already; give a new folder or remove the old data set.")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    part = _split(patients, shares, seed)
    annotations, second, groups = [], [], {}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for place, patient in enumerate(patients):
        for frame in make_patient(patient, frames=frames, size=sizes[place % len(sizes)], seed=seed):
            name = image_name(frame, suffix)
            Image.fromarray(frame.image).save(folder / "images" / name, optimize=True, quality=QUALITY)
            annotations.append(_annotate(name, frame.masks))
            splits[part[patient]].append(name)
            groups[name] = f"INVENTED-P{patient:02d}"
            if part[patient] == "test":
                second.append(_annotate(name, annotate_again(frame, seed=seed)))
    for stem, content in (
        ("splits", splits),
        ("groups", groups),
        ("annotations_obs2", second),
        ("annotations_train", [entry for entry in annotations if entry["image"] in set(splits["train"])]),
        ("annotations", annotations),
    ):
        (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def write_demo(folder: str | Path, *, seed: int = 0) -> Path:
    """Write what ships with the repository (seed 0) into the new `folder`, and return it.

    `angiograms/`: twelve invented patients of six frames, every third patient at 800 pixels, the others at 512; four
    patients to train on, three to choose on, five to test on. `labelme/`: patient 10 again, as LabelMe would keep it.
    `films/`: four more patients, twelve frames each, all to test on; JPEG, without a second annotator.
    """
    folder = Path(folder)
    write_dataset(
        folder / "angiograms",
        patients=range(1, 13),
        frames=6,
        seed=seed,
        sizes=(512, 512, 800),
        shares=(1 / 3, 1 / 4, 5 / 12),
    )
    write_labelme(folder / "labelme", patient=10, seed=seed)
    write_dataset(
        folder / "films", patients=range(13, 17), frames=12, seed=seed, sizes=(512,), shares=(0, 0, 1), suffix=".jpg"
    )
    for stem in ("annotations_obs2", "annotations_train"):
        (folder / "films" / f"{stem}.json").unlink()
    return folder


def write_labelme(folder: str | Path, *, patient: int, frames: int = 6, seed: int = 0, size: int = 512) -> Path:
    """Write one patient as LabelMe would keep it: beside each PNG a JSON with its polygons; returns the folder.

    The labels are those of `LABELME_NAMES`; other things are not annotated.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for frame in make_patient(patient, frames=frames, size=size, seed=seed):
        name = image_name(frame)
        Image.fromarray(frame.image).save(folder / name, optimize=True)
        shapes = [
            {
                "label": label,
                "points": np.reshape(polygon, (-1, 2)).tolist(),
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for phrase, label in LABELME_NAMES.items()
            for polygon in to_polygons(frame.masks[phrase])
        ]
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            "imageHeight": frame.size,
            "imageWidth": frame.size,
        }
        (folder / name).with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder
