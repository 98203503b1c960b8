import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def tiny_segmenter(tiny_folder):
    import sa2va_lab

    return sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")


@pytest.fixture
def grey_image():
    """uint8 (60, 90): a ramp with a dark cross."""
    image = np.tile(np.linspace(60, 220, 90).astype(np.uint8), (60, 1))
    image[28:32], image[:, 43:47] = 20, 20
    return image


@pytest.fixture(autouse=True)
def same_threads():
    torch.manual_seed(0)
