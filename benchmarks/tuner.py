"""How long the tuner takes from slider to picture, and from counts to the split's curve.

python benchmarks/tuner.py RUN DATA [--repeats 40] [--json]
"""

import argparse
import json
import statistics
import time

from sa2va_lab import open_dataset, open_run
from sa2va_lab.views.tuner import Tuner

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run")
parser.add_argument("data")
parser.add_argument("--repeats", type=int, default=40)
parser.add_argument("--json", action="store_true")
asked = parser.parse_args()

tuner = Tuner(open_run(asked.run), open_dataset(asked.data))
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
    {"what": f"{key}, {width}x{height}, {len(tuner.counts)} images in the split",
     "figure": f"{statistics.median(values):.1f} ms (most {max(values):.1f} of {asked.repeats})"}
    for key, values in spent.items()
]  # fmt: skip
print(json.dumps({"rows": rows}) if asked.json else "\n".join("{what}: {figure}".format(**row) for row in rows))
