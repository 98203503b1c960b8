"""One image file, looked at closely: is it whole, is it what a model expects, does it say more than it should."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.files import find_film, open_image

EXIF_ORIENTATION = 0x0112
# texts about no person, and those that are counted otherwise; numbers in a file's head are no texts
HARMLESS = {"icc_profile", "transparency", "compression", "version", "exif", "xmp"}
BRIGHT = 245  # burnt-in text is drawn in the brightest value there is
MARKS = 5  # so many bright marks in one row look like writing


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) as a person sees it, EXIF orientation applied; reads the file's header only."""
    with open_image(path) as opened:
        width, height = opened.size
        # Pillow swaps the sides of a TIFF itself. PngImageFile.getexif would decode the whole picture.
        turned = opened.format != "TIFF" and Image.Image.getexif(opened).get(EXIF_ORIENTATION) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def note_frames(path: Path) -> list[Defect]:
    """That a file is no image but a film; reads its headers only."""
    film = find_film(path)
    text = f"it is {film}, no image: predict it as a film, or save the right one of its pictures alone"
    return [Defect("image_animated", text)] if film else []


def look(path: Path) -> tuple[np.ndarray | None, list[Defect]]:
    """The upright picture in grey, uint8 (H, W), and what is wrong with the file; None where it cannot be read."""
    try:
        # a truncated EXIF and the like: the pixels decide
        with warnings.catch_warnings(action="ignore"), open_image(path) as opened:
            # Pillow turns a TIFF while loading and forgets that it did; a PNG may say it only after its pixels
            before = Image.Image.getexif(opened).get(EXIF_ORIENTATION) if opened.format == "TIFF" else None
            opened.load()
            mode, told = opened.mode, _private_texts(opened)
            turned = (before or Image.Image.getexif(opened).get(EXIF_ORIENTATION, 1)) not in (0, 1)
            upright = ImageOps.exif_transpose(opened)
            grey = to_eight_bits(upright).convert("L")
    except Exception as error:  # Pillow raises many kinds for a damaged file
        said = str(error).replace(str(path), "the file").replace(path.name, "the file")
        return None, [Defect("unreadable_image", f"its image cannot be read ({type(error).__name__}: {said})")]
    pixels = np.asarray(grey)
    rows = find_writing(pixels)
    deep, clear = mode.startswith(("I", "F")), mode in ("LA", "PA", "RGBA", "La", "RGBa")
    found = [
        (deep, "image_16bit", f"its image has more than 8 bits a pixel (mode {mode})"),
        (mode == "CMYK", "image_cmyk", "its image is in CMYK colours"),
        (clear, "image_transparent", f"its image has transparency (mode {mode})"),
        (turned, "image_rotated", "its EXIF says that it is to be turned or mirrored"),
        (told, "private_metadata", f"its file holds {told} texts beside the pixels"),
        (pixels.min() == pixels.max(), "image_blank", "its image has one grey value everywhere"),
        (rows, "burnt_in_text", f"{rows} rows of bright marks that may be writing: look at it"),
    ]
    return pixels, note_frames(path) + [Defect(kind, text) for wrong, kind, text in found if wrong]


def to_eight_bits(image):
    """A PIL image with 8 bits a channel: deeper ones are scaled by their own darkest and brightest value."""
    if not image.mode.startswith(("I", "F")):
        return image
    deep = np.asarray(image, np.float64)
    low, high = float(np.nanmin(deep)), float(np.nanmax(deep))
    scaled = (deep - low) * (255 / (high - low)) if high > low else np.zeros_like(deep)
    return Image.fromarray(np.nan_to_num(scaled).round().astype(np.uint8))


def find_writing(pixels: np.ndarray) -> int:
    """How many rows of small bright marks, all about as high as each other, stand in uint8 (H, W)."""
    bright = pixels >= BRIGHT
    if not bright.any() or bright.mean() > 0.2:  # text covers little; a bright picture is no text
        return 0
    labels, count = ndimage.label(bright, structure=np.ones((3, 3)))
    if not MARKS <= count <= 5000:
        return 0
    boxes = np.array([[b[0].start, b[0].stop, b[1].start, b[1].stop] for b in ndimage.find_objects(labels)])
    area = np.bincount(labels.ravel())[1:]
    high, wide = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    most = max(pixels.shape[0] // 12, 12)
    marks = (high >= 5) & (high <= most) & (wide <= 2 * most) & (area <= 0.9 * high * wide) | (
        (high >= 5) & (high <= most) & (wide <= high // 2)  # letters such as I, digits such as 1
    )
    boxes, high = boxes[marks], high[marks]
    rows = 0
    while len(boxes) >= MARKS:
        middle, size = boxes[0, :2].mean(), high[0]
        same = (np.abs(boxes[:, :2].mean(1) - middle) <= 0.4 * size) & (np.abs(high - size) <= 0.35 * size)
        left = np.sort(boxes[same, 2])
        close = np.diff(left) <= 3 * size
        longest = max((len(run) for run in "".join("1" if near else "0" for near in close).split("0")), default=0)
        rows += longest + 1 >= MARKS
        boxes, high = boxes[~same], high[~same]
    return rows


def _private_texts(opened) -> int:
    """How many texts a file holds that may be about a person: EXIF, PNG and GIF text, XMP."""
    said = {key for key, value in opened.info.items() if isinstance(value, str | bytes | dict)}
    texts = [key for key in said if str(key).lower() not in HARMLESS]
    texts += [key for key, value in getattr(opened, "text", {}).items() if key not in texts and value]
    exif = Image.Image.getexif(opened)
    told = [tag for tag, value in exif.items() if isinstance(value, (str, bytes)) and str(value).strip("\0 b'")]
    baseline = opened.format == "TIFF"  # its own structure is kept in tags; only descriptions and names are texts
    told = [tag for tag in told if not baseline or tag in (270, 305, 306, 315, 316, 33432, 700)]
    return len(texts) + len(told) + ("xmp" in opened.info and not baseline)
