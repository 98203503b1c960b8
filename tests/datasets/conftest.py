"""Small data folders, made as the formats say."""

import json

import numpy as np
import pytest
from PIL import Image

SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]
KEY = {"key": f"{12:064x}", "numbers": {}}  # a key that numbers a.png, b.png, c.png and d.png in this order


@pytest.fixture
def square():
    """A 3x3 pixel square as a flat polygon."""
    return list(SQUARE)


@pytest.fixture
def make_folder(tmp_path):
    """Writes a data folder: images by name (width, height), annotations, and tables such as splits=..."""

    def make(images=("a.png", "b.png", "c.png"), annotations=None, *, size=(8, 6), below="images", **tables):
        root = tmp_path / "data"
        (root / below).mkdir(parents=True, exist_ok=True)
        (root / ".sa2va-lab-key.json").write_text(json.dumps(KEY))
        for number, name in enumerate(images):
            path = root / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((size[1], size[0]), 20 + number, np.uint8)).save(path)
        if annotations is not None:
            tables["annotations"] = annotations
        for name, table in tables.items():
            (root / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
        return root

    return make


@pytest.fixture
def make_masks(make_folder):
    """A mask folder: {name: bool or uint8 (H, W)} of the first and of the second annotator."""

    def make(first, second=None, images=None):
        root = make_folder(images or tuple(first))
        for folder, masks in (("masks", first), ("masks_obs2", second or {})):
            if masks:
                (root / folder).mkdir()
            for name, mask in masks.items():
                Image.fromarray(np.asarray(mask, np.uint8)).save(root / folder / name)
        return root

    return make
