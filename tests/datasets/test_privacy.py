"""Names of people stay beside the data: they are planted wherever files can hold them, and no output has one.

Every command and every notebook that looks at a data set is run on it; then every byte they wrote is searched, inside
archives and pictures too.
"""

import base64
import io
import json
import re
import zipfile

import numpy as np
import pytest
import typer
from PIL import Image, PngImagePlugin

from sa2va_lab import cli, open_dataset, paths
from sa2va_lab.datasets.drawings import CHECK
from sa2va_lab.datasets.pseudonyms import KEY_FILE
from sa2va_lab.reports.runner import _accepted
from sa2va_lab.runs import predict_dataset

SECRETS = ("Inventedsson", "发明的人", "NOTREAL7700123")  # a name, one in another script, a hospital number


def plant(root, *, labelme):
    """Nine images of three patients whose names are in file names, EXIF, PNG text, JSON, and in the folders' tables."""
    images = root if labelme else root / "images"
    images.mkdir(parents=True)
    entries, random = [], np.random.default_rng(0)
    for number in range(9):
        patient = number // 3
        name = f"{SECRETS[0]}{chr(65 + patient)}_{SECRETS[1]}_{SECRETS[2]}{patient}_V1_F{number}"
        name += ".jpg" if number % 3 == 2 else ".png"
        pixels = random.integers(160, 220, (48, 64), np.uint8)
        pixels[10 + patient : 20, 8:56] = 60
        exif = Image.Exif()
        exif[0x013B] = exif[0x010E] = " ".join(SECRETS)
        options = {"exif": exif}
        if name.endswith("png"):
            text = PngImagePlugin.PngInfo()
            text.add_text("PatientName", SECRETS[0])
            text.add_itxt("Comment", SECRETS[1])
            text.add_text("PatientID", SECRETS[2], zip=True)
            options["pnginfo"] = text
        Image.fromarray(pixels).save(images / name, **options)
        points = [[8, 10 + patient], [56, 10 + patient], [56, 20], [8, 20]]
        flat = [value for point in points for value in point]
        entries.append({"image": name, "mask": [[flat], [[1, 1]]], "text": ["vessel", "vessel"], "by": SECRETS[0]})
        if labelme:
            shape = {"label": "vessel", "points": points, "shape_type": "polygon", "description": SECRETS[0]}
            about = {"imagePath": f"D:\\{SECRETS[0]}\\{name}", "imageData": base64.b64encode(b"x").decode()}
            content = {"shapes": [shape], "imageWidth": 64, "imageHeight": 48, "by": SECRETS[1], **about}
            (images / name).with_suffix(".json").write_text(json.dumps(content, ensure_ascii=False))
    (images / f"{SECRETS[0]}Z_{SECRETS[1]}_{SECRETS[2]}9_V1_F0.png").write_bytes(b"damaged " + SECRETS[0].encode())
    if not labelme:
        (root / "annotations.json").write_text(json.dumps(entries, ensure_ascii=False))
        (root / "masks").mkdir()
        Image.new("L", (9, 9), 255).save(root / "masks" / (entries[0]["image"].removesuffix(".png") + ".png"))
        Image.new("L", (9, 9), 255).save(root / "masks" / f"{SECRETS[0]}_of_no_image.png")
        table = {entry["image"]: entry["image"].split("_")[0] for entry in entries}
        (root / "groups.json").write_text(json.dumps(table, ensure_ascii=False))
    return root


