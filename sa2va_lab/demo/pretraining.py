"""Makes the demo's base model: a tiny Sa2VA trained on synthetic angiograms, shipped in the form of a released one.

    train("data/demo/base", work="outputs/demo-training")

renders the frames, gives both lessons, measures the model on held-out frames and writes the checkpoint folder.
Everything but the last step lives in `work`, and is taken up again there after an interruption.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sa2va_lab.demo import tiny
from sa2va_lab.demo.angiograms import PHRASES
from sa2va_lab.demo.frames import Frames, normalise, resize
from sa2va_lab.demo.lessons import draw_candidates, phrase_codes, teach_answering, teach_drawing
from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.configuration import parse_config
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.processing import PromptReader
from sa2va_lab.sa2va.weights import OfficialFolder, build_empty, load_weights, save_official

HELD_OUT_SEEDS = 7_000_000  # where the held-out frames' numbers begin; no plan's frames come near
FROM_NOTHING = {
    "frames": {"count": 4000, "first": 1_000_000},
    "drawing": {"steps": 2600, "near_until": 0.4},
    "answering": {"steps": 3200, "look_until": 0.5},
}
FROM_A_BASE = {  # other frames; the full canvas at once, and the answers soon: what comes before them is known
    "frames": {"count": 3000, "first": 2_000_000},
    "drawing": {"steps": 200, "peak": 6e-4, "near_until": 0.0},
    "answering": {"steps": 500, "peak": 5e-4, "look_until": 0.15},
}


def train(
    folder: Path | str,
    *,
    work: Path | str,
    start: Path | str | None = None,
    held_out: int = 300,
    plan: dict[str, dict] | None = None,
    resume: bool = True,
    progress: bool = True,
) -> dict:
    """Trains the base model and writes it to `folder`; returns what `examine` measured, parameters and seconds.

    start: a demo base whose training goes on; new weights if not given. plan: the frames and each lesson's options,
    `FROM_NOTHING` or `FROM_A_BASE` if not given. `work` keeps rendered frames (about 360 KB each), checkpoints and
    logs; `resume=False` starts the lessons anew but keeps the frames. Raises LabError when `folder` or `start` holds
    something that is not a demo model, or when `work` belongs to another plan.
    """
    folder, work = Path(folder), Path(work)
    _refuse_foreign(folder)
    work.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in ("drawing", "answering"):
            for suffix in (".pt", ".jsonl"):
                (work / f"{name}{suffix}").unlink(missing_ok=True)
    started = time.monotonic()
    plan = plan or (FROM_NOTHING if start is None else FROM_A_BASE)
    if start is None:
        tokenizer = work / "tokenizer"
        raw = tiny.write_tokenizer(tokenizer)
        model = tiny.build(raw)
    else:
        tokenizer = Path(start)
        raw, model = read_base(tokenizer)
    _refuse_other_plan(work, plan | {"start": None if start is None else OfficialFolder(start).sha256()[0]})
    reader = PromptReader(tokenizer, parse_config(raw))
    seen = Frames(work / "training", **plan["frames"], progress=progress)
    unseen = Frames(work / "held_out", count=held_out, first=HELD_OUT_SEEDS, progress=progress)
    drawing = teach_drawing(
        model,
        seen,
        work,
        **plan["drawing"],
        progress=progress,
        check=lambda: measure_drawing(model, unseen, count=24),
    )
    answering = teach_answering(
        model,
        seen,
        reader,
        work,
        **plan["answering"],
        progress=progress,
        check=lambda: examine(model, unseen, reader, count=24)["answers"],
    )
    report = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": {"drawing": drawing.step, "answering": answering.step},
        "seconds": {"drawing": round(drawing.seconds), "answering": round(answering.seconds)},
        **examine(model, unseen, reader, count=held_out),
    }
    write_base(model, folder, raw=raw, tokenizer=tokenizer)
    report["seconds"]["this call"] = round(time.monotonic() - started)
    (work / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def read_base(folder: Path | str) -> tuple[dict, Sa2VA]:
    """config.json of a demo base, and its network with weights that can be trained on."""
    folder = Path(folder)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8")) if _is_demo(folder) else None
    if raw is None:
        raise LabError(f"{folder} holds no demo model: give the folder of one, such as data/demo/base.")
    model = tiny.build(raw)
    with torch.no_grad():
        kept = load_weights(build_empty(parse_config(raw)), OfficialFolder(folder), dtype=torch.float32)
        model.load_state_dict(kept.state_dict())
    return raw, model


def write_base(model: Sa2VA, folder: Path | str, *, raw: dict, tokenizer: Path | str) -> Path:
    """Writes `model` as an official-form folder in place of the demo model that may be there.

    The new folder is complete, and has been read back with every tensor in its place, before the old one goes.
    """
    folder = Path(folder)
    _refuse_foreign(folder)
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_official(model, fresh, config=raw, tokenizer=tokenizer, dtype=torch.float32)
    load_weights(build_empty(parse_config(raw)), OfficialFolder(fresh), dtype=torch.float32)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _is_demo(folder):
        raise LabError(f"{folder} holds something that is not a demo model: give an empty folder or another name.")


def _refuse_other_plan(work: Path, plan: dict) -> None:
    """Frames and checkpoints of one plan are no beginning for another."""
    path = work / "plan.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != plan:
        raise LabError(f"{work} holds the work of another training ({path.name} says which): give a new folder.")
    path.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")


def _is_demo(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and tiny.STAMP in config.read_text(encoding="utf-8")


@torch.no_grad()
def measure_drawing(model: Sa2VA, frames: Frames, *, count: int) -> dict[str, float]:
    """Mean Dice that each phrase's own code gets on those of the first `count` frames that clearly show the thing."""
    dice: dict[str, list[float]] = {phrase: [] for phrase in PHRASES}
    whole, codes = torch.tensor([[0.0, 0.0, 1.0]]), phrase_codes()[None]
    for i in range(min(count, len(frames))):
        image, masks = frames.frame(i)
        logits, ious = draw_candidates(model, _canvas(image), whole, codes)
        best = logits[0, torch.arange(len(PHRASES)), ious[0].argmax(-1)]
        drawn = _enlarge(best, masks.shape[-1]) > 0
        for j in np.flatnonzero(frames.presence(i) == 1):
            dice[PHRASES[j]].append(_dice(drawn[j], masks[j] > 0))
    return {phrase: round(float(np.mean(values)), 4) for phrase, values in dice.items() if values}


