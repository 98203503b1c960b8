"""How fast and in how much memory training logs are read.

    python benchmarks/logs.py [--lines 100000] [--json]

Writes logs in mmengine's two forms into a temporary folder and reads each once, in a fresh process, so that the peak of
memory is that of the reading. A training of 12,192 iterations leaves 1,219 lines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

READER = """
import json, resource, sys, time
start = time.perf_counter()
from sa2va_lab.training.log import read_log
imported, used = time.perf_counter(), time.process_time()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run = read_log(sys.argv[1])
print(json.dumps({
    "seconds": round(time.perf_counter() - imported, 2),
    "cpu_seconds": round(time.process_time() - used, 2),
    "import_seconds": round(imported - start, 2),
    "lines": run.lines,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    "before_mib": before >> 10,
}))
"""


def text_lines(total: int) -> str:
    """mmengine's text; the figures vary from line to line, so that nothing can be read twice for free."""
    return "".join(
        f"2025/11/23 08:52:15 - mmengine - INFO - Iter(train) [{n:>{len(str(total))}}/{total}]  lr: {2e-5 / n:.4e}  "
        f"eta: 2 days, 16:41:05  time: {17 + n % 97 / 100:.4f}  data_time: 0.0170  memory: {19000 + n % 999}  "
        f"loss: {14 - n % 9973 / 1000:.4f}  loss_mask: {5 - n % 997 / 250:.4f}  loss_dice: {1 - n % 499 / 900:.4f}  "
        f"llm_loss: {8 - n % 991 / 130:.4f}\n"
        for n in range(1, total + 1)
    )


def scalar_lines(total: int) -> str:
    """The same as vis_data/scalars.json."""
    return "".join(
        f'{{"lr": {2e-5 / n}, "data_time": 0.017, "time": {17 + n % 97 / 100}, "loss": {14 - n % 9973 / 1000}, '
        f'"loss_mask": {5 - n % 997 / 250}, "loss_dice": {1 - n % 499 / 900}, "llm_loss": {8 - n % 991 / 130}, '
        f'"memory": {19000 + n % 999}, "iter": {n}, "step": {n}}}\n'
        for n in range(1, total + 1)
    )


def read(path: Path) -> dict:
    done = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True, text=True, check=True)
    return {"mib": path.stat().st_size >> 20} | json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("text", text_lines), ("scalars.json", scalar_lines)):
            path = Path(folder, name)
            path.write_text(make(asked.lines), "utf-8")
            results[name] = read(path)
            path.unlink()
    rows = [
        {
            "what": f"{name}, {found['lines']:,} lines ({found['mib']:,} MiB)",
            "figure": f"{found['seconds']} s ({found['cpu_seconds']} s of CPU), process at its peak "
            f"{found['peak_mib']:,} MiB ({found['before_mib']} before)",
        }
        for name, found in results.items()
    ]
    print(json.dumps({"rows": rows}) if asked.json else "\n".join("{what}: {figure}".format(**row) for row in rows))


if __name__ == "__main__":
    main()
