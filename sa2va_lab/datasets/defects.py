"""What can be wrong with images and annotations: the kinds, what training makes of each, what a repair does."""

from __future__ import annotations

from dataclasses import dataclass

from sa2va_lab.errors import LabError


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong. kind: a key of KINDS. text: for people, in words, without file names."""

    kind: str
    text: str


class Flaw(LabError):
    """A mask file is no truth. kind: as of a Defect. mask: bool (H, W), what can be told of it all the same."""

    def __init__(self, kind: str, text: str, mask=None):
        super().__init__(text)
        self.kind, self.mask = kind, mask


@dataclass(frozen=True)
class Account:
    """Of `met` things that a reader found in files so many were `read`; `lost` ones are defects."""

    things: str
    met: int
    read: int
    lost: int

    @property
    def closed(self) -> bool:
        """Whether every one is accounted for."""
        return self.met == self.read + self.lost

    def __str__(self) -> str:
        return f"{self.met} {self.things}: {self.read} read" + (f", {self.lost} not" if self.lost else "")


@dataclass(frozen=True)
class Kind:
    """title: what it is, for a heading. training: what the official Sa2VA loader does with it.

    repair: what the repaired copy does about it; empty where only a person can.
    """

    title: str
    training: str
    repair: str = ""


_SKIPPED = "The loader skips the image and draws another one in its place."
_STOPS = "The loader stops with an exception."
_UNSEEN = "Images that no entry names are never trained on."

KINDS = {
    # the files
    "missing_image": Kind("annotated, but the image file is missing", _SKIPPED, "its entry is left out"),
    "unreadable_image": Kind("damaged or truncated image file", _SKIPPED, "the image is left out"),
    "unannotated": Kind("nobody annotated it", _UNSEEN),
    "orphan_file": Kind("a mask or annotation file that belongs to no image", "Nothing: no loader looks at it."),
    "unaccounted": Kind("annotations or files of which nobody can say what became", "Not known."),
    "unreadable_annotation": Kind("an annotation file that cannot be read", _UNSEEN),
    # the images
    "image_16bit": Kind(
        "more than 8 bits a pixel",
        "Pillow's conversion to RGB cuts values off at 255: most of a 16-bit picture turns white.",
        "scaled to 8 bits by its own darkest and brightest value",
    ),
    "image_cmyk": Kind("CMYK colours", "Converted to RGB; colours may shift.", "converted to RGB"),
    "image_transparent": Kind(
        "an image with transparency",
        "The transparency is dropped: what it hid is seen.",
        "the transparency is dropped, as in training",
    ),
    "image_rotated": Kind(
        "EXIF turns it",
        "The loader ignores EXIF: outlines drawn on the upright picture land on a turned one.",
        "turned upright",
    ),
    "image_animated": Kind("more than one picture in a file", "Only the first picture is seen.", "the first is kept"),
    "image_blank": Kind("one grey value everywhere", "It teaches that masks have nothing to do with the picture."),
    "burnt_in_text": Kind(
        "rows of bright marks near an edge: perhaps burnt-in text, perhaps a name",
        "The marks are learnt with the picture.",
    ),
    "private_metadata": Kind(
        "texts inside the file (EXIF, PNG text, paths, a second copy of the image)",
        "Not read. They leave with the file, though, when it is shared.",
        "dropped: the copy holds pixels only",
    ),
    "near_duplicate": Kind(
        "nearly the same picture under two patients",
        "With one in training and one in a test, the test is on what was trained.",
    ),
    # the annotation's shape
    "wrong_type": Kind("a part of the annotation is not what it should be", _STOPS, "the part is left out"),
    "flat_nesting": Kind(
        "flat polygons (object > coordinates) instead of object > polygons",
        "The official loader takes each number for a polygon and stops; loaders that were changed to accept this "
        "nesting often keep the first polygon only.",
        "nested as the official format has it",
    ),
    "text_type": Kind(
        "`text` is not a list of phrases",
        "The loader takes one letter as the phrase of each object (text[0] of a string), or stops.",
        "a phrase for each object; objects without a phrase are left out",
    ),
    "text_length": Kind(
        "`text` and `mask` differ in length",
        "With fewer phrases than objects the official loader stops with an IndexError; loaders that pair them up "
        "train on the first objects only and lose the other branches without a word.",
        "as many phrases as objects; objects without a phrase are left out",
    ),
    "duplicate_entry": Kind(
        "annotated more than once",
        "The image is trained on twice, each time with a part of its ground truth.",
        "one entry with all objects",
    ),
    "duplicate_annotation": Kind(
        "the same outline twice",
        "Within one object its pixels sum to 2, a target that no mask can reach.",
        "kept once",
    ),
    "copied_annotation": Kind(
        "two images with the very same outlines", "At least one of them is trained on another image's ground truth."
    ),
    # the outlines
    "empty_object": Kind("an object without a polygon", "Trained on as an empty mask for its phrase.", "left out"),
    "few_points": Kind(
        "fewer than three points",
        "The loader stops at one or two points: pycocotools takes four numbers for a box.",
        "left out",
    ),
    "bad_coordinates": Kind("coordinates that are no finite numbers, or no pairs", _STOPS, "left out"),
    "not_an_area": Kind("a point, line or other shape that encloses nothing", "Not part of a mask.", "left out"),
    "zero_area": Kind("an outline that covers no pixel", "Adds nothing to the mask.", "left out"),
    "self_intersection": Kind(
        "an outline that crosses itself",
        "Where it winds around twice the rasteriser leaves a hole.",
        "drawn, and outlined anew",
    ),
    "out_of_bounds": Kind(
        "outlines that leave the image",
        "What lies outside is cut off; if the image was resized, the rest lies in the wrong place.",
        "cut off at the border of the image",
    ),
    "overlap": Kind(
        "polygons of one object that overlap",
        "The loader adds them up: pixels of value 2, a target that no mask can reach.",
        "their union, outlined anew",
    ),
    "size_mismatch": Kind(
        "annotated at another size than the image has",
        "The loader never scales: the mask is shifted, cut off, or of the wrong size.",
        "coordinates scaled to the image",
    ),
    "size_suspected": Kind(
        "outlines that leave the image but would fit another size of this data set",
        "The loader never scales: the mask is shifted and cut off.",
    ),
    "unknown_truth": Kind("something was drawn, and nothing of it is usable", _STOPS),
    # masks as files
    "mask_unreadable": Kind("a mask file that cannot be read or is not a mask", "Not read by the official loader."),
    "unnamed_value": Kind("a mask holds a value that labels.json does not name", "Not read by the official loader."),
    "inverted_suspected": Kind(
        "most of the image is foreground: is the mask inverted, or a field of view?",
        "Trained on as it is: the model learns the background.",
    ),
    "mask_size": Kind("a mask of another size than its image", "Not read by the official loader."),
    "truth_disagrees": Kind(
        "the mask file and the outlines of the same image disagree (Dice below 0.95)",
        "Training sees the outlines, an evaluation perhaps the file.",
    ),
    # the parts
    "split_near_duplicate": Kind(
        "nearly the same picture in two splits", "The test is on what was trained: its numbers are too good."
    ),
}
