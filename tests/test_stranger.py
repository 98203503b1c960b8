"""A stranger's path: own images with a name in every file name, LabelMe files, a base and a .pth; no code touched."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INVENTED = "INVENTED_NAME_NOT_A_PERSON"  # stands where a hospital would write a patient's name
NUMBER = "NOTREAL0000042"


def run(*arguments, cwd):
    command = [sys.executable, "-m", "sa2va_lab.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def world(root, tmp_path_factory):
    """A folder as a stranger has it: LabelMe files beside images whose names hold an invented name and number."""
    folder, demo = tmp_path_factory.mktemp("stranger"), root / "data" / "demo"
    (folder / "images").mkdir()
    for path in sorted((demo / "labelme").glob("*.json"))[::2]:
        name = f"{INVENTED}_{NUMBER}_V1_{path.stem[-3:]}"
        shutil.copy(path.with_suffix(".png"), folder / "images" / f"{name}.png")
        content = json.loads(path.read_text("utf-8"))
        content["shapes"].append({"label": "dongmai", "shape_type": INVENTED, "points": [[1, 1], [2, 2]]})
        content["imagePath"] = f"C:\\patients\\{INVENTED}\\{name}.png"
        (folder / "images" / f"{name}.json").write_text(json.dumps(content))
    own = folder / INVENTED  # the names of folders and files on the way are no more anybody's business
    shutil.copytree(demo / "base", own / f"{INVENTED}_base")
    shutil.copy(sorted(demo.glob("iter_*.pth"))[-1], own / f"{NUMBER}.pth")
    shutil.copy(demo / "sa2va_angiogram_finetune.py", own / f"{INVENTED}.py")
    shutil.copy(demo / "sa2va_angiogram_finetune.log", own / f"{INVENTED}_{NUMBER}.log")
    return folder


@pytest.fixture(scope="module")
def report(world):
    paths = {"model": f"{INVENTED}_base", "finetune": f"{NUMBER}.pth", "config": f"{INVENTED}.py"}
    paths |= {"log": f"{INVENTED}_{NUMBER}.log"}
    own = [word for key, name in paths.items() for word in (f"--{key}", f"{INVENTED}/{name}")]
    made = run("init", "--data", "images", *own, "--phrase", "dongmai", cwd=world)
    assert made.returncode == 0, made.stderr
    done = run("report", "--all", "-p", "prompt=blood vessel", "--outputs", world / "outputs", cwd=world)
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_the_answer_is_about_the_strangers_images(report, read_page):
    page = read_page(report)
    page.assert_self_contained(report.parent)
    content = json.loads(report.with_name("metrics.json").read_text("utf-8"))
    assert [stem for stem, part in content["notebooks"].items() if part["error"]] == []
    assert {"01_dataset", "02_loss_curves", "03_evaluation"} <= set(content["notebooks"])
    summary = content["notebooks"]["03_evaluation"]["answer"]["metrics"]["summary"]
    assert summary["n_images"] == 3
    assert 0.5 < summary["dice"]["macro"] < 1, "the demo's parts on the demo's kind of image: a real, imperfect result"
    assert f"{summary['dice']['macro']:.3f}" in page.text


@pytest.mark.slow
def test_no_byte_of_the_results_holds_the_name_or_the_number(report, world):
    for path in (world / "outputs").rglob("*"):
        assert INVENTED not in path.name
        assert NUMBER not in path.name
        if path.is_file():
            content = path.read_bytes()
            assert INVENTED.encode() not in content, path
            assert NUMBER.encode() not in content, path
            if "reports" in path.parts:  # which is sent to others: where things lie on this machine is not in it
                assert str(world).encode() not in content, path
                assert str(Path(__file__).parent).encode() not in content, path
