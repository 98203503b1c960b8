"""Which patient and which video an image is of, and ids that name nobody: each by number, the same every time.

Frames of one patient resemble each other, so nothing may count them as independent and no split may part them. Who an
image belongs to is said by a table, by a pattern, or by the file names.

File names carry patients' names and hospital numbers, so nothing beyond this room sees them. Patients are numbered in
the order of a keyed hash, so key and grouping decide the ids. The key lies in a file beside the data, readable by its
owner only, with the id of each image by a hash of its name: images that are added get the next numbers.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import NamedTuple

from sa2va_lab.datasets.folders import Folder, as_table
from sa2va_lab.datasets.naming import read_place, split_of
from sa2va_lab.errors import LabError
from sa2va_lab.files import read_json, write_json

KEY_FILE = ".sa2va-lab-key.json"
ALONE = "alone: "
Entries = dict[str, dict]  # {hash of an image's name: {"home": hashes of its patient and video, "id", "stated"}}
PSEUDONYM = re.compile(r"P(\d{2,6})-V(\d{1,6})-F(\d{3,9})")
# Tried in this order on the name without its ending; the first that fits every image is used, and the reason shows it.
PATTERNS = {
    "patient_V#_F#": r"^(?P<patient>.+?)[_\-. ]+[Vv](?:ideo)?(?P<video>\d+)[_\-. ]+[Ff](?:rame)?\d+$",
    "patient_video_frame": r"^(?P<patient>.*[^\W\d_].*?)[_\- ]+(?P<video>\d{1,3})[_\- ]+\d{1,5}$",
    "video_frame": r"^(?P<patient>.*[^\W\d_].*?)[_\- ]+(?:[Ff]rame)?\d{1,5}$",
}


class Pseudonym(NamedTuple):
    """Numbers from 1, in no order that says anything about the patients; samples are sorted by them."""

    patient: int
    video: int
    frame: int

    @property
    def id(self) -> str:
        """Such as P07-V2-F011."""
        return f"{self.sequence}-F{self.frame:03d}"

    @property
    def group(self) -> str:
        """The patient, such as P07."""
        return f"P{self.patient:02d}"

    @property
    def sequence(self) -> str:
        """The video, such as P07-V2."""
        return f"{self.group}-V{self.video}"


def parse_id(text: str) -> Pseudonym:
    """What an id says; ValueError for a text that is none."""
    match = PSEUDONYM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:20]!r} is not an id")
    return Pseudonym(*map(int, match.groups()))


def name_images(root: Path, places: Mapping[str, tuple[str, str]], *, stated: bool) -> tuple[dict[str, Pseudonym], str]:
    """A pseudonym for every image, and what they stand on, in words.

    places: image name -> (patient, video); a patient that begins with ALONE is unknown. stated: whether somebody said
    so, rather than the file names; an image that is unknown or not stated keeps the place that was stated last, so that
    a pattern for the patients need be given only once. Names that are pseudonyms already are kept. Otherwise ids
    follow from the key file in `root`, which is made (mode 600) and grows with the data; what it holds of another
    grouping counts for nothing. Where none may lie (the folder cannot be written to, or is under an outputs folder)
    the names themselves are the key: the same ids for the same images, but other ones once an image is added.
    """
    kept = _keep_pseudonyms(places)
    if kept is not None:
        return kept, "the file names are pseudonyms already"
    why_not = _refuses_key(root)
    if why_not:
        names = sorted(places)
        key = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).digest()
        found, _ = _number(places, key, {}, stated=stated)
        return found, f"numbers by these {len(names)} names alone, no key file ({why_not})"
    try:
        with _only_one(root):
            key, recorded = _load(root, places)
            found, entries = _number(places, key, recorded, stated=stated)
            if entries != recorded:
                content = {"about": "key of the pseudonyms: keep it private", "key": key.hex(), "images": entries}
                write_json(root / KEY_FILE, content, mode=0o600)
    except OSError as error:
        raise LabError(f"{root / KEY_FILE} cannot be used ({error.strerror}); correct its permissions") from error
    return found, f"numbers by the key file {KEY_FILE} beside the data"


def natural(text: str) -> list:
    """A sort key by which frame 10 follows frame 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _keep_pseudonyms(places: Mapping[str, tuple[str, str]]) -> dict[str, Pseudonym] | None:
    """The names as they are, if all are pseudonyms, all differ and none contradicts what the data says of patients."""
    try:
        found = {name: parse_id(PurePath(name).stem) for name in places}
    except ValueError:
        return None
    said = {(places[name][0], pseudonym.patient) for name, pseudonym in found.items()}
    patients, numbers = ({pair[place] for pair in said} for place in (0, 1))
    alone = all(name.startswith(ALONE) for name in patients)
    whole = len({pseudonym.id for pseudonym in found.values()}) == len(found)
    return found if whole and (alone or len(patients) == len(numbers) == len(said)) else None