@torch.no_grad()
def examine(model: Sa2VA, frames: Frames, reader: PromptReader, *, count: int) -> dict:
    """The whole path, prompt to mask, on the first `count` frames.

    "dice": for each phrase, macro mean and N over frames that clearly show it (a refusal counts as 0); "answers": the
    share of right answers and N where the thing is there and where it is absent; "swapped": mean Dice of a phrase's
    mask against another phrase's truth where both are there; "grey": the share of drawn or nearly drawn pixels
    (probability above .05) with a probability between .05 and .95.
    """
    sure = reader.answer_ids(tiny.PRESENT)
    seg = sure.index(reader.seg)
    dice: dict[str, list[float]] = {phrase: [] for phrase in PHRASES}
    right: dict[tuple[str, int], list[bool]] = {(phrase, there): [] for phrase in PHRASES for there in (1, 0)}
    swapped, grey = [], []
    for i in range(min(count, len(frames))):
        image, masks = frames.frame(i)
        features = model.encode_canvas(_canvas(image))
        tokens = model.encode_tiles(normalise(resize(image, tiny.TILE), tile=True)[None])
        presence = frames.presence(i)
        for j, phrase in enumerate(PHRASES):
            prompt = reader.prompt_ids(f"<image>Please segment the {phrase}.", 1).all
            ids = torch.tensor([prompt + sure])
            embeddings = model.embed(ids).masked_scatter((ids == reader.context)[..., None], tokens)
            states = model.read(embeddings, None)[0, len(prompt) - 1 :]
            yes = bool((model.score_tokens(states[:-1]).argmax(-1) == ids[0, len(prompt) :]).all())
            if presence[j] >= 0:
                right[phrase, int(presence[j])].append(yes == bool(presence[j]))
            if presence[j] != 1:
                continue
            logits = _enlarge(model.draw(features, states[seg + 1 : seg + 2]).logits, masks.shape[-1])[0]
            chance = logits.sigmoid()
            grey.append(float(((chance > 0.05) & (chance < 0.95)).sum() / (chance > 0.05).sum().clamp(min=1)))
            dice[phrase].append(_dice(logits > 0, masks[j] > 0) if yes else 0.0)
            swapped += [_dice(logits > 0, masks[k] > 0) for k in np.flatnonzero(presence == 1) if k != j]
    names = {1: "there", 0: "absent"}
    return {
        "dice": {p: {"mean": _mean(values), "n": len(values)} for p, values in dice.items()},
        "answers": {f"{p}, {names[there]}": {"right": _mean(v), "n": len(v)} for (p, there), v in right.items()},
        "swapped": _mean(swapped),
        "grey": _mean(grey),
    }


def _canvas(image: torch.Tensor) -> torch.Tensor:
    return normalise(resize(image, tiny.CANVAS), tile=False)[None]


def _enlarge(logits: torch.Tensor, side: int) -> torch.Tensor:
    for size in (tiny.CANVAS, side):  # the two steps of `Prediction`
        logits = F.interpolate(logits[None], size=(size, size), mode="bilinear", align_corners=False)[0]
    return logits


def _dice(drawn: torch.Tensor, true: torch.Tensor) -> float:
    return float(2 * (drawn & true).sum() / (drawn.sum() + true.sum()).clamp(min=1))


def _mean(values: list) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
