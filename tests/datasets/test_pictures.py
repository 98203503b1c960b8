"""Image files of every kind: whole, damaged, deep, turned, talkative; each is a named problem, none is a crash."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.datasets.export import export_dataset
from sa2va_lab.datasets.pictures import find_writing, look, to_eight_bits

SHADES = np.arange(600, dtype=np.uint8).reshape(20, 30) % 200


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def grey(mode="L"):
    return Image.fromarray(SHADES).convert(mode)


def exif(**tags):
    made = Image.Exif()
    for tag, value in tags.items():
        made[int(tag[1:], 16)] = value
    return made


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def text():
    made = PngImagePlugin.PngInfo()
    made.add_text("Comment", "INVENTED-P01")
    return made


PNG = encode(grey(), "png")
JPEG = encode(grey(), "jpeg")
HEADER = PNG[:8]
FILES = {
    "empty": (b"", "unreadable_image"),
    "no picture": (b"hello", "unreadable_image"),
    "header only": (HEADER, "unreadable_image"),
    "truncated png": (PNG[: len(PNG) // 2], "unreadable_image"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "unreadable_image"),
    "flipped bits": (PNG[:60] + bytes(255 - byte for byte in PNG[60:90]) + PNG[90:], "unreadable_image"),
    "no width": (HEADER + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 0, 0, 0, 0)), "unreadable_image"),
    "a bomb": (HEADER + chunk(b"IHDR", struct.pack(">IIBBBBB", 99999, 99999, 8, 0, 0, 0, 0)), "unreadable_image"),
    "html": (b"<!doctype html><title>Not found</title>", "unreadable_image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unreadable_image"),
    "16 bits png": (encode(Image.fromarray(SHADES.astype(np.uint16) * 300), "png"), "image_16bit"),
    "32 bits tiff": (encode(Image.fromarray(SHADES.astype(np.int32)), "tiff"), "image_16bit"),
    "float tiff": (encode(Image.fromarray(SHADES.astype(np.float32)), "tiff"), "image_16bit"),
    "nan tiff": (encode(Image.fromarray(np.where(SHADES > 9, SHADES, np.nan).astype("f")), "tiff"), "image_16bit"),
    "cmyk jpeg": (encode(grey("CMYK"), "jpeg"), "image_cmyk"),
    "rgba": (encode(grey("RGBA"), "png"), "image_transparent"),
    "turned jpeg": (encode(grey(), "jpeg", exif=exif(x0112=6)), "image_rotated"),
    "mirrored png": (encode(grey(), "png", exif=exif(x0112=2)), "image_rotated"),
    "animated": (encode(grey(), "gif", save_all=True, append_images=[grey().rotate(180)]), "image_animated"),
    "black": (encode(Image.new("L", (9, 7)), "png"), "image_blank"),
    "one pixel": (encode(Image.new("L", (1, 1)), "png"), "image_blank"),
    "png text": (encode(grey(), "png", pnginfo=text()), "private_metadata"),
    "jpeg comment": (encode(grey(), "jpeg", comment=b"INVENTED-P01"), "private_metadata"),
    "exif artist": (encode(grey(), "jpeg", exif=exif(x013B="INVENTED-P01")), "private_metadata"),
    "tiff description": (encode(grey(), "tiff", description="INVENTED-P01"), "private_metadata"),
    "gif comment": (encode(grey(), "gif", comment=b"INVENTED-P01"), "private_metadata"),
    "webp exif": (encode(grey("RGB"), "webp", exif=exif(x010E="INVENTED-P01")), "private_metadata"),
}
GOOD = {
    "png": PNG,
    "jpeg": JPEG,
    "rgb jpeg": encode(grey("RGB"), "jpeg"),
    "two values": encode(grey("1"), "png"),
    "palette": encode(grey("P"), "png"),
    "tiff": encode(grey(), "tiff"),
    "bmp": encode(grey(), "bmp"),
    "webp": encode(grey("RGB"), "webp"),
    "progressive": encode(grey(), "jpeg", progressive=True, dpi=(72, 72)),
    "exif upright": encode(grey(), "jpeg", exif=exif(x0112=1)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_defect_of_a_file_is_named(tmp_path, name):
    content, kind = FILES[name]
    (tmp_path / "INVENTED.png").write_bytes(content)
    pixels, defects = look(tmp_path / "INVENTED.png")
    assert kind in {defect.kind for defect in defects}
    assert (pixels is None) == (kind == "unreadable_image")
    assert not any("INVENTED" in defect.text for defect in defects)


@pytest.mark.parametrize("name", GOOD)
def test_ordinary_files_have_no_defect(tmp_path, name):
    (tmp_path / "image.png").write_bytes(GOOD[name])
    pixels, defects = look(tmp_path / "image.png")
    assert defects == []
    assert pixels.shape == (20, 30)


@pytest.mark.parametrize("name", [*FILES, *GOOD])
def test_a_data_set_with_any_file_is_audited_and_its_copy_is_bare_pixels(make_folder, square, tmp_path, name):
    root = make_folder(
        images=("a.png", "b.png"),
        annotations=[{"image": n, "mask": [[square]], "text": ["x"]} for n in ("a.png", "b.png")],
    )
    (root / "images" / "a.png").write_bytes(FILES[name][0] if name in FILES else GOOD[name])
    dataset = open_dataset(root)
    audit = audit_dataset(dataset)
    export_dataset(dataset, tmp_path / "copy")
    path = tmp_path / "copy" / "images" / "P01-V1-F001.png"
    assert path.exists() == ("P01-V1-F001" not in audit.by_kind().get("unreadable_image", []))
    if path.exists():
        with Image.open(path) as copy:
            assert copy.mode in ("L", "RGB")
            assert not copy.info
        assert b"INVENTED" not in path.read_bytes()


def test_deep_pictures_are_scaled_and_not_cut_off():
    deep = np.linspace(1000, 4000, 256).reshape(16, 16).astype(np.uint16)
    shallow = np.asarray(to_eight_bits(Image.fromarray(deep)))
    assert (shallow.min(), shallow.max()) == (0, 255)
    assert len(np.unique(shallow)) == 256


@pytest.mark.parametrize("place", [(10, 10), (250, 480), (10, 490)])
def test_writing_is_found_on_an_angiogram_and_nowhere_else(root, place):
    for path in sorted((root / "data" / "demo" / "angiograms" / "images").iterdir())[::12]:
        picture = Image.open(path).convert("L")
        assert find_writing(np.asarray(picture)) == 0
        ImageDraw.Draw(picture).text(place, "INVENTED 0001 1900-01-01", fill=255, font_size=14)
        assert find_writing(np.asarray(picture)) >= 1


def test_no_writing_on_real_retinas(chasedb1):
    for sample in open_dataset(chasedb1):
        assert look(sample.image)[1] == []
