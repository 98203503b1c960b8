"""A stand-in for the real 8.18 B model: its sizes and names, random bf16 weights, 15.2 GiB on disk.

    python benchmarks/full_size.py write FOLDER
    python benchmarks/full_size.py run FOLDER [--side 800] [--precision P] [--device D] [--repeats N] [--json]

Random weights cost what trained ones cost; what the model says about an image means nothing. `run` writes what is
missing, loads it (mapped into memory on a CPU) and prints seconds, memory and the rate of matrix products of one run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import sa2va_lab
import sa2va_lab.loading.ladder  # what is imported later would be counted as the model
import sa2va_lab.sa2va.processing
import sa2va_lab.segmenter
from sa2va_lab.evaluation.precision import Watch
from sa2va_lab.loading.devices import QUANTISED
from sa2va_lab.loading.forecast import MIB
from sa2va_lab.sa2va.configuration import parse_config, read_config
from sa2va_lab.sa2va.processing import cut_tiles, read_image
from sa2va_lab.sa2va.weights import INDEX, build_empty

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from stages import cpu_name

from tools.demo import tiny

SHARD_BYTES = 1 << 30
BATCHES = 3  # of a data set
ANSWER = "Sure, [SEG]."  # given, as a random model would say anything; so it is read in one pass
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "image_size": 448,
    "patch_size": 14,
}
LANGUAGE = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "vocab_size": 151679,
}


def write_full_size(folder: Path | str) -> Path:
    """Writes the stand-in as an official-form folder, with the demo's tokenizer (its ids are all below the real
    vocabulary's end); a folder that is complete already is left as it is."""
    folder = Path(folder)
    if (folder / INDEX).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    raw = tiny.write_tokenizer(folder)
    raw["vision_config"] |= VISION
    raw["llm_config"] |= LANGUAGE
    raw |= {"force_image_size": 448, "max_dynamic_patch": 12}
    del raw["sa2va_lab"]
    (folder / "config.json").write_text(json.dumps(raw, indent=1))
    shapes = dict(_official_shapes(raw))
    pool = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0))
    weight_map, shard, filled = {}, {}, 0
    for number, (name, shape) in enumerate(tqdm(sorted(shapes.items()), desc="write weights", unit="tensor"), 1):
        shard[name] = _draw(name, shape, pool)
        filled += shard[name].nbytes
        if filled > SHARD_BYTES or number == len(shapes):
            file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(shard, file)
            shard, filled = {}, 0
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def _official_shapes(raw: dict) -> Iterator[tuple[str, tuple[int, ...]]]:
    config = parse_config(raw)
    ours = {name: tuple(tensor.shape) for name, tensor in build_empty(config).state_dict().items()}
    for name, places in config.names.official(ours).items():
        first, *rest = ours[places[0].name]
        rows = {"whole": first, "third": 3 * first, "row": 1}[places[0].kind]
        yield name, (rows, *rest)


