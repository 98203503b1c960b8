"""Where the time of one prediction goes, and what a draft saves: every figure and the ratio from one run.

    python benchmarks/stages.py MODEL [--image PATH] [--precision P] [--device D] [--repeats N] [--tokens N] [--json]

MODEL is any checkpoint folder; without --image a photograph that scikit-image brings along is used, at 512x512.
The answer is the model's own greedy answer, written once token by token and once with itself as the draft, in turn, so
that both ways have the same work to show for.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time

import torch
from PIL import Image
from transformers import DynamicCache

import sa2va_lab
from sa2va_lab.sa2va.answering import write_answers
from sa2va_lab.sa2va.processing import cut_tiles, normalise, phrase_prompt, read_image, stretch


def main(arguments: list[str] | None = None) -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--image")
    parser.add_argument("--prompt", default="blood vessel")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=7, help="length of the answer; 'Sure, [SEG].' has 7")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    result = measure(asked)
    print(json.dumps(result | {"rows": as_rows(result)}) if asked.json else as_text(result))


def photograph() -> Image.Image:
    """512x512, so one tile."""
    import skimage.data

    return Image.fromarray(skimage.data.retina()).resize((512, 512), Image.Resampling.LANCZOS)


@torch.inference_mode()
def measure(asked: argparse.Namespace) -> dict:
    """Median seconds of each stage over the repeats, and the ratio of the two ways of answering."""
    start = time.perf_counter()
    segmenter = sa2va_lab.load(asked.model, precision=asked.precision, device=asked.device)
    load_seconds = time.perf_counter() - start
    model, reader, device = segmenter.model, segmenter.reader, segmenter.device
    image = read_image(asked.image) if asked.image else photograph()
    question, _ = phrase_prompt(asked.prompt)
    tiles = cut_tiles(image, model.config).to(device)
    dtype = next(model.grounding_encoder.parameters()).dtype
    canvas = normalise(stretch(image, model.config).to(dtype)).to(device)
    prompt = reader.prompt_ids(question, len(tiles) * model.config.tokens_per_tile)
    ids, inputs = prompt.all, segmenter._begin([prompt], [model.encode_image(tiles)])[1]

    def answer(draft: list[int]):
        return write_answers(model, inputs, DynamicCache(), draft=draft, stops=reader.stops, limit=asked.tokens)[0]

    def decode(cache: DynamicCache) -> None:
        model.score_tokens(model.read(model.embed(inputs.new_full((1, 1), ids[-1]).long()), cache)[0, -1])

    def ask(question: str) -> None:
        segmenter.predict(image, question, answer="Sure, [SEG].")  # one mask, whatever the model would say

    def ask_first() -> None:
        segmenter.forget()
        ask(asked.prompt)

    greedy = answer([])
    cache, seg_state = DynamicCache(), greedy.states[:1]
    model.read(inputs, cache)
    features = model.encode_canvas(canvas)
    stages = {
        "vision": lambda: model.encode_image(tiles),
        "prefill": lambda: model.read(inputs, DynamicCache()),
        "decode one token": lambda: decode(cache),
        "answer token by token": lambda: answer([]),
        "answer with its draft": lambda: answer(greedy.ids),
        "SAM2 encoder": lambda: model.encode_canvas(canvas),
        "SAM2 decoder": lambda: model.draw(features, seg_state),
        "whole first question": ask_first,
        "whole second question": lambda: ask("catheter"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(asked.repeats):  # all stages in turn, so that a slow minute of the machine hits them all
        for name, run in stages.items():
            begun = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(seconds["answer token by token"], seconds["answer with its draft"], strict=True)]
    assert answer(greedy.ids).ids == greedy.ids
    again = [a / b for a, b in zip(seconds["whole first question"], seconds["whole second question"], strict=True)]
    return {
        "model": segmenter.provenance["model"],
        "parameters": segmenter.provenance["parameters"],
        "precision": segmenter.provenance["precision"]["actual"],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "image": list(image.size),
        "tiles": len(tiles),
        "prompt_tokens": len(ids),
        "answer_tokens": len(greedy.ids),
        "repeats": asked.repeats,
        "load_seconds": load_seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "seconds": {name: statistics.median(taken) for name, taken in seconds.items()},
        "draft_speed_up": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
        "second_question_speed_up": {"median": statistics.median(again), "low": min(again), "high": max(again)},
    }


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def as_rows(result: dict) -> list[dict[str, str]]:
    """The same for the table of all benchmarks: each way beside the way that it saves."""
    seconds, saved = result["seconds"], {}
    saved["answer with its draft"] = ("answer token by token", result["draft_speed_up"])
    saved["whole second question"] = ("whole first question", result["second_question_speed_up"])
    rows = [
        {"what": f"load, {result['parameters'] / 1e6:.2f} M parameters", "figure": f"{result['load_seconds']:.3f} s"},
        {"what": "memory, process at its peak", "figure": f"{result['peak_bytes'] / 1e6:.0f} MB"},
    ]
    for name in seconds:
        if name == "answer token by token":
            continue
        row = {"what": name, "figure": f"{seconds[name]:.4f} s"}
        if name in saved:
            plain, ratio = saved[name]
            row["plain"] = f"{seconds[plain]:.4f} s: {plain}"
            row["ratio"] = "{median:.2f} ({low:.2f} to {high:.2f})".format(**ratio)
        rows.append(row)
    return rows


def as_text(result: dict) -> str:
    """A table to read."""
    head = (
        f"{result['model']}: {result['parameters']:,} parameters, {result['precision']}, {result['device']}, "
        f"{result['threads']} threads, torch {result['torch']}\n"
        f"{result['image'][0]}x{result['image'][1]} image, {result['tiles']} tiles, {result['prompt_tokens']} prompt "
        f"tokens, {result['answer_tokens']} answer tokens, median of {result['repeats']}\n"
    )
    rows = [f"{'load':<24}{result['load_seconds']:>10.3f} s"]
    rows += [f"{name:<24}{taken:>10.3f} s" for name, taken in result["seconds"].items()]
    told = {
        "draft_speed_up": "a right draft is {median:.2f} times as fast as token by token ({low:.2f} to {high:.2f})",
        "second_question_speed_up": "a second question about the image takes 1/{median:.2f} of the first "
        "(1/{low:.2f} to 1/{high:.2f})",
    }
    return "\n".join([head.rstrip(), *rows, *(text.format(**result[key]) for key, text in told.items())])


if __name__ == "__main__":
    main()