def _digest(key: bytes, *words: str) -> str:
    return hmac.new(key, "\0".join(words).encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:24]


def _home(key: bytes, patient: str, video: str) -> str:
    """The hashes of a patient and of one of the patient's videos."""
    return f"{_digest(key, 'patient', patient)}/{_digest(key, 'video', patient, video)[:12]}"


def _number(
    places: Mapping[str, tuple[str, str]], key: bytes, recorded: Entries, *, stated: bool
) -> tuple[dict[str, Pseudonym], Entries]:
    """Ids for all images, and `recorded` with them in it.

    The recorded ones stay unless an image has moved to another patient or video since: then all are numbered anew.
    """
    hashes = {name: _digest(key, "image", name) for name in places}
    homes, sure = {}, {}
    for name, (patient, video) in places.items():
        homes[name], sure[name] = _home(key, patient, video), stated and not patient.startswith(ALONE)
        before = recorded.get(hashes[name])
        if before and before["stated"] and not sure[name]:
            homes[name], sure[name] = before["home"], True
    moved = any(hashes[name] in recorded and recorded[hashes[name]]["home"] != home for name, home in homes.items())
    recorded = {} if moved else dict(recorded)
    numbers: dict[str, int] = {}  # of patients and videos, by their hashes
    last: Counter[str] = Counter()  # within everything (""), a patient, a video
    for entry in recorded.values():
        home, patient, pseudonym = entry["home"], entry["home"].split("/")[0], parse_id(entry["id"])
        numbers |= {patient: pseudonym.patient, home: pseudonym.video}
        last |= Counter({"": pseudonym.patient, patient: pseudonym.video, home: pseudonym.frame})  # the larger ones
    for patient in sorted({home.split("/")[0] for home in homes.values()} - numbers.keys()):
        last[""] += 1  # in the order of the hashes, which is not that of the alphabet
        numbers[patient] = last[""]
    entries = {}
    for name in sorted(places, key=lambda name: (natural(places[name][1]), natural(name))):
        home, patient = homes[name], homes[name].split("/")[0]
        if home not in numbers:
            last[patient] += 1
            numbers[home] = last[patient]
        entries[name] = recorded.get(hashes[name])
        if entries[name] is None:
            last[home] += 1
            entries[name] = {"home": home, "id": Pseudonym(numbers[patient], numbers[home], last[home]).id}
        recorded[hashes[name]] = entries[name] = entries[name] | {"stated": sure[name]}
    return {name: parse_id(entry["id"]) for name, entry in entries.items()}, recorded


def _refuses_key(root: Path) -> str | None:
    """Why no key file may lie in a folder; None where it may."""
    real = Path(os.path.realpath(root))
    if "outputs" in real.parts:
        return "the data lies under an outputs folder"
    # the superuser may write anywhere, and should not
    writable = os.access(real, os.W_OK) and real.stat().st_mode & 0o222
    return None if writable or (real / KEY_FILE).is_file() else "the folder is read-only"


@contextmanager
def _only_one(root: Path) -> Iterator[None]:
    handle = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system may know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield
    finally:
        os.close(handle)


