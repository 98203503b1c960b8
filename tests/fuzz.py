"""Files and command lines that chance has damaged, each for a command in this process: `python -m tests.fuzz 20000`.

Whatever was done to a file, a command ends by itself: with its answer, or with one sentence and status 2. A traceback,
a hang, a letter that steers the terminal, or memory without end is a find; it is printed with the number that makes it
again (`python -m tests.fuzz 1 NUMBER`). The suite runs a few hundred of them (test_fuzz.py).
"""

import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
import warnings
from pathlib import Path

import torch

from sa2va_lab import cli, open_dataset
from sa2va_lab.runs import predict_dataset
from tests.conftest import ROOT, Darkness, write_dataset

SECONDS = 30  # of one command; the slowest take one
ROOM = 1 << 30  # bytes that all of them together may add to what this process has had
ODD = [
    None, True, False, 0, -1, 1, 2, 7.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), 10**400, -(10**18), 2**63, "",
    " ", "x" * 5000, "\0", "\ud800", "\u202e\x1b[2J", "../../../etc/passwd", "/dev/zero", "*", "{", "%s{}", "nan",
    [], {}, [[]], [None], {"": None}, [0, 0], [-1, 10**12], ["x", "y"], {"a": {"b": [1, {"c": 2}]}},
]  # fmt: skip
WORDS = [
    "nan",
    "-1",
    "1e999",
    "0",
    "9" * 400,
    "\x00",
    "\x1b[31m",
    "[",
    "{",
    ": ",
    "\t- ",
    "&a *a",
    "!!python/none",
    "\\",
]


def build(root: Path) -> None:
    """The files that the commands of COMMANDS read."""
    demo = ROOT / "data" / "demo"
    data = write_dataset(root / "data", count=4)
    shutil.copy(data / "annotations.json", data / "annotations_obs2.json")
    (data / "sizes.json").write_text(json.dumps({path.name: [32, 32] for path in (data / "images").iterdir()}))
    (data / "labels.json").write_text('{"vessel": "blood vessel"}')
    images = [path.name for path in sorted((data / "images").iterdir())]
    coco = {
        "images": [{"id": n, "file_name": name, "width": 32, "height": 32} for n, name in enumerate(images)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": [[2, 2, 9, 2, 9, 9]], "area": 24.5, "iscrowd": 0}
            for n in range(len(images))
        ],
        "categories": [{"id": 1, "name": "blood vessel"}],
    }
    for name in ("coco", "labelme"):
        shutil.copytree(data / "images", root / name / "images")
    (root / "coco/annotations.json").write_text(json.dumps(coco))
    shape = {"label": "blood vessel", "shape_type": "polygon", "points": [[2, 2], [9, 2], [9, 9]], "group_id": None}
    for name in images:
        content = {"shapes": [shape], "imagePath": name, "imageWidth": 32, "imageHeight": 32, "imageData": None}
        (root / "labelme/images" / name).with_suffix(".json").write_text(json.dumps(content))
    for name in ("one", "two"):
        made = root / f"out/runs/20260101T000000Z_{name}"
        predict_dataset(Darkness(), open_dataset(data), folder=made, progress=False)
    choice = {
        "value": 0.4,
        "reason": "by eye",
        "origin": {"images": [], "split": "val"},
        "flat": [0.3, 0.5],
        "low": 0.1,
    }
    (root / "threshold.json").write_text(json.dumps(choice))
    (root / "lab.yml").write_text("data: data\nlang: en\nlog: train.log\nparameters: {threshold: 0.4}\n")
    shutil.copy(demo / "sa2va_angiogram_finetune.log", root / "train.log")
    shutil.copy(demo / "sa2va_angiogram_finetune.py", root / "config.py")
    shutil.copy(next(demo.glob("vis_data/*.json")), root / "scalars.json")
    (root / "base").mkdir()
    for path in (demo / "base").iterdir():
        link = path.suffix == ".safetensors"
        os.symlink(path, root / "base" / path.name) if link else shutil.copy(path, root / "base" / path.name)
    torch.save({"state_dict": {"text_hidden_fcs.0.bias": torch.zeros(3)}, "meta": {"iter": 3}}, root / "tuned.pth")
    (root / "single").mkdir()
    line = {"image": "a.png", "image_sha256": "0" * 64, "answer": "x", "n_seg": 0, "seconds": {}, "error": None}
    (root / "single/predictions.jsonl").write_text(json.dumps(line) + "\n")


