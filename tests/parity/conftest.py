import importlib.util
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def write_parity(tmp_path_factory):
    """family -> its deterministic checkpoint on disk, made on the fly; all share the files of SAM2."""
    spec = importlib.util.spec_from_file_location("parity_weights", HERE / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    home = tmp_path_factory.mktemp("parity")
    sam2 = weights.write_sam2(home / "sam2")
    return cache(lambda family: weights.write_checkpoint(home / family, family, sam2=sam2))  # films ask for it as well