def _load(root: Path, places: Mapping[str, tuple[str, str]]) -> tuple[bytes, Entries]:
    """The key, a new one where there is no key file, and what is recorded of images by the hashes of their names."""
    path = root / KEY_FILE
    if not os.path.lexists(path):
        return secrets.token_bytes(32), {}
    if path.is_symlink():
        raise LabError(f"{path} is a symbolic link; expected the key file itself, copy it there")
    if path.stat().st_mode & 0o077 and os.access(path, os.W_OK):
        path.chmod(0o600)
    try:
        content = read_json(path)
        key = bytes.fromhex(content["key"])
        if len(key) < 16:
            raise ValueError("its key is too short")
        if "numbers" in content:
            return key, _translate(content["numbers"], key, places)
        for entry in content["images"].values():
            parse_id(entry["id"])
            if len(entry["home"].split("/")) != 2 or not isinstance(entry["stated"], bool):
                raise ValueError("an image of it is damaged")
        return key, content["images"]
    except (LabError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{path} is not a key file ({error})"
        raise LabError(f"{why}; restore it, or delete it to get new ids that fit no former run") from error


def _translate(numbers: dict, key: bytes, places: Mapping[str, tuple[str, str]]) -> Entries:
    """What the first form of the file says of these images: a table of numbers for patients, videos and frames each by
    chained hashes, and one of the images whose place was stated."""
    patients, videos, frames, images = (
        dict(numbers.get(level, {})) for level in ("patients", "videos", "frames", "images")
    )
    levels = [*patients.values(), *videos.values(), *frames.values(), *(n for place in images.values() for n in place)]
    if not all(type(number) is int and number > 0 for number in levels):
        raise ValueError("its numbers are damaged")
    entries: Entries = {}
    homes = {(patients[home.split("/")[0]], number): home for home, number in videos.items()}
    for name, (patient, video) in places.items():
        home, image = _home(key, patient, video), _digest(key, "image", name)
        frame = f"{home}/{_digest(key, 'frame', patient, video, name)[:12]}"
        if image in images:
            pseudonym = Pseudonym(*images[image])
            entries[image] = {"home": homes[pseudonym[:2]], "id": pseudonym.id, "stated": True}
        elif frame in frames:
            pseudonym = Pseudonym(patients[home.split("/")[0]], videos[home], frames[frame])
            entries[image] = {"home": home, "id": pseudonym.id, "stated": False}
    return entries


def find_groups(
    folder: Folder, images: Sequence[str], pattern: str | None
) -> tuple[dict[str, tuple[str, str]], str, bool]:
    """(patient, video) by image name, where that comes from in words without file names, and whether it was stated.

    pattern: a regular expression with one capture group (the patient), or with the groups `patient` and `video` by
    name. It overrides groups.json ({image: patient} or {image: {"patient": ..., "video": ...}}), which overrides the
    PATTERNS. Where nothing is known every image is a patient of its own.
    """
    if pattern is not None:
        places = _by_pattern(images, pattern)
        return places, f"{_count(places)} groups by the pattern given", True
    table = folder.table("groups.json")
    if table is not None:
        return *_by_table(folder, images, table), True
    by_folder, patterns = _by_folder(images), list(PATTERNS.items())
    # where folders part the images, only names that say patient, video and frame say more
    for name, expression in patterns[:1] if _count(by_folder) > 1 else patterns:
        found = {image: re.search(expression, PurePath(image).stem) for image in images}
        places = {image: _place(match) for image, match in found.items() if match}
        patients = _count(places)
        if len(places) == len(images) > patients and (patients > 1 or name == "patient_V#_F#"):
            return places, f'{patients} groups by the file names, read as "{name}"', False
    if _count(by_folder) > 1:
        return by_folder, f"{_count(by_folder)} groups by the folders that the images lie in", False
    alone = {image: (ALONE + image, "") for image in images}
    return alone, "each image a group of its own (no groups.json, and the file names show none)", False


def _by_folder(images: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(patient, video) of the images where all lie in folders that are no splits; else nothing."""
    dirs = {image: [each for each in read_place(image).dirs if not split_of(each, whole=True)] for image in images}
    return {image: (said[0], "/".join(said[1:])) for image, said in dirs.items()} if all(dirs.values()) else {}


def _by_pattern(images: Sequence[str], pattern: str) -> dict[str, tuple[str, str]]:
    try:
        compiled = re.compile(pattern)
        named = set(compiled.groupindex)
        if named - {"video"} != {"patient"} and (named or compiled.groups != 1):
            raise re.error(f"it has {compiled.groups} capture groups")
    except re.error as error:
        expected = "expected a regular expression with one capture group, or (?P<patient>...) and (?P<video>...)"
        raise LabError(f"groups is {pattern!r} ({error}); {expected}") from None
    places = {}
    for number, image in enumerate(images, 1):
        match = compiled.search(image)
        if match is None or _place(match)[0] is None:
            which = f"image {number} of {len(images)}"
            raise LabError(f"groups is {pattern!r}, which finds nothing in the name of {which} by name; widen it")
        places[image] = _place(match)
    return places


def _by_table(folder: Folder, images: Sequence[str], table: object) -> tuple[dict[str, tuple[str, str]], str]:
    said = {name: value if isinstance(value, dict) else {"patient": value} for name, value in as_table(table).items()}
    words = [word for value in said.values() for word in (value.get("patient"), *value.values())]
    right = isinstance(table, dict) and all(isinstance(word, (str, int)) for word in words)
    folder.expect("groups.json", right, 'patients: image names with one each, or with {"patient": ..., "video": ...}')
    stated = {}
    for number, (name, value) in enumerate(said.items(), 1):
        image = folder.image(name, f"entry {number} of groups.json")
        by_name = re.search(PATTERNS["patient_V#_F#"], PurePath(image).stem)
        video = value.get("video", by_name["video"] if by_name else "")
        stated[image] = (f"named: {value['patient']}", str(video))
    missing = sum(image not in stated for image in images)
    places = {image: stated.get(image, (ALONE + image, "")) for image in images}
    reason = f"{_count(stated)} groups by groups.json"
    return places, reason + (f" ({missing} images that it leaves out are groups of their own)" if missing else "")


def _place(match: re.Match) -> tuple[str, str]:
    named = match.groupdict()
    return named.get("patient", match[1]), named.get("video") or ""


def _count(places: dict[str, tuple[str, str]]) -> int:
    return len({patient for patient, _ in places.values()})