def run_cli(arguments, monkeypatch, capsys, *, status=0):
    monkeypatch.setattr("sys.argv", ["sa2va-lab", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    assert (stop.value.code or 0) == status, f"{arguments}: {said.err}"
    return said.out + said.err


def contents(path):
    """A file's bytes, and those of all that is packed in it: archive members, pictures in pages, texts of pictures."""
    raw = path.read_bytes()
    yield raw
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (member.encode() + archive.read(member) for member in archive.namelist())
    if path.suffix in (".html", ".ipynb", ".json"):
        for packed in re.findall(rb"[A-Za-z0-9+/]{200,}={0,2}", raw.replace(rb"\n", b"")):
            picture = base64.b64decode(packed + b"=" * (-len(packed) % 4))
            yield picture
            yield from texts(io.BytesIO(picture))
    if path.suffix in (".png", ".jpg"):
        yield from texts(path)


def texts(source):
    try:
        with Image.open(source) as opened:
            yield f"{opened.info} {dict(opened.getexif())} {getattr(opened, 'text', '')}".encode()
    except OSError:
        return


def assert_names_nobody(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY_FILE != path.name
        shown = str(path.relative_to(folder))
        for content in (shown.encode(), *contents(path)):
            for secret in SECRETS:
                for form in (secret.encode(), secret.encode("utf-16-le"), json.dumps(secret)[1:-1].encode()):
                    assert form not in content, f"{secret} is in {shown}"


LOOKING = {
    "data",
    "images",
    "run",
    "first",
    "second",
    "against",
}  # parameters by which a command sees images or their Run
NOT_RUN = {
    "init": "its lab.yml is the user's own paths, and no part of outputs/",
}


def find_commands():
    """name -> {parameter: click's own} of every command there is, those of groups as well."""
    waiting, found = [("", typer.main.get_command(cli.app))], {}
    for name, command in waiting:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[name] = {parameter.name: parameter for parameter in command.params}
        else:
            waiting += [(f"{name} {word}".strip(), one) for word, one in inner.items()]
    return found


def fill(command, parameters, values):
    """The words of a call that gives a command everything it needs and all that can hold a name."""
    words = command.split()
    for name, parameter in parameters.items():
        if name not in values:
            assert not parameter.required, f"`{command}` needs {name}: say in this test what to give it"
            continue
        for value in values[name] if isinstance(values[name], list) else [values[name]]:
            words += [str(value)] if parameter.param_type_name == "argument" else [parameter.opts[0], str(value)]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("labelme", [False, True], ids=["sa2va", "labelme"])
def test_no_name_gets_into_any_output(tmp_path, monkeypatch, capsys, darkness, tiny_folder, labelme):
    root, outputs = plant(tmp_path / "films", labelme=labelme), tmp_path / "outputs"
    dataset = open_dataset(root)
    assert len({sample.group for sample in dataset}) == 4
    assert not any(secret in repr(dataset) + dataset.reason for secret in SECRETS)
    run = predict_dataset(darkness, dataset, folder=outputs / "runs" / "darkness", progress=False)
    assert sum(record["error"] is not None for record in run.records) == 1
    commands = find_commands()
    looking = {name for name, parameters in commands.items() if LOOKING & set(parameters)} - set(NOT_RUN)
    assert {"predict", "evaluate", "audit", "convert", "split", "report"} <= looking
    values = {"data": root, "run": run.folder, "first": run.folder, "second": run.folder, "model": tiny_folder}
    values |= {"images": [sample.image for sample in dataset], "prompt": "vessel", "answer": "Sure, [SEG]."}
    said = ""
    for name in sorted(looking - {"report"}):
        given = values | {"out": outputs / f"by {name}", "fix": outputs / f"fixed by {name}"}
        if name == "predict":  # its `run` belongs to a data set, which follows below
            del given["run"]
        if name == "verify":  # there `images` is a count
            given["images"] = 1
        arguments = fill(name, commands[name], given)
        for more in ([], ["--json"]) if "as_json" in commands[name] else ([],):
            status = {"predict": 2, "verify": 2}.get(name, 0)  # an image is damaged; the Run is of another model
            said += run_cli([*arguments, *more], monkeypatch, capsys, status=status)
            arguments = [word for word in arguments if word not in ("--fix", str(given["fix"]))]
            if name == "export":  # it never writes into a folder that is there
                arguments = [f"{word} again" if word == str(given["out"]) else word for word in arguments]
    lines = (outputs / "by predict" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["image"] for line in lines} == {sample.id for sample in dataset}
    said += run_cli(["convert", root, outputs / "coco", "--to", "coco"], monkeypatch, capsys)
    whole = ["predict", root, "--model", paths.demo_model(), "--run", "all of them", "--outputs", outputs]
    said += run_cli(whole, monkeypatch, capsys) + run_cli(["runs", "--outputs", outputs], monkeypatch, capsys)
    (outputs / "said.txt").write_text(said)
    notebooks = {path.stem: set(_accepted(path)) for path in (paths.find_root() / "notebooks").glob("[0-9]*.ipynb")}
    seeing = [name for name, accepted in notebooks.items() if LOOKING & accepted]
    seeing.sort(key=lambda name: (name != "03_evaluation", name))  # others read what it measured
    assert {"01_dataset", "03_evaluation"} <= set(seeing)
    seeing.remove("06_precision_vram")  # five processes with a network each: test_stranger has them, and names to find
    report = ["report", *seeing, "-p", f"data={root}", "-p", f"run={run.folder}", "--outputs", outputs]
    report += ["-p", "limit=2"]  # 06 predicts with every precision: two images have the names that five have
    (outputs / "report.txt").write_text(run_cli(report, monkeypatch, capsys))
    assert_names_nobody(outputs)


def test_the_search_itself_finds_what_is_hidden(tmp_path):
    for number, write in enumerate(
        (
            lambda path: (path / "a.txt").write_text(f"x{SECRETS[0]}x"),
            lambda path: (path / f"{SECRETS[1]}.txt").write_text("x"),
            lambda path: np.savez_compressed(path / "a.npz", said=np.array([SECRETS[2].encode()])),
            lambda path: (path / "a.json").write_text(json.dumps({"x": SECRETS[1]})),
            lambda path: (path / "a.html").write_text(_page_with_a_picture()),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        with pytest.raises(AssertionError, match="is in"):
            assert_names_nobody(folder)


def _page_with_a_picture():
    text = PngImagePlugin.PngInfo()
    text.add_text("PatientID", SECRETS[2], zip=True)
    buffer = io.BytesIO()
    Image.effect_noise((20, 20), 90).save(buffer, "png", pnginfo=text)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def test_errors_name_nobody(tmp_path):
    root = plant(tmp_path / "films", labelme=False)
    names = sorted(path.name for path in (root / "images").iterdir())
    dataset, said = open_dataset(root), []
    damaged = next(sample for sample in dataset if sample.image.read_bytes().startswith(b"damaged"))
    checked = next(sample for sample in dataset if CHECK in sample.drawings)  # by a mask of another size
    for ask in (damaged.image_size, lambda: checked.truth(annotator=CHECK)):
        with pytest.raises(Exception, match="P0") as error:
            ask()
        said.append(str(error.value))
    for tables in (
        {"splits": {"train": [names[0]], "test": [names[1]]}},
        {"splits": {"train": [f"{SECRETS[0]}.png"]}},
        {"splits": {"train": [f"../{SECRETS[0]}.png"]}},
        {"groups": {f"../{SECRETS[0]}.png": "x"}},
        {"sizes": {f"../{SECRETS[0]}.png": [1, 1]}},
        {"annotations": [{"image": f"../{SECRETS[0]}.png", "mask": [], "text": []}]},
        {"annotations": [{"image": f"{SECRETS[0]}\0.png", "mask": [], "text": []}]},
    ):
        other = plant(tmp_path / f"films{len(said)}", labelme=False)
        for name, table in tables.items():
            (other / f"{name}.json").write_text(json.dumps(table))
        with pytest.raises(Exception, match=".") as error:
            open_dataset(other)
        said.append(str(error.value))
    assert not any(secret in text for secret in SECRETS for text in said), said
