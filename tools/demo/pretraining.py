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

from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import parse_config
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.processing import PromptReader
from sa2va_lab.sa2va.weights import build_empty, load_weights, save_official
from tools.demo import tiny
from tools.demo.angiograms import PHRASES
from tools.demo.frames import Frames, normalise, resize
from tools.demo.lessons import teach_answering, teach_drawing

HELD_OUT_SEEDS = 7_000_000  # where the held-out frames' numbers begin; no plan's frames come near
PLAN = {
    "frames": {"count": 4000, "first": 1_000_000},
    "drawing": {"steps": 2600, "near_until": 0.4},
    "answering": {"steps": 3200, "look_until": 0.5},
}


def train(
    folder: Path | str,
    *,
    work: Path | str,
    held_out: int = 300,
    plan: dict[str, dict] | None = None,
    progress: bool = True,
) -> dict:
    """Trains the base model and writes it to `folder`; returns what `examine` measured, parameters and seconds.

    plan: the frames and each lesson's options, `PLAN` if not given. `work` keeps rendered frames (about 360 KB each),
    checkpoints and logs. Raises LabError when `folder` holds something that is not a demo model, or when `work` belongs
    to another plan.
    """
    folder, work = Path(folder), Path(work)
    _refuse_foreign(folder)
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    plan = plan or PLAN
    refuse_other_plan(work, plan)
    tokenizer = work / "tokenizer"
    raw = tiny.write_tokenizer(tokenizer)
    model = tiny.build(raw)
    reader = PromptReader(tokenizer, parse_config(raw))
    seen = Frames(work / "training", **plan["frames"], progress=progress)
    unseen = Frames(work / "held_out", count=held_out, first=HELD_OUT_SEEDS, progress=progress)
    drawing = teach_drawing(model, seen, work, **plan["drawing"], progress=progress)
    answering = teach_answering(model, seen, reader, work, **plan["answering"], progress=progress)
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


def write_base(model: Sa2VA, folder: Path | str, *, raw: dict, tokenizer: Path | str) -> Path:
    """Writes `model` as an official-form folder in place of the demo model that may be there.

    The new folder is complete, and has been read back with every tensor in its place, before the old one goes.
    """
    folder = Path(folder)
    _refuse_foreign(folder)
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_official(model, fresh, config=raw, tokenizer=tokenizer, dtype=torch.float32)
    load_weights(build_empty(parse_config(raw)), Checkpoint(fresh), dtype=torch.float32)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _is_demo(folder):
        raise LabError(f"{folder} holds something that is not a demo model: give an empty folder or another name.")


def refuse_other_plan(work: Path, plan: dict) -> None:
    """Frames and checkpoints of one plan are no beginning for another."""
    path = work / "plan.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != plan:
        raise LabError(f"{work} holds the work of another training ({path.name} says which): give a new folder.")
    path.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")


def _is_demo(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and tiny.STAMP in config.read_text(encoding="utf-8")


@torch.no_grad()
def examine(model: Sa2VA, frames: Frames, reader: PromptReader, *, count: int) -> dict:
    """The whole path, prompt to mask, on the first `count` frames.

    "dice": for each phrase, macro mean and N over frames that clearly show it (a refusal counts as 0); "answers": the
    share of right answers and N where the thing is there and where it is absent.
    """
    sure = reader.answer_ids(tiny.PRESENT)
    seg = sure.index(reader.seg)
    dice: dict[str, list[float]] = {phrase: [] for phrase in PHRASES}
    right: dict[tuple[str, int], list[bool]] = {(phrase, there): [] for phrase in PHRASES for there in (1, 0)}
    for i in range(min(count, len(frames))):
        image, masks = frames.frame(i)
        features = model.encode_canvas(_canvas(image))
        tokens = model.encode_image(normalise(resize(image, tiny.TILE), tile=True)[None]).tokens
        presence = frames.presence(i)
        for j, phrase in enumerate(PHRASES):
            prompt = reader.prompt_ids(f"<image>Please segment the {phrase}.", len(tokens)).all
            ids = torch.tensor([prompt + sure])
            embeddings = model.embed(ids).masked_scatter((ids == reader.context)[..., None], tokens)
            states = model.read(embeddings, None)[0, len(prompt) - 1 :]
            yes = bool((model.score_tokens(states[:-1]).argmax(-1) == ids[0, len(prompt) :]).all())
            if presence[j] >= 0:
                right[phrase, int(presence[j])].append(yes == bool(presence[j]))
            if presence[j] != 1:
                continue
            logits = _enlarge(model.draw(features, states[seg + 1 : seg + 2]).logits, masks.shape[-1])[0]
            dice[phrase].append(_dice(logits > 0, masks[j] > 0) if yes else 0.0)
    names = {1: "there", 0: "absent"}
    return {
        "dice": {p: {"mean": _mean(values), "n": len(values)} for p, values in dice.items()},
        "answers": {f"{p}, {names[there]}": {"right": _mean(v), "n": len(v)} for (p, there), v in right.items()},
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
