"""Where things lie: the checkout, the demo, and folders for results."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from sa2va_lab.errors import LabError

USUAL = re.compile(  # what mmengine, the makers of the models and we ourselves call things
    r"(iter|epoch)_\d{1,9}\.pth|20\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])(_\d{6})?(\.log)?|(scalars|trainer_state)\.json|"
    r"(first|second|run|train(ing)?|model|base|config|(sa2va_angiogram_)?finetune|tuned|Sa2VA|InternVL)\d?(\.\w{1,5})?|"
    r"(Sa2VA|InternVL|Qwen)[\w.]*(-[\w.]+)*-\d+B(-\w+)?|sam2[\w.-]*",
    re.IGNORECASE,
)


def find_root() -> Path:
    """The checkout: the folder that holds `notebooks/` and `pyproject.toml`.

    It is looked for upwards from the package first (JupyterLab starts kernels in notebooks/, papermill anywhere), then
    upwards from the working directory, for a package that was installed as a copy.
    """
    package, here = Path(__file__).resolve().parent, Path.cwd()
    for folder in (*package.parents, here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise LabError(
        f"No sa2va_lab checkout above {package} or {here}: run inside a clone of the repository, or name "
        "model, data and outputs explicitly."
    )


def demo_model() -> Path:
    """The tiny Sa2VA that ships with the repository."""
    return _shipped("base", "the demo model")


def demo_finetune() -> Path:
    """The xtuner fine-tune of the demo model, an iter_*.pth."""
    return _shipped("iter_*.pth", "the demo's fine-tune")


def demo_data() -> Path:
    """The synthetic angiograms that the demo model was trained and tested on."""
    return _shipped("angiograms", "the demo images")


def demo_films() -> Path:
    """The synthetic films that ship with the repository; the demo model has seen none of them."""
    return _shipped("films", "the demo films")


def demo_tuning() -> dict[str, Path]:
    """{"finetune", "config"}: the demo's fine-tune and the config that it was trained with, as `load` takes them."""
    return {"finetune": demo_finetune(), "config": _shipped("*.py", "the config of the demo's fine-tune")}


def is_demo_data(path: Path | str) -> bool:
    """Whether a data set's path is one of the shipped ones."""
    return real(path) in [real(find_root() / "data" / "demo" / name) for name in ("angiograms", "films")]


def real(path: Path | str) -> Path:
    """Where a path leads, `~` and links followed; where they lead nowhere, as far as they go. Path.resolve raises a
    RuntimeError of Python's own for links in a circle."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def find_given(named: str | Path) -> Path:
    """A path as a person gave it, also in a notebook: a relative one is looked for in the working folder, where the
    command was started, and in the checkout. As it was given where it is in none of them."""
    path = Path(named).expanduser()
    places = [path, Path(os.environ.get("PWD", ".")) / path]
    with contextlib.suppress(LabError):
        places.append(find_root() / path)
    return next((place for place in places if place.exists()), path)


def new_folder(parent: Path | str, name: str) -> Path:
    """`<parent>/<utc>_<name>`, a path that does not exist yet; nothing is created.

    name: reduced as `as_file_name` says.
    """
    stamped = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{as_file_name(name)}"
    taken, path = 1, Path(parent) / stamped
    while path.exists():
        taken += 1
        path = Path(parent) / f"{stamped}-{taken}"
    return path


def as_file_name(name: str) -> str:
    """`name` with everything but letters, digits, dot, dash and underscore replaced by dashes."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def shown_name(kind: str, path: Path | str) -> str:
    """What a file or folder is called where others may read it: by its name if a program or the makers of a model gave
    it, else by what it is, with four digits that tell it from others. A name that a person gave may be a person's.

    kind: such as "log".
    """
    name = os.path.basename(os.path.realpath(path))
    return name if USUAL.fullmatch(name) else f"{kind}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:4]}"


def _shipped(pattern: str, what: str) -> Path:
    folder = find_root() / "data" / "demo"
    if not (found := sorted(folder.glob(pattern))):
        raise LabError(
            f"{what} should lie in {folder / pattern}, which does not exist: restore data/ from the repository."
        )
    return found[-1]