RUN, OTHER = "out/runs/20260101T000000Z_one", "out/runs/20260101T000000Z_two"
OF_A_RUN = ["runs --outputs out", "runs --outputs out --json", f"evaluate {RUN} --data data",
            f"compare {RUN} {OTHER} --data data", f"evaluate {RUN} --data data --json"]  # fmt: skip
OF_DATA = ["audit data", "audit data --json", "audit data --names --ceilings", "convert data new", "init --data data",
           "convert data new --to coco", f"evaluate {RUN} --data data", "split unsplit"]  # fmt: skip
COMMANDS = {  # a file: the commands that read it
    "base/config.json": ["inspect base", "plan base", "plan base --gpu 24GiB --gpus 2", "inspect base --json"],
    f"{RUN}/run.json": OF_A_RUN,
    f"{RUN}/samples.jsonl": OF_A_RUN,
    f"{RUN}/logits/P01-V1-F001.npz": OF_A_RUN[2:4],
    **{f"data/{name}.json": OF_DATA for name in
       ("annotations", "annotations_obs2", "groups", "splits", "sizes", "labels", ".sa2va-lab-key")},
    "coco/annotations.json": ["audit coco", "convert coco new", "convert coco new --to coco"],
    "labelme/images/INVENTED-P00_000.json": ["audit labelme", "convert labelme new"],
    "data/images/INVENTED-P00_000.png": ["audit data", "convert data new", f"evaluate {RUN} --data data"],
    "threshold.json": [f"evaluate {RUN} --data data --threshold threshold.json"],
    "lab.yml": ["report nosuch", "report nosuch -p threshold=1"],
    "train.log": ["training train.log", "training train.log --config config.py --json"],
    "scalars.json": ["training scalars.json", "training scalars.json train.log"],
    "config.py": ["training train.log --config config.py", "inspect tuned.pth --config config.py"],
    "tuned.pth": ["inspect tuned.pth", "inspect tuned.pth base --json", "plan base --finetune tuned.pth"],
    "single/predictions.jsonl": ["predict data/images/INVENTED-P00_000.png --model none --prompt x --out single"],
}  # fmt: skip
SAFE = [word for words in COMMANDS.values() for word in words]


def damage_tables(content: object, chance: random.Random) -> object:
    """A value of JSON with one place in it changed: odd, gone, of elsewhere in it, many times over, or nested."""
    places = [(None, None)]
    waiting = [content] if isinstance(content, dict | list) else []
    while waiting and len(places) < 3000:
        outer = waiting.pop()
        inner = list(outer.items() if isinstance(outer, dict) else enumerate(outer))
        places += [(outer, key) for key, _ in inner]
        waiting += [item for _, item in inner if isinstance(item, dict | list)]
    outer, key = chance.choice(places)
    old = content if outer is None else outer[key]
    match chance.randrange(6):
        case 0 if outer is not None:
            del outer[key]
            return content
        case 1 if outer is not None:
            other, place = chance.choice(places[1:])
            new = json.loads(json.dumps(other[place]))
        case 2:
            new = [old] * chance.choice([2, 100])
        case 3:
            new = old
            for _ in range(chance.choice([1, 5, 120])):
                new = chance.choice([[new], {"a": new}])
        case _:
            new = chance.choice(ODD)
    if outer is None:
        return new
    outer[key] = new
    return content


def damage(name: str, content: bytes, chance: random.Random) -> bytes:
    """The bytes of a file, damaged as its kind can be."""
    with contextlib.suppress(ValueError, UnicodeDecodeError):
        if name.endswith((".json", ".jsonl")) and chance.random() < 0.75:
            lines = content.decode().splitlines() if name.endswith(("l", "scalars.json")) else [content.decode()]
            place = chance.randrange(len(lines))
            made = json.loads(lines[place])
            for _ in range(chance.choice([1, 1, 1, 3])):
                made = damage_tables(made, chance)
            lines[place] = json.dumps(made, ensure_ascii=chance.random() < 0.5)
            return ("\n".join(lines) + "\n").encode(errors="surrogatepass")
    if name.endswith((".log", ".yml", ".py", ".json")) and chance.random() < 0.7:
        text = content.decode(errors="replace")
        for _ in range(chance.choice([1, 2, 20])):
            found = list(re.finditer(r"[\w.+-]+", text)) or [re.match("", text)]
            start, stop = chance.choice(found).span()
            text = text[:start] + chance.choice([*WORDS, text[stop : stop + 30] * 3]) + text[stop:]
        return text.encode()
    made = bytearray(content)
    for _ in range(chance.choice([1, 3, 30])):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(4):
            case 0:
                del made[place : place + chance.choice([1, 4, 10_000])]
            case 1:
                made[place:place] = chance.randbytes(chance.choice([1, 4, 300]))
            case 2:
                made[place:place] = made[place : place + 200]
            case _:
                made[place : place + 1] = bytes([chance.randrange(256)])
    return bytes(made)


