"""Every benchmark in turn, into the one table of RESULTS.md.

    python benchmarks/bench.py        # `make bench`; with --quick without the report

A benchmark is a process of its own that prints JSON with `rows`: what, figure, the same work written the usual way
(plain), and how many times as fast (ratio), taken in turn in one process. The report runs first, since others look at
its Run. Only what stands between the two marks of RESULTS.md is written anew, and only when everything was measured.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "data" / "demo"
RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
PACKAGES = ("torch", "transformers", "numpy", "scikit-image", "scikit-learn", "pycocotools")
BUSY = 0.1  # others used more than this share of the machine
ROW = ("what", "figure", "plain", "ratio")
COLUMNS = ("benchmark", "what", "figure", "written the usual way", "times as fast")


def main() -> None:
    """Measures all and rewrites the table; a benchmark that fails leaves RESULTS.md as it was."""
    with tempfile.TemporaryDirectory() as outputs:
        measured, run = {}, []
        if "--quick" not in sys.argv:
            measured["report"] = time_report(Path(outputs))
            run = [path for path in Path(outputs, "runs").iterdir() if path.name.endswith("_demo")]
        measured |= {
            "stages": run_benchmark("stages.py", DEMO / "base", "--repeats", 7),
            "evaluation": run_benchmark("evaluation.py"),
            "datasets": run_benchmark("datasets.py"),
            "logs": run_benchmark("logs.py"),
            "tuner": run_benchmark("tuner.py", *run),
        }
    table = write_table(measured)
    RESULTS.write_text(replace_table(RESULTS.read_text("utf-8"), table), "utf-8")
    print(table)


def time_report(outputs: Path) -> dict:
    """The demo's whole report: its seconds, and those of each notebook (a kernel of its own, its page included)."""
    command = [sys.executable, "-m", "sa2va_lab.cli", "report", "--all", "--outputs", str(outputs)]
    found = watch(command, cwd=outputs)  # a folder without a lab.yml
    content = json.loads(Path(found["stdout"].splitlines()[-1]).with_name("metrics.json").read_text("utf-8"))
    rows = [{"what": f"{len(content['notebooks'])} notebooks and index.html", "figure": f"{found['seconds']:.0f} s"}]
    rows += [{"what": stem, "figure": f"{part['seconds']:.0f} s"} for stem, part in content["notebooks"].items()]
    return {"rows": rows, "others": found["others"]}


def run_benchmark(name: str, *arguments) -> dict:
    """What benchmarks/<name> prints as JSON, with `others` as `watch` gives it."""
    found = watch([sys.executable, str(HERE / name), *map(str, arguments), "--json"])
    return json.loads(found["stdout"].splitlines()[-1]) | {"others": found["others"]}


def watch(command: list[str], **options) -> dict:
    """Runs a command: stdout, seconds, and others: the share of the machine that was busy with something else."""
    print(" ".join(command[1:]), file=sys.stderr)
    start, busy, own = time.perf_counter(), _busy_seconds(), _own_seconds()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options)
    seconds = time.perf_counter() - start
    others = (_busy_seconds() - busy - (_own_seconds() - own)) / (seconds * psutil.cpu_count())
    return {"stdout": done.stdout, "seconds": seconds, "others": max(0.0, others)}


def _busy_seconds() -> float:
    now = psutil.cpu_times()
    return now.user + now.system


def _own_seconds() -> float:
    return sum(os.times()[:4])


def write_table(measured: dict[str, dict]) -> str:
    """The machine in one paragraph and the rows of all benchmarks in one table, as Markdown."""
    stages = measured["stages"]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE)
    facts = [stages["device"], f"{psutil.cpu_count()} cores", f"{psutil.virtual_memory().total / 1e9:.0f} GB"]
    facts += [f"{stages['threads']} threads", platform.platform(terse=True), f"Python {platform.python_version()}"]
    facts += [f"{name} {version(name)}" for name in PACKAGES]
    facts += [f"commit {commit.stdout.strip() or 'unknown'}", f"{datetime.now(UTC):%Y-%m-%d}"]
    busy = [name for name, found in measured.items() if found["others"] > BUSY]
    told = "Nothing else kept the machine busy."
    if busy:
        shares = ", ".join(f"{name} {measured[name]['others']:.0%}" for name in busy)
        told = (
            f"**Busy machine**: other programs took a part of it ({shares}), so seconds there are too long; "
            "ratios were taken in turn."
        )
    lines = [", ".join(facts) + f". {told}", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, found in measured.items():
        for row in found["rows"]:
            cells = [f"{name} (busy)" if name in busy else name, *(row.get(key) or "" for key in ROW)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replace_table(page: str, table: str, *, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """`page` with `table` between two marks; everything else stays to the letter."""
    begin, end = marks
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{RESULTS} lacks the marks {begin} and {end}: put them where the table belongs")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


if __name__ == "__main__":
    main()
