"""A Run's masks as files that other programs read, with where they come from beside them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sa2va_lab.datasets.export import Export, copy_image, export_masks
from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.datasets.splits import image_name
from sa2va_lab.datasets.writers import CopiedThing, Copy
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import match_samples
from sa2va_lab.evaluation.thresholds import Choice
from sa2va_lab.runs.read import Run


def export_run(
    run: Run,
    out: str | Path,
    *,
    form: str,
    choice: Choice,
    dataset: Dataset | None = None,
    keep_objects: bool = False,
    with_names: bool = False,
) -> Export:
    """Writes the masks of a Run into a new folder, in a form of `writers.WRITERS`, and provenance.json.

    choice: the threshold. dataset: what was predicted; its images are copied beside the masks as plain pixels.
    keep_objects: each [SEG] its own object, else all together. with_names: files are called as the images are, which
    may name a patient; the images are then not copied. Images that failed are left out, and counted. Raises LabError as
    `export_masks` does, where the data set is another one, and where two images would have one name.
    """
    done = [record for record in run.records if record["error"] is None]
    samples = {} if dataset is None else {sample.id: sample for sample, _ in match_samples(run, dataset)}
    if with_names and dataset is None:
        raise LabError("a Run knows no file names; give the data set that it was made on as well")
    names = {record["id"]: image_name(dataset, record["id"]) for record in done} if with_names else {}
    stems = {sample_id: str(Path(name).with_suffix("")) for sample_id, name in names.items()}
    if len(set(stems.values())) < len(stems):
        raise LabError("two images have names that differ in their endings only; leave out the names")
    segmenter, phrase = run.meta["segmenter"], run.phrase or run.meta["prompt"]
    made_by = {"weights_sha256": run.maker.weights, "model": segmenter.get("model", ""), "threshold": choice.value}

    def draw(folder: Path) -> Iterator[Copy]:
        for record in done:
            name, prediction = record["id"], run.prediction(record["id"])
            merges = range(prediction.n_seg) if keep_objects else ("union",)
            masks = (prediction.mask(choice.value, merge) for merge in merges)
            things = [CopiedThing(phrase, mask=mask) for mask in masks if mask.any()]
            if samples and not names:
                (folder / "images").mkdir(exist_ok=True)
                copy_image(samples[name], folder / "images" / f"{name}.png")
            origin = made_by | {"prompt": record.get("prompt") or run.meta["prompt"]}
            yield Copy(stems.get(name, name), prediction.size, {1: things}, origin, keep_objects, names.get(name, ""))

    about = made_by | {"from": "prediction", "phrase": phrase, "prompt": run.maker.prompt, "run": run.folder.name}
    about |= {"finetune": (segmenter.get("finetune") or {}).get("file"), "precision": run.maker.precision}
    about |= {"threshold_reason": choice.reason, "split": run.split, "code": run.maker.code, "stamp": run.meta["stamp"]}
    about |= {"objects": "each [SEG] its own" if keep_objects else "all [SEG] together", "failed": len(run.failed_ids)}
    about |= {"created": datetime.now(UTC).isoformat(timespec="seconds")}
    return export_masks(draw, out, format=form, about=about, root=dataset and dataset.root)