def _draw(name: str, shape: tuple[int, ...], pool: torch.Tensor) -> torch.Tensor:
    """Values that keep the signal's size from layer to layer: norms near 1, biases near 0, matrices by their fan-in."""
    count = math.prod(shape)
    if name.endswith("bias"):
        mean, deviation = 0.0, 0.02
    elif len(shape) == 1:
        mean, deviation = (0.1, 0.01) if name.endswith((".ls1", ".ls2", "g_weight")) else (1.0, 0.1)
    else:
        mean, deviation = 0.0, 1 / math.sqrt(math.prod(shape[1:]))
    start = hash_of(name) % (len(pool) // 2)
    values = torch.empty(count, dtype=torch.bfloat16)
    for begin in range(0, count, len(pool) // 2):
        part = values[begin : begin + len(pool) // 2]
        part.copy_(pool[start : start + len(part)] * deviation + mean)
    return values.view(shape)


def hash_of(name: str) -> int:
    """The same number for the same name in every process."""
    return int.from_bytes(name.encode()[-8:], "little")


@torch.inference_mode()
def measure(
    folder: Path | str, *, repeats: int = 3, side: int = 512, batch: int = 1, answer: str = ANSWER, **how
) -> dict:
    """Loads the folder and answers about one square image `repeats` times; once before to warm up, once after to count
    the operations.

    side: of the image in pixels. batch: besides, a data set so many images at once (`together`: seconds an image, the
    median). answer: what is given, with a [SEG] for each mask. operators: how many of torch's are called for an image.
    how: as `sa2va_lab.load` takes it. seconds: median by stage, first_seconds: of the warm-up; flops: of the matrix
    products by stage; rate: products a second of one decoder matrix and the prompt's tokens, in the same run; memory
    above the process before it loaded; forecast: the shares of the plan that ran.
    """
    image = np.random.default_rng(0).integers(0, 255, (side, side), np.uint8)
    tiles = len(cut_tiles(read_image(image), read_config(folder)))
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    segmenter = sa2va_lab.load(folder, tiles=tiles, **how)
    load_seconds = time.perf_counter() - start
    model, device, positions = segmenter.model, segmenter.device, tiles * segmenter.model.config.tokens_per_tile + 64

    def ask() -> dict[str, float]:
        segmenter.forget()
        made = segmenter.predict(image, "blood vessel", answer=answer)
        assert made.n_seg == answer.count("[SEG]")
        peaks.append(made.peak_bytes)
        return made.seconds

    peaks: list[int | None] = []
    say(f"loaded in {load_seconds:.2f} s")
    first = ask()
    say(f"first image {first}")
    rates, taken = [], []
    for _ in range(repeats):
        rates.append(matrix_rate(model, positions))
        taken.append(ask())
        say(f"image {taken[-1]}, {rates[-1] / 1e12:.2f} TFLOP/s")
    held = watch.stop()
    together = statistics.median(ask_together(segmenter, side, batch) for _ in range(repeats)) if batch > 1 else None
    with Operators() as operators:
        ask()
    with counting(model) as flops:  # last, as the counter holds tensors that a plain prediction does not
        ask()
    if device.type == "cuda":
        held = {"peak_bytes": max(peaks[:-2])}
    return {
        "parameters": segmenter.provenance["parameters"],
        "precision": segmenter.provenance["precision"]["actual"],
        "arithmetic": segmenter.provenance["arithmetic"],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "where": segmenter.provenance["device"]["actual"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": repeats,
        "side": side,
        "tiles": tiles,
        "positions": positions,
        "load_seconds": load_seconds,
        "first_seconds": sum(first.values()),
        "seconds": {stage: statistics.median(one[stage] for one in taken) for stage in first},
        "together": together,
        "batch": batch,
        "operators": operators.count,
        "flops": flops,
        "rate": statistics.median(rates),
        "memory": held,
        "forecast": segmenter.provenance["plan"]["devices"],
    }


def ask_together(segmenter, side: int, batch: int) -> float:
    """Seconds an image of a data set, so many images at once, as a Run asks for them: the next ones are read ahead."""
    images, made = np.random.default_rng(1).integers(0, 255, (BATCHES * batch, side, side), np.uint8), []
    with tempfile.TemporaryDirectory() as spare:
        paths = [Path(spare) / f"{number}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        segmenter.forget()
        begun = time.perf_counter()
        for start in range(0, len(paths), batch):
            segmenter.prepare(paths[start : start + 2 * batch])
            group = paths[start : start + batch]
            made += segmenter.predict_many(group, "blood vessel", batch=batch, answer=ANSWER)
        spent = time.perf_counter() - begun
    assert [one.n_seg for one in made] == [1] * len(images)
    return spent / len(images)


class Operators(TorchDispatchMode):
    """Counts the operators that are called, views aside: on a GPU about as many kernels are launched."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def say(text: str) -> None:
    """Progress, so that a run which is cut short has said something."""
    print(text, file=sys.stderr, flush=True)


def matrix_rate(model, positions: int) -> float:
    """Floating-point operations a second of one decoder matrix after another and as many rows as image and question
    have positions."""
    layers = [layer.mlp.up_proj for layer in model.language_model.model.layers]
    layers = [layer for layer in layers if not layer.weight.is_meta]
    if not layers:
        return math.nan
    width, dtype = model.language_model.config.hidden_size, model.language_model.model.norm.weight.dtype
    given = torch.randn(positions, width, dtype=dtype)
    begun, count = time.perf_counter(), 0
    for layer in layers:
        layer(given.to(layer.weight.device)).sum().item()  # which waits for a GPU
        count += 2 * len(given) * width * model.language_model.config.intermediate_size
    return count / (time.perf_counter() - begun)


@contextmanager
def counting(model) -> Iterator[dict[str, int]]:
    """Counts the operations of matrix products by stage, as torch's counter sees them."""
    found: dict[str, int] = {}
    aten = torch.ops.aten
    attention = (  # counted here: torch 2.11's own count refuses heads that share keys
        *(aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_efficient_attention),
        *(aten._scaled_dot_product_cudnn_attention, aten._scaled_dot_product_flash_attention_for_cpu),
    )
    own = dict.fromkeys(attention, count_attention)
    stages = {"vision": "encode_images", "answer": "read", "canvas": "encode_canvas", "masks": "draw"}

    def counted(stage: str, method):
        def run(*given):
            with FlopCounterMode(display=False, custom_mapping=own) as counter:
                made = method(*given)
            found[stage] = found.get(stage, 0) + counter.get_total_flops()
            return made

        return run

    for stage, name in stages.items():
        setattr(model, name, counted(stage, getattr(model, name)))
    yield found
    for name in stages.values():
        delattr(model, name)


def count_attention(query: tuple, key: tuple, value: tuple, *rest, out_shape=None, **named) -> int:
    """Operations of both products, from shapes (batch, heads, length, width); heads may share keys and values."""
    images, heads, length, width = query
    return 2 * images * heads * length * key[2] * (width + value[3])


def as_text(result: dict) -> str:
    """A table to read."""
    flops, seconds = result["flops"], result["seconds"]
    whole, work = sum(seconds.values()), sum(flops.values())
    lines = [
        f"{result['parameters']:,} parameters, {result['precision']} on {result['where']}: {result['device']}, "
        f"{result['threads']} threads, torch {result['torch']}; {result['arithmetic']}",
        f"{result['side']}x{result['side']} image, {result['tiles']} tile(s), answer in one pass, median of "
        f"{result['repeats']} after a first of {result['first_seconds']:.2f} s",
        "",
        "| stage | seconds | TFLOP | TFLOP/s |",
        "|---|---|---|---|",
        f"| load | {result['load_seconds']:.2f} | | |",
    ]
    for stage, spent in seconds.items():
        done = flops.get(stage)
        lines.append(
            f"| {stage} | {spent:.2f} | " + (f"{done / 1e12:.2f} | {done / spent / 1e12:.2f} |" if done else "| |")
        )
    lines += [
        f"| an image | {whole:.2f} | {work / 1e12:.2f} | {work / whole / 1e12:.2f} |",
        *([f"| one of {result['batch']} at once | {result['together']:.2f} | | |"] if result["together"] else []),
        "",
        f"{result['operators']:,} operators for an image, views aside.",
        _tell_rate(result, work=work, whole=whole),
        "",
        "Above the process before loading: "
        + ", ".join(
            f"{name.removesuffix('_bytes')} {count / MIB:,.0f} MiB" for name, count in result["memory"].items()
        ),
        "Forecast: "
        + "; ".join(
            f"{share['name']} own memory {share['needed'] / MIB:,.0f} MiB, mapped {share['mapped'] / MIB:,.0f} MiB"
            for share in result["forecast"]
        ),
    ]
    return "\n".join(lines)


def _tell_rate(result: dict, *, work: int, whole: float) -> str:
    rate = result["rate"]
    said = f"One decoder matrix and {result['positions']} rows, in the same run: {rate / 1e12:.2f} TFLOP/s."
    if result["precision"] in QUANTISED:
        return f"{said} Products with quantised matrices are not among the TFLOP above."
    share = f"At that rate the products of an image take {work / rate:.2f} s"
    return f"{said} {share}: the image takes {whole * rate / work:.2f} times as long."


def main() -> None:
    """Reads the arguments, writes what is missing, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write", "run"])
    parser.add_argument("folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=512, help="of the image, in pixels")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    folder = write_full_size(asked.folder)
    if asked.command == "write":
        print(folder)
        return
    result = measure(folder, repeats=asked.repeats, side=asked.side, precision=asked.precision, device=asked.device)
    print(json.dumps(result) if asked.json else as_text(result))


if __name__ == "__main__":
    main()
