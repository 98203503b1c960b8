"""What stands in config.json has the kind that it must have, or is refused in one sentence before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sa2va_lab.errors import LabError

LARGEST, MOST_LAYERS = 10_000_000, 1000  # an absurd size would be built before it fails


@dataclass(frozen=True)
class Kind:
    """What a value must be, for a sentence, and whether one is that. needed: whether the key must be there."""

    words: str
    fits: Callable[[object], bool]
    needed: bool = False


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value <= high


def whole(high: int = LARGEST, *, needed: bool = False) -> Kind:
    """A whole number from 1."""
    return Kind(f"a whole number from 1 to {high:,}", lambda value: _is_whole(value, 1, high), needed)


def number(high: float = 1e12) -> Kind:
    """A number above 0."""
    return Kind("a number above 0", lambda value: _is_number(value, 0, high))


def maybe(kind: Kind) -> Kind:
    """The same, or null."""
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.fits(value))


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
MAPPING = Kind("an object", lambda value: isinstance(value, dict))
WHOLES = Kind(
    "a list of whole numbers", lambda value: isinstance(value, list) and all(_is_whole(n, 0, LARGEST) for n in value)
)


def find_section(raw: dict, key: str, *, name: str) -> dict:
    """The object under a key of config.json; LabError where it is none. name: of the file, for the sentence."""
    value = raw.get(key, {})
    if not isinstance(value, dict):
        refuse(name, key, f"it is {_show(value)}, not an object")
    return value


def check_kinds(section: dict, kinds: dict[str, Kind], *, where: str, name: str) -> None:
    """LabError for the first value of the section `where` that is not of its kind."""
    for key, kind in kinds.items():
        if (key in section or kind.needed) and not kind.fits(section.get(key)):
            said = _show(section[key]) if key in section else "not there"
            refuse(name, where, f"{key} is {said}; expected {kind.words}")


def check_largest(section: object, limit: float, *, where: str, name: str) -> None:
    """LabError where any number of a section, however deep, is above the limit."""
    if (largest := _find_largest(section)) > limit:
        refuse(name, where, f"{largest:g} is in it; expected at most {limit:,}")


def refuse(name: str, where: str, why: str) -> None:
    """Raises the LabError for a section that makes no sense."""
    raise LabError(f"{name} has no sensible sizes in {where} ({why}): copy the file again from its source.")


def _find_largest(value: object) -> float:
    if isinstance(value, dict | list):
        return max(map(_find_largest, value.values() if isinstance(value, dict) else value), default=0)
    return value if isinstance(value, int | float) else 0


def _show(value: object) -> str:
    return "null" if value is None else repr(value)[:60]