def damage_words(chance: random.Random) -> list[str]:
    """A command line in which options and values are not what they should be; none of them takes long."""
    words = chance.choice(SAFE).split()
    for _ in range(chance.choice([1, 2, 3])):
        place = chance.randrange(1, len(words) + 1)
        odd = [str(value) for value in ODD if isinstance(value, str | int | float)] + ["base", "data", "train.log", RUN]
        odd += ["--json", "--groups", "--threshold", "--phrase", "--samples", "--ranks", "--lang", "--limit", "--gpu",
                "--gpus", "--tiles", "--cpu", "--config", "--lora-alpha", "--folds", "--seed", "--train"]  # fmt: skip
        words[place : place + chance.randrange(2)] = [chance.choice(odd)]
    return words


def call(words: list[str]) -> str | None:
    """What is wrong with how a command ended; None where it ended well."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    status, begun = 0, time.perf_counter()

    def stop(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    argv, sys.argv = sys.argv, ["sa2va-lab", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cli.main()
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        sys.argv = argv
    said = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err)]
    if time.perf_counter() - begun > SECONDS:
        return f"more than {SECONDS} s"
    if status not in (0, 2):
        return f"status {status}: {said}"
    if status == 2 and not re.search(r"^sa2va-lab: |^Usage: |^Error: ", said[1], re.MULTILINE):
        return f"status 2 without a sentence: {said}"
    if odd := {c for c in "".join(said) if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\r\t"}:
        return f"letters that a terminal obeys: {odd!a}"
    return None


def try_one(number: int) -> tuple[str, str | None]:
    """Damages one thing in the working folder, where `build` has been, and calls one command; all is put back after."""
    chance = random.Random(number)
    if chance.random() < 0.15:
        words, name = damage_words(chance), "the command line"
        with keep(Path("new")), keep(Path("lab.yml")):
            return f"{number}: {name} {words!a}", call([word.replace("\0", "") for word in words])
    name = chance.choice(list(COMMANDS))
    words, path = chance.choice(COMMANDS[name]), Path(name)
    content = path.read_bytes()
    try:
        path.write_bytes(damage(name, content, chance))
        if words.startswith("init"):
            words += " --out new"
        if words.startswith("split"):
            shutil.copytree("data", "unsplit", ignore=shutil.ignore_patterns("splits.json"))
        return f"{number}: {name}, sa2va-lab {words}", call(words.split())
    finally:
        path.write_bytes(content)
        for made in ("new", "unsplit"):
            shutil.rmtree(made) if Path(made).is_dir() else Path(made).unlink(missing_ok=True)


@contextlib.contextmanager
def keep(path: Path):
    """Within it anything may be made of a file, or of one that is not there."""
    content = path.read_bytes() if path.is_file() else None
    yield
    if path.is_dir():
        shutil.rmtree(path)
    elif content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def fuzz(count: int, *, first: int = 0, seconds: float = float("inf")) -> tuple[int, list[str]]:
    """(how many were tried, what was found): numbers from `first` on, at most `count`, and at most `seconds` long."""
    begun, found, done, here = time.perf_counter(), [], 0, Path.cwd()
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)
        try:
            build(Path(root))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            while done < count and time.perf_counter() - begun < seconds:
                what, wrong = try_one(first + done)
                most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                if wrong is None and most - before > ROOM:
                    wrong, before = f"{(most - before) / 1e9:.1f} GB more than before", most
                found += [f"{what}\n{wrong}"] if wrong else []
                done += 1
        finally:
            os.chdir(here)
    return done, found


if __name__ == "__main__":
    count, first, *rest = [*map(int, sys.argv[1:]), 0]
    tried, found = fuzz(count, first=first, seconds=float(os.environ.get("FUZZ_SECONDS", "inf")))
    print("\n\n".join(found))
    print(f"{tried} tried, {len(found)} found")
    sys.exit(bool(found))
