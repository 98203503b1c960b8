"""Ids that name nobody: patient, video and frame by number, the same numbers every time.

File names carry patients' names and hospital numbers, so nothing beyond this room sees them. A number is looked up by
a keyed hash of the name; key and numbers lie in one file beside the data, readable by its owner only, and hold no name.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sa2va_lab.errors import LabError

KEY_FILE = ".sa2va-lab-key.json"
ALONE = "alone: "
LEVELS = ("patients", "videos", "frames")
PSEUDONYM = re.compile(r"P(\d{2,6})-V(\d{1,6})-F(\d{3,9})")


@dataclass(frozen=True)
class Pseudonym:
    """patient, video and frame: numbers from 1, in no order that says anything about the patients."""

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

    @property
    def order(self) -> tuple[int, int, int]:
        """What samples are sorted by."""
        return self.patient, self.video, self.frame


def name_images(root: Path, places: Mapping[str, tuple[str, str]], *, stated: bool) -> tuple[dict[str, Pseudonym], str]:
    """A pseudonym for every image, and what they stand on, in words.

    places: image name -> (patient, video); a patient that begins with ALONE is unknown. stated: whether somebody said
    so, rather than the file names; an image that is unknown or not stated keeps the place that was stated last, so that
    a pattern for the patients need be given only once. Names that are pseudonyms already are kept. Otherwise numbers
    come from the key file in `root`, which is made (mode 600) and grows with the data. Where none may lie
    (the folder cannot be written to, or is under an outputs folder) they follow from the names themselves: the same
    for the same images, but other ones once an image is added.
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
            content = _load(root)
            found, numbers = _number(places, bytes.fromhex(content["key"]), content["numbers"], stated=stated)
            if numbers != content["numbers"]:
                _save(root, content | {"numbers": numbers})
    except OSError as error:
        raise LabError(
            f"the key file {KEY_FILE} in {root} cannot be read or written ({error.strerror}); correct its permissions"
        ) from error
    return found, f"numbers by the key file {KEY_FILE} beside the data"


def natural(text: str) -> list:
    """A sort key by which frame 10 follows frame 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _keep_pseudonyms(places: Mapping[str, tuple[str, str]]) -> dict[str, Pseudonym] | None:
    """The names as they are, if all are pseudonyms, all differ and none contradicts what the data says of patients."""
    found = {}
    for name in places:
        match = PSEUDONYM.fullmatch(os.path.splitext(os.path.basename(name))[0])
        if match is None:
            return None
        found[name] = Pseudonym(*(int(number) for number in match.groups()))
    said = {(places[name][0], pseudonym.patient) for name, pseudonym in found.items()}
    patients, numbers = ({pair[place] for pair in said} for place in (0, 1))
    alone = all(name.startswith(ALONE) for name in patients)
    whole = len({pseudonym.id for pseudonym in found.values()}) == len(found)
    return found if whole and (alone or len(patients) == len(numbers) == len(said)) else None


def _number(
    places: Mapping[str, tuple[str, str]], key: bytes, numbers: dict, *, stated: bool
) -> tuple[dict[str, Pseudonym], dict]:
    """Numbers for all images: those in `numbers` as they are, new ones after them; also `numbers` with them in it.

    numbers: by level the number of each hash within what it belongs to, and under "images" whose each image was last.
    """

    def digest(*words: str) -> str:
        return hmac.new(key, "\0".join(words).encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:24]

    known = {level: dict(numbers.get(level, {})) for level in (*LEVELS, "images")}
    unsure = [name for name, (patient, _) in places.items() if not stated or patient.startswith(ALONE)]
    remembered = {name: known["images"].get(digest("image", name)) for name in unsure}
    pseudonyms = {name: Pseudonym(*numbers) for name, numbers in remembered.items() if numbers}
    places = {name: place for name, place in places.items() if name not in pseudonyms}
    patients = {patient: digest("patient", patient) for patient, _ in places.values()}
    last = max(known["patients"].values(), default=0)
    for patient_hash in sorted(set(patients.values())):  # by hash: the numbers do not follow the alphabet
        if patient_hash not in known["patients"]:
            last += 1
            known["patients"][patient_hash] = last
    # hashes of videos and frames begin with those of what they belong to, so that their numbers can be continued
    counts: dict[str, int] = {}
    for level in ("videos", "frames"):
        for found, number in known[level].items():
            owner = found.rsplit("/", 1)[0]
            counts[owner] = max(counts.get(owner, 0), number)
    videos: dict[tuple[str, str], str] = {}
    for name in sorted(places, key=lambda name: (natural(places[name][1]), natural(name))):
        patient, video = places[name]
        owner = patients[patient]
        if (patient, video) not in videos:
            videos[patient, video] = f"{owner}/{digest('video', patient, video)[:12]}"
        sequence = videos[patient, video]
        frame = f"{sequence}/{digest('frame', patient, video, name)[:12]}"
        for level, found, above in (("videos", sequence, owner), ("frames", frame, sequence)):
            if found not in known[level]:
                counts[above] = counts.get(above, 0) + 1
                known[level][found] = counts[above]
        found = known["patients"][owner], known["videos"][sequence], known["frames"][frame]
        pseudonyms[name] = Pseudonym(*found)
        if stated and not patient.startswith(ALONE):
            known["images"][digest("image", name)] = list(found)
    return pseudonyms, known


def _refuses_key(root: Path) -> str | None:
    """Why no key file may lie in a folder; None where it may."""
    real = Path(os.path.realpath(root))
    if "outputs" in real.parts:
        return "the data lies under an outputs folder"
    writable = (
        os.access(real, os.W_OK) and real.stat().st_mode & 0o222
    )  # the superuser may write anywhere, and should not
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


def _load(root: Path) -> dict:
    path = root / KEY_FILE
    if not os.path.lexists(path):
        return {"about": "key of the pseudonyms: keep it private", "key": secrets.token_hex(32), "numbers": {}}
    if path.is_symlink():
        raise LabError(f"{path} is a symbolic link; expected the key file itself, copy it there")
    if path.stat().st_mode & 0o077 and os.access(path, os.W_OK):
        path.chmod(0o600)
    try:
        content = json.loads(path.read_bytes())
        bytes.fromhex(content["key"])
        numbers = [n for level in LEVELS for n in content["numbers"].get(level, {}).values()]
        places = list(content["numbers"].get("images", {}).values())
        numbers += [number for place in places for number in place]
        whole = all(type(number) is int and number > 0 for number in numbers) and all(len(p) == 3 for p in places)
        if not whole or len(content["key"]) < 32:
            raise ValueError("its numbers or its key are damaged")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabError(
            f"{path} is not a key file ({error}); restore it, or delete it to get new ids that fit no former run"
        ) from error
    return content


def _save(root: Path, content: dict) -> None:
    unfinished = root / f"{KEY_FILE}.part"
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, root / KEY_FILE)
