"""One image before and after a change: its time, what of that the pixels take, and how many operators are called.

    python benchmarks/before_after.py BEFORE MODEL [--precision P] [--images N] [--rounds N] [--batch N]
        [--write]

BEFORE is a commit; after it is what lies here; MODEL a folder, or the name of a released model ("Sa2VA-8B"), whose
sizes are enough to count operators and to make pixels: no weights, and nothing is computed. Each side runs in
processes of its own, in turn, on the same files: one image after another as a Run asks for them (the next one's pixels
are made ahead, where that commit can), then single images. Times are the CPU's for the thread that runs the model,
which has one thread for its products: so a busy machine changes little, and what another thread does beside it is not
in them. `--write` puts the table between its marks in RESULTS.md, a section a model.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "data" / "demo" / "angiograms" / "images"
PIXELS = {  # what makes an image's pixels, or waits for them, at either commit
    "sa2va_lab.segmenter": ("read_image", "fill_canvas", "normalise"),
    "sa2va_lab.segmenter.Segmenter": ("_look_at", "_cut", "_look"),
    "sa2va_lab.sa2va.processing": ("stretch",),
}
SIZES = {  # the same where there are only sizes
    "CPU ms of the model's thread for an image's pixels": ("own", "{:.1f}"),
    "CPU ms of another thread for them": ("ahead", "{:.1f}"),
    "left to the model's device, CPU ms": ("device", "{:.1f}"),
    "operators of the network for an image": ("operators", "{:,.0f}"),
}
ROWS = {  # what is told: how
    "CPU seconds of the model's thread an image, in a series": ("series", "{:.3f}"),
    "pixels' share": ("series_pixels", "{:.1%}"),
    "the same for an image alone": ("alone", "{:.3f}"),
    "pixels' share, alone": ("alone_pixels", "{:.1%}"),
    "operators for an image": ("operators", "{:,.0f}"),
    "of them for pixels": ("operators_pixels", "{:,.0f}"),
    "operators for one of {batch} asked at once": ("operators_batch", "{:,.0f}"),
}


class Meter:
    """Seconds and operators inside the functions that make pixels, as far as the model's own thread runs them."""

    def __init__(self):
        self.depth, self.spent, self.operators, self.within = 0, 0.0, 0, 0

    def wrap(self, function):
        """The same function, measured; what it calls of its like is not counted twice."""

        def run(*given, **named):
            if threading.current_thread() is not threading.main_thread() or self.depth:
                return function(*given, **named)
            self.depth, begun = 1, time.thread_time()
            try:
                return function(*given, **named)
            finally:
                self.depth, self.spent = 0, self.spent + time.thread_time() - begun

        return run


def count(meter: Meter):
    """Within it operators are counted, views aside."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            meter.operators += not func.is_view
            meter.within += meter.depth and not func.is_view
            return func(*args, **(kwargs or {}))

    return Operators()


def measure_sizes(sizes, image: Path) -> dict[str, float]:
    """What the pixels of an image take at a model's sizes in bf16, and the operators that its network calls."""
    import torch

    from sa2va_lab.loading import activations
    from sa2va_lab.sa2va import processing

    def take(run) -> float:
        taken = []
        for _ in range(9):
            begun = time.thread_time()
            run()
            taken.append(1000 * (time.thread_time() - begun))
        return statistics.median(taken)

    def see() -> None:
        picture = processing.read_image(image)
        sizes.family.pixels(picture, sizes)
        processing.fill_canvas(picture, sizes, dtype=torch.bfloat16)

    meter, build = Meter(), activations.build_empty

    def build_counted(config):
        """Operators are counted from the first of an image on, without those that make the network."""
        model = build(config)
        first = model.encode_image
        model.encode_image = lambda pixels: (setattr(meter, "operators", 0), first(pixels))[1]
        return model

    activations.shorten, activations.build_empty = (lambda config: config), build_counted
    with count(meter):
        activations.count_activations(sizes, precision="bf16", tiles=1)
    found = {"operators": meter.operators}
    if not hasattr(processing, "normalise"):
        return found | {"own": take(see), "ahead": 0.0, "device": 0.0}
    levels = processing.Picture.prepare(image, sizes).levels
    found |= {"own": 0.0, "ahead": take(lambda: processing.Picture.prepare(image, sizes))}
    return found | {"device": take(lambda: processing.normalise(levels.to(torch.bfloat16)))}


