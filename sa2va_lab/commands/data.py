"""audit, convert and split: images and their annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands import options as o
from sa2va_lab.datasets import audit as examination
from sa2va_lab.datasets.ceilings import rasteriser_ceilings, resolution_ceilings
from sa2va_lab.datasets.export import export_dataset
from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.datasets.splits import draw_splits, fold_shares, refuse_near_duplicates, write_splits


def audit(
    data: o.Data,
    fix: Annotated[Path | None, typer.Option(help="Write a repaired copy into this new folder.")] = None,
    phrase: Annotated[str | None, typer.Option(help="What to look for; the most frequent phrase if not given.")] = None,
    groups: o.Groups = None,
    names: Annotated[bool, typer.Option("--names", help="Say which file each id is: for your eyes only.")] = False,
    write_sizes: Annotated[
        bool, typer.Option("--write-sizes", help="Believe the suspected sizes: write sizes.json beside the data.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="A training set: nearly identical frames in both are an error.")
    ] = None,
    ceilings: Annotated[
        bool,
        typer.Option(
            "--ceilings", help="Draw 24 truths again by other rasterisers, and on Sa2VA's own 256 x 256 grid."
        ),
    ] = False,
    as_json: o.AsJson = False,
) -> None:
    """Examine images and annotations: every defect by kind, and what training makes of it."""
    dataset = open_dataset(data, phrase=phrase, groups=groups)
    other = None if against is None else open_dataset(against)
    found = examination.audit_dataset(dataset, progress=not as_json)
    if write_sizes:
        examination.write_sizes(found)
        dataset = open_dataset(data, phrase=phrase, groups=groups)
        found = examination.audit_dataset(dataset, progress=not as_json)
    changes = [] if fix is None else export_dataset(dataset, fix).changes
    if other is not None:
        refuse_near_duplicates(dataset, other)
    some = dataset.spread(24)
    drawn = [*rasteriser_ceilings(some), *resolution_ceilings(some)] if ceilings else []
    if as_json:
        said = found.to_dict() | {"changes": len(changes)}
        said |= {"files": {sample.id: sample.image for sample in dataset}} if names else {}
        said |= {"ceilings": [ceiling.to_dict() for ceiling in drawn]} if ceilings else {}
        o.print_json(said)
        return
    from sa2va_lab.views.audits import ceiling_table, overview_table  # matplotlib comes with it

    print("\n".join([str(overview_table(found)), f"ids: {dataset.pseudonyms}", *found.to_lines()]))
    print("".join(f"{s.id} is {s.image.name}\n" for s in dataset if names and s.id in found.defects), end="")
    if fix is not None:
        print(f"{len(changes)} changes in the copy {fix}; changes.json there lists them")
    if ceilings:
        print(f"\nDice that a perfect model would have, by vessel width:\n{ceiling_table(drawn)}")


def convert(
    data: o.Data,
    out: o.Out,
    to: Annotated[str, typer.Option(help="sa2va (as Sa2VA trains on), coco, labelme, yolo or png.")] = "sa2va",
    phrase: Annotated[str | None, typer.Option(help="Only what is called so; everything if not given.")] = None,
    groups: o.Groups = None,
) -> None:
    """Write a data set of any format anew, with pseudonyms for file names and nothing but pixels in the images."""
    dataset = open_dataset(data, phrase=phrase, groups=groups)
    made = export_dataset(dataset, out, format=to, phrase=phrase)
    print(f"{dataset.reason}\n{len(made.changes)} changes on the way to {out}; changes.json there lists them")
    print(made.loss or "masks and outlines are as they were")


def split(
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="A data folder without a splits.json.")],
    train: Annotated[float, typer.Option(help="Share of the images.")] = 0.6,
    val: o.Share = 0.2,
    test: o.Share = 0.2,
    folds: Annotated[int, typer.Option(help="Instead, so many equal parts for cross-validation: fold1, ...")] = 0,
    seed: Annotated[int, typer.Option(help="Another seed gives another split.")] = 0,
    groups: o.Groups = None,
) -> None:
    """Split by patient, stratified by vessel share; writes splits.json beside the data, with its seed and hash.

    Patients that share nearly identical frames stay on one side.
    """
    dataset = open_dataset(data, groups=groups)
    shares = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    splits, reason = draw_splits(dataset, shares=fold_shares(folds) if folds else shares, seed=seed)
    print(f"{reason}\n{write_splits(dataset, splits, seed=seed, reason=reason)}")
