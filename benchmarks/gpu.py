"""What one card makes of the full size, in one run of at most eight minutes: `make gpu`.

    python benchmarks/gpu.py [FOLDER]

needs torch, transformers, accelerate, safetensors, numpy, PIL, scikit-image and psutil; FOLDER (16 GB, made if it is
not there) holds the stand-in of full_size.py. Speed and memory of every plan, the ladder where a card is really full,
and, with pytest, the recorded outputs of the official code, are appended to RESULTS.md under the card's name. Without a
CUDA device the same is done with the demo on the CPU and printed; nothing is written.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import full_size
import torch

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.forecast import GIB

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
SECONDS = 480  # plans that would begin later are left out, and named
BATCH = 8
PLANS = (  # what is told of it, how it is loaded
    ("bf16", {"precision": "bf16", "batch": BATCH}),
    ("fp16", {"precision": "fp16"}),
    ("int8", {"precision": "int8", "batch": BATCH}),
    ("nf4", {"precision": "nf4", "batch": BATCH}),
    ("fp32", {"precision": "fp32"}),
    ("bf16, two [SEG]", {"precision": "bf16", "answer": "Sure, [SEG] and [SEG]."}),
    ("bf16, 5 tiles", {"precision": "bf16", "side": 800}),
    ("bf16, 8 GiB", {"precision": "bf16", "max_memory": {"cuda:0": "8GiB"}, "repeats": 1}),
    ("bf16, compiled", {"precision": "bf16", "compile": True}),  # last: it takes the longest
)
SMALL = (
    ("fp32", {"precision": "fp32", "batch": 2, "repeats": 1}),
    ("bf16, two [SEG]", {"precision": "bf16", "repeats": 1, "answer": "Sure, [SEG] and [SEG]."}),
    ("int8", {"precision": "int8", "repeats": 1}),
)
HEADS = ("plan", "load, s", "image, ms", *("pixels", "vision", "answer", "canvas", "masks"), "one of a data set, ms",
         "operators", "peak, GiB", "forecast, GiB", "peak / forecast")  # fmt: skip


def main(folder: Path | None = None) -> str:
    """Measures, prints and, with a card, appends to RESULTS.md; returns what was printed."""
    card = torch.cuda.is_available()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as spare:
        model = full_size.write_full_size(folder or Path(spare) / "model") if card else ROOT / "data" / "demo" / "base"
        rows, left_out = [], []
        for name, how in PLANS if card else SMALL:
            if time.monotonic() - begun > SECONDS:
                left_out.append(f"{name}: no time was left")
                continue
            try:
                rows.append(tell_plan(name, full_size.measure(model, device="cuda:0" if card else "cpu", **how)))
            except LabError as error:
                left_out.append(f"{name}: {error}")
            free()
        ladder = try_ladder(model) if card else "The ladder of a full card: not run: no CUDA device."
    lines = [
        f"## {torch.cuda.get_device_name(0) if card else full_size.cpu_name()}, {datetime.now(UTC):%Y-%m-%d}",
        f"torch {torch.__version__}, transformers {version('transformers')}; 512 x 512, one tile, the answer in one "
        "pass, medians; memory as torch's allocator counts it.",
        "\n".join(map(as_row, [HEADS, ["---"] * len(HEADS), *rows])),
        *([f"Not measured: {'; '.join(left_out)}."] if left_out else []),
        ladder,
        compare_recorded() if card else "The recorded outputs of the official code: on a CPU they are in `make test`.",
    ]
    text = "\n\n".join(lines) + "\n"
    if card:
        with open(RESULTS, "a", encoding="utf-8") as results:
            results.write("\n" + text)
    print(text)
    return text


def as_row(cells) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def tell_plan(name: str, found: dict) -> list[str]:
    """The cells of one plan."""
    stages, peak = found["seconds"], found["memory"]["peak_bytes"]
    said = sum(share["peak"] or share["needed"] for share in found["forecast"])
    together = f"{1000 * found['together']:.1f}" if found["together"] else "–"
    memory = [f"{peak / GIB:.2f}", f"{said / GIB:.2f}", f"{peak / said:.3f}"] if peak else ["–"] * 3
    times = [f"{1000 * spent:.1f}" for spent in (sum(stages.values()), *(stages[stage] for stage in HEADS[3:8]))]
    return [name, f"{found['load_seconds']:.2f}", *times, together, f"{found['operators']:,}", *memory]


def try_ladder(folder: Path) -> str:
    """Loads bf16 on a card of which all but 12 GiB are taken away, against a plan that knows nothing of that."""
    torch.cuda.set_per_process_memory_fraction(12 * GIB / torch.cuda.get_device_properties(0).total_memory, 0)
    try:
        with warnings.catch_warnings(record=True):
            segmenter = sa2va_lab.load(folder, precision="bf16", device="cuda:0", max_memory={"cuda:0": "80GiB"})
            made = segmenter.predict(torch.zeros(64, 64, dtype=torch.uint8).numpy(), "x", answer=full_size.ANSWER)
        steps = "; ".join(f"from {step['from']} to {step['to']}" for step in segmenter.provenance["steps"])
        return f"With 12 GiB of the card, bf16 asked for: {steps or 'no step'}; {made.n_seg} mask."
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


def compare_recorded() -> str:
    """The recorded outputs once more, on the card: the last line of pytest."""
    if find_spec("pytest") is None:
        return "The recorded outputs of the official code: not run: pytest is not installed."
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(ROOT / "tests/parity"), "-k", "internvl/"]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"SA2VA_LAB_DEVICE": "cuda:0"}, capture_output=True, text=True
    )
    return f"The recorded outputs of the official code, on this card: {(ran.stdout.splitlines() or ['nothing'])[-1]}."


def free() -> None:
    """Gives back what the last plan held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