def measure(model: str, precision: str, images: list[Path], batch: int) -> dict[str, float]:
    """What one side takes, measured in this very process."""
    from full_size import ANSWER

    import sa2va_lab
    from sa2va_lab.sa2va.processing import read_image

    segmenter, meter = sa2va_lab.load(model, precision=precision), Meter()
    family = type(segmenter.model.config.family)
    owners = {family: ("pixels",)}
    for name, names in PIXELS.items():
        module, _, kind = name.partition(".Segmenter")
        module = importlib.import_module(module)
        owners[module.Segmenter if name.endswith("Segmenter") else module] = names
    for owner, names in owners.items():
        for name in names:
            if inspect.isfunction(found := getattr(owner, name, None)):
                setattr(owner, name, meter.wrap(found))

    def ask(image) -> None:
        segmenter.forget()
        assert segmenter.predict(image, "blood vessel", answer=ANSWER).n_seg == 1

    def take(run) -> tuple[float, float]:
        begun, meter.spent = time.thread_time(), 0.0
        run()
        whole = time.thread_time() - begun
        return whole, meter.spent / whole

    def series() -> None:
        prepare = getattr(segmenter, "prepare", lambda images: None)
        for image, following in zip(images, [*images[1:], None], strict=True):
            prepare([image, following] if following else [image])
            ask(image)

    pictures = [read_image(path) for path in images]
    ask(images[0])
    whole, share = take(series)
    alone = [take(lambda picture=picture: ask(picture)) for picture in pictures]
    found = {
        "series": whole / len(images),
        "series_pixels": share,
    }
    found |= {"alone": statistics.median(one[0] for one in alone)}
    found |= {"alone_pixels": statistics.median(one[1] for one in alone)}
    with count(meter):
        ask(pictures[0])
    found |= {"operators": meter.operators, "operators_pixels": meter.within}
    segmenter.forget()
    meter.operators, many = 0, [picture.rotate(90 * turn) for turn in range(4) for picture in pictures[:2]]
    with count(meter):
        list(segmenter.predict_many(many[:batch], "blood vessel", batch=batch, answer=ANSWER))
    return found | {"operators_batch": meter.operators / batch}


def run_side(checkout: Path, asked: argparse.Namespace) -> dict[str, float]:
    """`measure` in a process of its own that imports the package of `checkout`."""
    own = checkout / asked.model  # the demo's base as that commit has it
    model = str(own) if own.exists() else asked.model
    command = [sys.executable, __file__, asked.before, model, "--precision", asked.precision]
    command += ["--images", str(asked.images), "--batch", str(asked.batch), "--child"]
    paths = os.pathsep.join(map(str, (checkout, HERE)))
    here = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=here)
    return json.loads(done.stdout.splitlines()[-1])


def as_text(sides: dict[str, list[dict]], asked: argparse.Namespace, commits: dict[str, str]) -> str:
    """The table, with the median of all rounds."""
    from stages import cpu_name

    rows = ROWS if "series" in sides["after"][0] else SIZES
    what = f"{asked.precision}, {asked.images} images of the demo" if rows is ROWS else "bf16, sizes alone, one tile"
    head = f"{Path(asked.model).name}, {what}, {asked.rounds} rounds"
    told = f"{head} in turn; {cpu_name()}, one thread; {commits['before']} and {commits['after']}."
    lines = [told, "", "| what | before | after |", "|---|---|---|"]
    for what, (name, form) in rows.items():
        cells = (form.format(statistics.median(one[name] for one in sides[side])) for side in ("before", "after"))
        lines.append(f"| {what.format(batch=asked.batch)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the arguments, measures both sides in turn, prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("model")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="images at once, of which operators are counted")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        from sa2va_lab.loading.catalogue import find_released

        images, released = sorted(IMAGES.iterdir())[: asked.images], find_released(asked.model)
        if released:
            print(json.dumps(measure_sizes(released.sizes, images[0])))
            return
        print(json.dumps(measure(asked.model, asked.precision, images, asked.batch)))
        return
    from bench import RESULTS, replace_table

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    sides: dict[str, list[dict]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory() as spare:
        checkout = Path(spare) / "before"
        git("worktree", "add", "--detach", str(checkout), asked.before)
        try:
            for _ in range(asked.rounds):
                sides["before"].append(run_side(checkout, asked))
                sides["after"].append(run_side(HERE.parent, asked))
        finally:
            git("worktree", "remove", "--force", str(checkout))
    commits = {"before": asked.before, "after": git("describe", "--always", "--dirty")}
    text = as_text(sides, asked, commits)
    print(text)
    if asked.write:
        marks = [f"<!-- before and after, {Path(asked.model).name}: {end} -->" for end in ("begin", "end")]
        RESULTS.write_text(replace_table(RESULTS.read_text("utf-8"), text, marks=marks), "utf-8")


if __name__ == "__main__":
    main()
