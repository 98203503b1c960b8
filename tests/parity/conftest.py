import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def parity_folder(tmp_path_factory):
    """The deterministic checkpoint on disk, made on the fly."""
    spec = importlib.util.spec_from_file_location("parity_weights", HERE / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    return weights.write_checkpoint(tmp_path_factory.mktemp("parity") / "internvl")


@pytest.fixture(scope="session")
def segmenter(parity_folder):
    import sa2va_lab

    return sa2va_lab.load(parity_folder, precision="fp32", device="cpu")
