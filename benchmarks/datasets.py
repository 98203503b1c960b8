"""What reading and drawing truths costs: opening a folder, rasterising, auditing, and a file of very many annotations.

    python benchmarks/datasets.py [DATA] [--images 1220] [--annotations 50000] [--json]

DATA (the demo angiograms by default) is copied, over and over under other names, to a set of `--images` in a temporary
folder; the images of the copies are links to the same bytes. The many annotations are one COCO file. Times are those
of one process; seconds of the first opening include writing the key file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sa2va_lab import open_dataset, paths
from sa2va_lab.datasets.audit import audit_dataset


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--images", type=int, default=1220)
    parser.add_argument("--annotations", type=int, default=50_000)
    parser.add_argument("--audited", type=int, default=60, help="so many images are audited")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only-open", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only_open:  # a process of its own, so that its memory is its own
        start = time.perf_counter()
        dataset = open_dataset(asked.only_open)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_bytes": peak, "images": len(dataset)}))
        return
    result = measure(asked)
    rows = [{"what": name, "figure": str(value)} for name, value in result.items()]
    print(json.dumps({"rows": rows}) if asked.json else "\n".join("{what}: {figure}".format(**row) for row in rows))


def measure(asked: argparse.Namespace) -> dict:
    """Seconds, masks a second and bytes of each step."""
    with tempfile.TemporaryDirectory() as folder:
        root = multiply(Path(asked.data or paths.demo_data()), Path(folder) / "many", asked.images)
        times = []
        for _ in range(2):
            start, busy = time.perf_counter(), time.process_time()
            dataset = open_dataset(root)
            times.append((time.perf_counter() - start, time.process_time() - busy))
        start = time.perf_counter()
        for sample in dataset:
            sample.truth()
        masks = len(dataset) / (time.perf_counter() - start)
        part = dataset.spread(asked.audited)
        start = time.perf_counter()
        audit_dataset(part)
        audited = len(part) / (time.perf_counter() - start)
        many = write_many(Path(folder) / "coco", asked.annotations)
        command = [sys.executable, __file__, "--only-open", str(many)]
        opened = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "images": len(dataset),
        "polygons": sum(len(sample.truths[1].polygons) for sample in dataset if 1 in sample.truths),
        "first opening, s (of which CPU)": "{:.2f} ({:.2f})".format(*times[0]),
        "second opening, s (of which CPU)": "{:.2f} ({:.2f})".format(*times[1]),
        "masks a second, size read from the file": round(masks),
        "images audited a second": round(audited, 1),
        "annotations in one COCO file": asked.annotations,
        "opening that file, s": round(opened["seconds"], 2),
        "opening that file, peak MB of the process": round(opened["peak_bytes"] / 1e6),
    }


def multiply(source: Path, root: Path, count: int) -> Path:
    """A data folder of `count` images out of the annotated ones of another, each time with other names."""
    entries = json.loads((source / "annotations.json").read_text())
    (root / "images").mkdir(parents=True)
    written = []
    for number in range(count):
        entry = entries[number % len(entries)]
        name = f"INVENTED-P{number // 34:03d}_V1_F{number % 34:03d}.png"
        os.symlink(Path("..") / "originals" / entry["image"], root / "images" / name)
        written.append(entry | {"image": name})
    (root / "originals").mkdir()
    for entry in entries:
        (root / "originals" / entry["image"]).write_bytes((source / "images" / entry["image"]).read_bytes())
    (root / "annotations.json").write_text(json.dumps(written))
    return root


def write_many(root: Path, count: int) -> Path:
    """A COCO file with `count` polygons of 40 corners on a hundredth as many images, which need not be there."""
    corners = [coordinate for place in range(40) for coordinate in (10 + 3 * place, 20 + 7 * (place % 2) + place)]
    images = [
        {"id": number, "file_name": f"{number}.png", "width": 512, "height": 512} for number in range(count // 100)
    ]
    annotations = [
        {"id": number, "image_id": number % len(images), "category_id": 1, "segmentation": [corners]}
        for number in range(count)
    ]
    root.mkdir()
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "blood vessel"}]}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


if __name__ == "__main__":
    main()
