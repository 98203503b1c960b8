"""What following a film saves against asking about every frame: seconds a frame, both in one run.

    python benchmarks/films.py [FOLDER] [--sides 512 800] [--frames 12] [--device D] [--json]

FOLDER: a checkpoint; without one the full size with random weights is written (15.2 GiB, see full_size.py). Frames of
random pixels, as squares: of 512 they are one tile, of 800 five, which only asking about a frame pays for. The answer
is given in one pass, so that asking is as cheap as it can be. Frames after the first five are counted; the last of
twelve is the first that looks back on all that SAM2 ever remembers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

import sa2va_lab

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from full_size import ANSWER, write_full_size

PROMPT = "blood vessel"
KEEP = 5


def measure(folder: Path, *, sides: list[int], frames: int, device: str | None = None) -> dict:
    """{side: seconds a frame asked about, followed, followed with a full memory, and both shares of the first}."""
    segmenter = sa2va_lab.load(folder, precision="bf16", device=device or "auto")
    found = {}
    for side in sides:
        film = list(np.random.default_rng(0).integers(0, 256, (frames, side, side), np.uint8))
        # those asked about lie around the film, so that neither is measured in a busier hour
        asked = [_ask(segmenter, frame) for frame in film[:2]][1:]
        followed = [sum(one.seconds.values()) for one in segmenter.track(film, PROMPT, answer=ANSWER)][KEEP:]
        asked += [_ask(segmenter, frame) for frame in film[2:4]]
        each, mean, last = statistics.mean(asked), statistics.mean(followed), followed[-1]
        found[side] = {"asked": each, "followed": mean, "last": last, "share": mean / each, "last share": last / each}
        print(f"{side}: {found[side]}", file=sys.stderr, flush=True)  # a run that is cut short has said something
    return found


def _ask(segmenter, frame: np.ndarray) -> float:
    segmenter.forget()
    return sum(segmenter.predict(frame, PROMPT, answer=ANSWER).seconds.values())


def list_rows(found: dict) -> list[dict]:
    """Rows of the table of all benchmarks."""
    return [
        {
            "what": f"a frame of {side} x {side}, {what}",
            "figure": f"{numbers[key]:.2f} s",
            "plain": f"{numbers['asked']:.2f} s asked about",
            "ratio": f"{share:.0%}",
        }
        for side, numbers in found.items()
        for what, key, share in (
            ("followed", "followed", numbers["share"]),
            ("followed with a full memory", "last", numbers["last share"]),
        )
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir()) / "sa2va-full-size")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 800])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--device")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    folder = given.folder if (given.folder / "config.json").is_file() else write_full_size(given.folder)
    rows = list_rows(measure(folder, sides=given.sides, frames=given.frames, device=given.device))
    print(json.dumps({"rows": rows}) if given.json else "\n".join(" | ".join(row.values()) for row in rows))


if __name__ == "__main__":
    main()
