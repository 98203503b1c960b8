"""How long the tuner takes from slider to picture, and from counts to the split's curve.

python benchmarks/tuner.py [RUN] [DATA] [--repeats 40]

Without a Run: the newest of the demo's images in outputs/runs, or a new one. What a browser takes to draw is not in it.
"""

import argparse
import json
import statistics
import time

from sa2va_lab import open_dataset, paths
from sa2va_lab.runs.find import choose_run
from sa2va_lab.views.tuner import Tuner

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", nargs="?", default="")
parser.add_argument("data", nargs="?", default=paths.demo_data())
parser.add_argument("--repeats", type=int, default=40)
parser.add_argument("--json", action="store_true")
asked = parser.parse_args()

images = open_dataset(asked.data)
tuner = Tuner(choose_run(asked.run, images, runs=paths.find_root() / "outputs" / "runs")[0], images)
name = tuner.order[0]
height, width = tuner.look(name, 0.5).mask.shape
spent = {"slider to picture, numbers and curve": [], "the same, cleaned": [], "the split's curve from counts": []}
for turn in range(asked.repeats):
    threshold = (turn % 19 + 1) / 20
    steps = (
        lambda at=threshold: tuner.look(name, at),
        lambda at=threshold: tuner.look(name, at, min_area=20, holes=20),
        lambda: tuner.counts.curve(),
    )
    for key, step in zip(spent, steps, strict=True):
        begun = time.perf_counter()
        step()
        spent[key].append(1000 * (time.perf_counter() - begun))
rows = [
    {
        "what": f"{key}, {width}x{height}, {len(tuner.counts)} images in the split",
        "figure": f"{statistics.median(values):.1f} ms (most {max(values):.1f} of {asked.repeats})",
    }
    for key, values in spent.items()
]
print(json.dumps({"rows": rows}) if asked.json else "\n".join("{what}: {figure}".format(**row) for row in rows))
