"""The frames of a DICOM as a monitor shows them: 8 bits, by its window.

Only the tags of TAGS are ever read, which say how pixels are shown; none says who the patient is. What pydicom says of
a damaged file may quote a tag, so it is neither shown nor, as long as the process lives, logged.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing, get_decoder, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.films import Film, refuse_large
from sa2va_lab.errors import LabError

logging.getLogger("pydicom").disabled = True
PALETTE = [f"{c}PaletteColorLookupTable{part}" for c in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")]
TAGS = [
    *"Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation PlanarConfiguration".split(),
    *"BitsAllocated BitsStored HighBit PixelRepresentation Modality BurnedInAnnotation".split(),
    *"RescaleSlope RescaleIntercept ModalityLUTSequence WindowCenter WindowWidth VOILUTFunction VOILUTSequence".split(),
    *"SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence FrameTime CineRate".split(),
    *("RecommendedDisplayFrameRate", *PALETTE),
]
BURNING = frozenset("US XA RF SC ES XC OT IVUS IVOCT".split())  # modalities whose machines write into the picture
BURNT = "the DICOM says that text is burnt into it: look whether a name is seen"
PERHAPS = "the DICOM does not say that no text is burnt into it: look whether a name is seen"
WORDS = {"lut": "by its VOI LUT", "window": "by its window", "bits": "as stored", "": "without a window"}
LOOKED_AT = 16  # frames whose values say what is dark and bright where no window does


def open_dicom(path: Path) -> Film:
    """The frames of a DICOM. Raises LabError for what cannot be shown."""
    try:
        with warnings.catch_warnings(action="ignore"):
            if read_file_meta_info(path).get("TransferSyntaxUID", "") == DeflatedExplicitVRLittleEndian:
                raise NotImplementedError  # the file as a whole: it may unpack to anything
            head = dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
            syntax, shown = head.file_meta.TransferSyntaxUID, str(head.PhotometricInterpretation)
            count, pixels = int(head.get("NumberOfFrames") or 1), int(head.Rows) * int(head.Columns)
            bits = int(head.BitsAllocated), int(head.BitsStored)
            rate = float(head.get("RecommendedDisplayFrameRate") or head.get("CineRate") or 0)
            rate = rate or (1000 / float(head.FrameTime) if head.get("FrameTime") else None)  # milliseconds
            modality, burnt = str(head.get("Modality")), str(head.get("BurnedInAnnotation"))
            decoder = get_decoder(syntax)
    except NotImplementedError:
        raise LabError(f"{path} is compressed in a way that is not read; export it uncompressed") from None
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise LabError(f"{path} is no DICOM with pictures ({type(error).__name__}); export it again") from None
    if not decoder.is_available:
        form = decoder.UID.name
        raise LabError(f'{path} is compressed as {form}, which needs a decoder: pip install "pylibjpeg[all]"')
    if shown[:3] not in ("MON", "PAL", "RGB", "YBR") or bits[0] not in (8, 16) or not 8 <= bits[1] <= bits[0]:
        raise LabError(f"{path} has {bits[1]} bits a pixel or other values; expected 8 to 16 of grey, RGB or YBR")
    refuse_large(path, pixels)
    suspect = burnt == "YES" or (burnt != "NO" and modality in BURNING)
    noted = [Defect("burnt_in_text", BURNT if burnt == "YES" else PERHAPS)] if suspect else []
    reason = f"DICOM of {count} frames, {bits[1]} bits, {shown}, {WORDS[_find_window(_settle(head, 0))]}"
    return Film(path, reason, count, (path,), lambda: _decode(path, head, count), rate, noted)


def _decode(path: Path, head, count: int) -> Iterator:
    def read(index: int) -> np.ndarray:
        with warnings.catch_warnings(action="ignore"):
            return pixel_array(handle, index=index)

    with open(path, "rb") as handle:
        span = None
        for index in range(count):
            try:
                if span is None:
                    span = _find_span(head, read, count)
                yield _show(read(index), _settle(head, index), span)
            except Exception as error:  # pydicom raises many kinds for a damaged file
                yield error


def _settle(head, index: int):
    """The tags as they hold for one frame: its functional groups, where a film has such, come before the film's own."""
    told = Dataset()
    told.update(head)
    groups = [*head.get("SharedFunctionalGroupsSequence", ())]
    groups += head.get("PerFrameFunctionalGroupsSequence", ())[index : index + 1]
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in group.get(name, ())[:1]:
                told.update(item)
    return told


def _find_window(told) -> str:
    """What says which values are black and white: "lut", "window", "bits" where there are 8 of them, or ""."""
    if told.get("VOILUTSequence"):
        return "lut"
    width, centre = told.get("WindowWidth"), told.get("WindowCenter")
    width = width[0] if hasattr(width, "__len__") else width
    if centre is not None and width is not None and width >= 1:
        return "window"
    return "bits" if told.BitsStored == 8 and not told.PixelRepresentation else ""


def _weigh(pixels: np.ndarray, told) -> tuple[np.ndarray, float, float]:
    """Grey values as they are meant, and which of them are black and white."""
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        values, by = apply_modality_lut(pixels, told), _find_window(told)
        if by == "lut":
            # not pydicom's apply_voi, which counts the entries of 8-bit tables in 8 bits
            item = told.VOILUTSequence[0]
            _, first, depth = item.LUTDescriptor
            words = item["LUTData"].VR == "OW"
            table = np.frombuffer(item.LUTData, "<u2") if words else np.asarray(item.LUTData)
            return table[np.clip(values - first, 0, len(table) - 1).astype(int)], 0, 2**depth - 1
        if by == "window":
            return apply_windowing(values, told), *apply_windowing(np.array([-1e9, 1e9]), told)
        ends = apply_modality_lut(np.array([0, 255]), told) if by == "bits" else values
        return values, ends.min(), ends.max()


def _find_span(head, read: Callable[[int], np.ndarray], count: int) -> tuple[float, float] | None:
    """The darkest and brightest value of some frames, spread over the film, where nothing says what black and white
    are: each frame's own would make the film flicker."""
    if head.SamplesPerPixel > 1 or _find_window(_settle(head, 0)) or head.PhotometricInterpretation == "PALETTE COLOR":
        return ()
    ends = []
    for place in range(0, count, -(-count // LOOKED_AT)):
        with suppress(Exception):  # told when its turn comes
            ends.append(_weigh(read(place), _settle(head, place))[1:])
    return min(low for low, _ in ends), max(high for _, high in ends)


def _show(pixels: np.ndarray, told, span: tuple) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) of one frame's stored values. span: values that are black and white, or ()."""
    if told.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, told)
    if pixels.ndim == 3:
        deep = 8 if told.PhotometricInterpretation == "PALETTE COLOR" else told.BitsStored - 8
        return pixels if pixels.dtype == np.uint8 else (pixels >> deep).astype(np.uint8)
    values, low, high = _weigh(pixels, told)
    low, high = span or (low, high)
    grey = np.clip((values - float(low)) * (255 / max(high - low, 1e-9)), 0, 255).round().astype(np.uint8)
    return 255 - grey if told.PhotometricInterpretation == "MONOCHROME1" else grey
