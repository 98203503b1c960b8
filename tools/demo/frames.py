"""Training pictures on disk, and batches cut from them.

Frames are rendered once at full size and kept as memory-mapped arrays: `images.npy` uint8 (N, S, S) and `masks.npy`
uint8 (N, phrases, S, S/8), bits packed along the rows. A second call continues where the first one stopped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sa2va_lab.sa2va.processing import CANVAS_MEAN, CANVAS_STD, TILE_MEAN, TILE_STD
from tools.demo.angiograms import PHRASES, make_frame
from tools.demo.tiny import CANVAS

CLEAR = 400  # pixels of the full picture: below this a thing is neither clearly there nor clearly absent
EMPTY_SHARE = 0.04  # frames from before the contrast agent, without vessels
FAR_SHARE = 0.3  # frames rendered as 800-pixel pictures look once they are shrunk to the canvas


class Frames:
    """Random access to the first `count` rendered frames of `folder`; renders what is missing.

    `first` is the seed of frame 0: training and held-out frames must not share seeds.
    """

    def __init__(self, folder: Path | str, *, count: int, first: int, size: int = CANVAS, progress: bool = True):
        self.folder, self.count, self.first, self.size = Path(folder), count, first, size
        self.folder.mkdir(parents=True, exist_ok=True)
        self.images = self._array("images.npy", (count, size, size))
        self.masks = self._array("masks.npy", (count, len(PHRASES), size, size // 8))
        self._render(progress)
        areas = [int(np.bitwise_count(self.masks[i, j]).sum()) for i in range(count) for j in range(len(PHRASES))]
        self.areas = np.array(areas).reshape(count, len(PHRASES))

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / name
        if path.is_file():
            array = np.lib.format.open_memmap(path, mode="r+")
            if len(array) >= shape[0] and array.shape[1:] == shape[1:]:
                return array
            path.unlink()
            (self.folder / "done").unlink(missing_ok=True)
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

    def _render(self, progress: bool) -> None:
        from tqdm import tqdm

        mark = self.folder / "done"
        start = int(mark.read_text()) if mark.is_file() else 0
        for i in tqdm(range(start, self.count), desc="rendering", disable=not progress or start >= self.count):
            far = (i % 10) < FAR_SHARE * 10
            frame = make_frame(
                self.first + i,
                size=self.size,
                scale_like=800 * self.size // 512 if far else self.size,
                empty_share=EMPTY_SHARE,
            )
            self.images[i] = frame.image
            for j, phrase in enumerate(PHRASES):
                self.masks[i, j] = np.packbits(frame.masks[phrase], axis=-1)
            mark.write_text(str(i + 1))

    def __len__(self) -> int:
        return self.count

    def frame(self, i: int) -> tuple[Tensor, Tensor]:
        """Grey picture float32 (1, S, S) in 0..1 and masks float32 (phrases, S, S)."""
        image = torch.from_numpy(self.images[i].astype(np.float32) / 255)[None]
        masks = torch.from_numpy(np.unpackbits(self.masks[i], axis=-1).astype(np.float32))
        return image, masks

    def presence(self, i: int) -> np.ndarray:
        """For each phrase 1 (clearly there), 0 (not there) or -1 (too little to say)."""
        clear = CLEAR * (self.size / CANVAS) ** 2
        return np.where(self.areas[i] >= clear, 1, np.where(self.areas[i] == 0, 0, -1))


def turn(image: Tensor, masks: Tensor, *, rng: np.random.Generator, upright: bool = False) -> tuple[Tensor, Tensor]:
    """A random mirror image and, unless `upright`, a random quarter turn of picture and masks alike."""
    quarters = 0 if upright else int(rng.integers(4))
    flip = bool(rng.random() < 0.5)
    both = torch.rot90(torch.cat([image, masks]), quarters, (1, 2))
    both = both.flip(2) if flip else both
    return both[:1], both[1:]


def expose(image: Tensor, *, rng: np.random.Generator) -> Tensor:
    """Another exposure of the same picture: gamma, contrast, a slanting background, noise. Stays within 0..1."""
    side = image.shape[-1]
    ramp = torch.linspace(-1, 1, side)
    slant = rng.normal(0, 0.06) * ramp[None, :, None] + rng.normal(0, 0.06) * ramp[None, None, :]
    image = image.clamp(0, 1) ** float(np.exp(rng.normal(0, 0.2)))
    middle = image.mean()
    image = (image - middle) * float(np.exp(rng.normal(0, 0.2))) + middle + float(rng.normal(0, 0.06)) + slant
    if rng.random() < 0.4:
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        image = image + noise * float(rng.uniform(0, 0.03))
    return image.clamp(0, 1)


def normalise(image: Tensor, *, tile: bool) -> Tensor:
    """Grey (1, h, w) in 0..1 -> RGB (3, h, w) as the language branch (`tile`) or the SAM branch wants it."""
    mean, std = (TILE_MEAN, TILE_STD) if tile else (CANVAS_MEAN, CANVAS_STD)
    return (image.expand(3, -1, -1) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def resize(image: Tensor, side: int) -> Tensor:
    """Bicubic with antialiasing, as PIL does it (up to its rounding to whole grey levels)."""
    if image.shape[-1] == side:
        return image
    return F.interpolate(image[None], size=(side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
