"""Fixtures around `synthetic`: files with the logs and configs that it makes."""

import importlib.util
import json
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("synthetic_logs", Path(__file__).with_name("synthetic.py"))
synthetic_logs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic_logs)


@pytest.fixture(scope="session")
def synthetic():
    """make_lines, as_text, as_scalars, CONFIG, REAL."""
    return synthetic_logs


@pytest.fixture
def write(tmp_path):
    """(text or bytes, name) -> path of a new file."""

    def write(content, name="train.log"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def write_config(write):
    """A config in the form of the real one; annotations: entries of an annotations.json beside it."""

    def write_config(*, repeats=10, epochs=1, mask_weight=3.0, dice_weight=1.0, annotations=None):
        if annotations is not None:
            write(
                json.dumps([{"image": f"{n}.png", "mask": [], "text": []} for n in range(annotations)]),
                "data/vessels/annotations.json",
            )
        values = dict(repeats=repeats, epochs=epochs, mask_weight=mask_weight, dice_weight=dice_weight)
        return write(synthetic_logs.CONFIG.format(**values), "finetune.py")

    return write_config
