"""predict and export: from images to masks, beside each other for single images and in a Run for a data set; and a
Run's masks as files for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from sa2va_lab.commands import options as o
from sa2va_lab.datasets.export import write_content
from sa2va_lab.datasets.films import Film, open_films
from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.masks import export_run
from sa2va_lab.evaluation.thresholds import take_threshold
from sa2va_lab.files import find_film
from sa2va_lab.paths import real
from sa2va_lab.runs import check_request, predict_dataset
from sa2va_lab.runs.find import name_folder, open_named, runs_folder
from sa2va_lab.runs.images import Picture, check_images, hides_names, predict_images
from sa2va_lab.runs.shares import check_share, claim_folder, find_rank, predict_share
from sa2va_lab.views.films import save_film

PNG = "png"  # the folder in a Run for its masks as files


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...|FILM...|DATASET", help="Image files, films with --out, or one data set."),
    ],
    model: o.Model,
    prompt: Annotated[
        str | None, typer.Option(help="A phrase or a full question; a data set's own phrase if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Images, films: folder for <stem>.npz, <stem>_overlay.png, predictions.jsonl.")
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Data set: ask each sequence once, and follow what the answer names.")
    ] = False,
    sample: Annotated[
        Literal["spread"] | None, typer.Option(help="Films: ask about frames spread over the film, not the first.")
    ] = None,
    split: Annotated[str, typer.Option(help="Data set: which split; test if there is one.")] = "",
    run: Annotated[str | None, typer.Option(help="Data set: the Run's name; the same name resumes it.")] = None,
    phrase: Annotated[str | None, typer.Option(help="Data set: what to find, if it names several things.")] = None,
    groups: Annotated[str | None, typer.Option(help="Data set: regular expression for the patient.")] = None,
    limit: Annotated[int | None, typer.Option(help="Data set: so many images at most.")] = None,
    batch: Annotated[str, typer.Option(help="Data set: so many images at once.")] = "auto",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Data set: failures once more.")] = False,
    outputs: Annotated[Path | None, typer.Option(help="Data set: where runs/ lies; outputs/ of the clone.")] = None,
    png: Annotated[bool, typer.Option("--png", help="Also each mask at 0.5 as a PNG of 0 and 255.")] = False,
    answer: Annotated[str | None, typer.Option(help='Take this answer ("Sure, [SEG].") instead of asking.')] = None,
    sam2: o.Sam2 = None,
    finetune: o.FineTuned = None,
    config: o.TrainingConfig = None,
    lora_alpha: o.LoraAlpha = None,
    precision: o.Precision = "auto",
    device: o.Device = "auto",
    gpus: o.Gpus = None,
    spread: o.Spread = False,
    compile: o.Compile = False,
    as_json: o.AsJson = False,
) -> None:
    """Segment images or films (masks as logits, overlays to look at, a line an image), or a data set into a Run.

    A film is a GIF, TIFF or video of several pictures, a DICOM, or with --out a folder of frames.
    """
    tuning = {"sam2": sam2, "finetune": finetune, "config": config, "lora_alpha": lora_alpha}
    loading = {"path": model, **tuning, "precision": precision, "device": device, "gpus": gpus, "spread": spread}
    loading |= {"compile": compile}
    if len(images) == 1 and out is None and (images[0].is_dir() or images[0].suffix == ".json"):
        if answer is not None:
            raise LabError("--answer is for single images and films; a data set goes into a Run: use --run NAME.")
        if sample and not track:
            raise LabError("--sample is for films: give --track as well, and the sequences are tracked.")
        of_run = {"prompt": prompt, "split": split, "limit": limit, "track": {"sample": sample} if track else False}
        of_run["batch"] = int(batch) if batch.isdecimal() else batch
        dataset = open_dataset(images[0], phrase=phrase, groups=groups, truths=False)
        name = run or real(images[0]).stem
        how = {"retry_failed": retry_failed, "png": png, "as_json": as_json}
        _predict_data(dataset, name, run is None, outputs, loading, of_run, **how)
        return
    if prompt is None or out is None:
        raise LabError("films and images need --prompt and --out (a folder); a data set needs neither: use --run NAME.")
    of_data = {"split": split, "run": run, "phrase": phrase, "groups": groups, "limit": limit, "outputs": outputs}
    of_data |= {"batch": batch != "auto", "retry-failed": retry_failed, "track": track}
    if misplaced := [name for name, value in of_data.items() if value]:
        raise LabError(f"--{misplaced[0]} is for a data set, and --out makes no Run: leave one of the two out.")
    films = [path for path in images if path.is_dir() or find_film(path)]
    if films and len(films) < len(images) or sample and not films:
        raise LabError(f"{len(films)} films were given, and {len(images) - len(films)} images: give one or the other.")
    how = {} if answer is None else {"answer": answer}
    how |= {"sample": sample} if films else {}
    _predict_images(images, prompt, out, how, loading, films=bool(films), png=png, as_json=as_json)


def _predict_data(
    dataset, name: str, new: bool, outputs: Path | None, loading: dict, of_run: dict, *, retry_failed: bool, png: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """A Run of a data set; all that needs no model is refused before one is loaded."""
    of_run["split"], reason = dataset.choose_split(of_run["split"])
    rank, runs = find_rank(), runs_folder(outputs)
    if rank is not None and new:
        raise LabError(f"{rank.count} processes were started: give the Run a name (--run), by which they find it.")
    folder = name_folder(runs, name, new=new)
    part = dataset.split(of_run["split"])
    if of_run["track"] and len({sample.video for sample in part}) == len(part):
        raise LabError("no sequence of this data set has more than one frame: leave out --track.")
    check = check_request if rank is None else check_share
    check(dataset, folder=folder, **of_run)
    if png and (folder / PNG).exists():
        raise LabError(f"{folder / PNG} exists: masks are never overwritten; move it away, or leave out --png.")
    if not as_json:
        print(f"{dataset.reason}; {of_run['split']}: {reason}", file=sys.stderr)
    if rank is not None:
        folder, loading["device"] = claim_folder(runs, name), rank.choose_device(loading["device"])
    segmenter = _load(loading, as_json)
    how = of_run | {"folder": folder, "retry_failed": retry_failed, "progress": not as_json}
    if rank is None:
        made = predict_dataset(segmenter, dataset, **how)
    else:
        made = predict_share(segmenter, dataset, rank=rank, **how)
    if made is None:
        print(f"process {rank.number + 1} of {rank.count} is done; the last one puts {folder} together")
        return
    if png:
        export_run(made, made.folder / PNG, form="png", choice=take_threshold("0.5"))
    told = {"run": str(made.folder), "images": len(made.records), "failed": len(made.failed_ids)}
    o.tell(told, [f"{told['images']} images, {told['failed']} failed: {made.folder}"], as_json=as_json)


def _predict_images(
    paths: list[Path], prompt: str, out: Path, how: dict, loading: dict, *, films: bool, png: bool, as_json: bool
) -> None:
    from sa2va_lab.views.overlays import save_overlay  # torch and matplotlib come with it

    def save(path: Path, image: Path | str, mask) -> None:
        save_overlay(path, image, mask)
        if png:
            write_content(path.with_name(f"{path.name.removesuffix('_overlay.png')}_mask.png"), mask)

    hidden = hides_names(out)  # its files are then called by the ids that the images have in a data set
    if films:
        groups = open_films(paths, hidden=hidden)
        check_images([place for film in groups for place in film.places()], prompt, out)
    else:
        groups = [open_dataset(paths).samples if hidden else [Picture(image.stem, image) for image in paths]]
        check_images(groups[0], prompt, out)
    failed, segmenter = 0, _load(loading, as_json)
    for group in groups:
        lines = predict_images(segmenter, group, prompt, folder=out, save_overlay=save, film=films, **how)
        failed += sum(_say_line(line, as_json) for line in lines)
        if films:
            _end_film(group, out, as_json)
    total, things = sum(map(len, groups)), "frames" if films else "images"
    if failed:
        raise LabError(f"{failed} of {total} {things} were not predicted; {out}/predictions.jsonl says why.")
    if not as_json:
        print(f"{total} predictions in {out}")


def _say_line(line: dict, as_json: bool) -> bool:
    """Prints what became of an image; whether it failed."""
    name = f"{line['image']}, frame {line['frame']}" if "frame" in line else line["image"]
    if as_json:
        o.print_json(line)
    elif line["error"] is None:
        print(f"{name}: {line['answer']}  ({sum(line['seconds'].values()):.2f} s)", flush=True)
    else:
        print(f"{name}: {line['error']}", file=sys.stderr, flush=True)
    return line["error"] is not None


def _end_film(film: Film, out: Path, as_json: bool) -> None:
    """The overlays as a film, and what the film is and lacks."""
    drawn = [path for place in film.places() if (path := out / f"{place.id}_overlay.png").is_file()]
    path, why = save_film(out / f"{film.name}_overlay", drawn, rate=film.rate) if drawn else (None, "")
    if as_json:
        told = {"film": film.shown, "overlay": path, "why": why, "reason": film.reason}
        o.print_json(told | {"defects": [defect.text for defect in film.defects]})
        return
    print(f"{film.shown}: {film.reason}" + (f"; {path.name}: {why}" if path else ""))
    for defect in [each for each in film.defects if each.kind != "unreadable_image"]:  # those are said in their lines
        print(f"{film.shown}: {defect.text}", file=sys.stderr)


def export(
    run: Annotated[str, typer.Argument(help="A Run: folder or name.")],
    out: o.Out,
    to: Annotated[str, typer.Option(help="png, coco, labelme, yolo or sa2va.")] = "png",
    threshold: Annotated[str, typer.Option(help="A number, or a threshold.json.")] = "0.5",
    keep_objects: Annotated[bool, typer.Option("--keep-objects", help="Each [SEG] is its own object.")] = False,
    data: Annotated[Path | None, typer.Option(help="The data set that was predicted: copies its images, too.")] = None,
    with_names: Annotated[
        bool, typer.Option("--with-names", help="Files are called as the images of DATA are: they may name patients.")
    ] = False,
    groups: o.Groups = None,
    outputs: o.Outputs = None,
    as_json: o.AsJson = False,
) -> None:
    """Write a Run's masks for other programs, with their weights, threshold and prompt in provenance.json."""
    made, choice = open_named(run, runs_folder(outputs)), take_threshold(threshold)
    dataset = None if data is None else open_dataset(data, phrase=made.phrase, groups=groups)
    how = {"form": to, "choice": choice, "dataset": dataset, "keep_objects": keep_objects, "with_names": with_names}
    written = export_run(made, out, **how)
    told = {"images": written.images, "failed": len(made.failed_ids), "threshold": choice.value, "out": str(out)}
    told |= {"reason": choice.reason, "loss": written.loss}
    said = "{images} images at threshold {threshold:g} ({reason}), {failed} failed and left out: {out}".format(**told)
    lines = [made.meta["stamp"], said, written.loss or "every pixel is as it was predicted"]
    o.tell(told, filter(None, lines), as_json=as_json)


def _load(loading: dict, as_json: bool):
    """The model, after what runs, where and why was said; a notice that belongs to the model first."""
    from sa2va_lab.loading.load import load  # torch comes with it

    segmenter = load(**loading, progress=not as_json)
    said = segmenter.provenance
    if not as_json:
        print(said["stamp"] + "\n" if said["stamp"] else "", end="")
        why = f"{said['precision']['reason']}; {said['device']['reason']}"
        print(f"{said['model']}: {said['parameters']:,} parameters; {why}", flush=True)
        if note := (said["finetune"] or {}).get("note"):
            print(note, flush=True)
    return segmenter
