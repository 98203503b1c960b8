"""The language of pages and figures. English stands in the code where it is used; `locale/zh.po` has the Chinese.

A sentence that lacks a translation stays English, and a test names it. The language is the process's, not a
contextvars.ContextVar: what one notebook cell sets there is gone in the next.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

from sa2va_lab.errors import LabError

LANGUAGES = {"en": "English", "zh": "中文"}
LOCALE = Path(__file__).parent / "locale"
_PLACE = re.compile(r"\{(\w+)[^{}]*\}")
_ENDS = re.compile(r"(?<=[.;:,]) |(?<=[.;])\n")
_MARKS = {",": "，", ";": "；", ":": "："}
MANY = 60  # letters of fixed words by which a template is known, whatever stands in its places
_current = "en"


class use_language:
    """Pages and figures are in this language from now on, or until the end of a `with`. LabError for an unknown one."""

    def __init__(self, code: str):
        global _current
        if code not in LANGUAGES:
            known = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
            raise LabError(f"language {code!r} was asked for; there are texts in {known}")
        self._before, _current = _current, code

    def __enter__(self) -> None: ...

    def __exit__(self, *error) -> None:
        global _current
        _current = self._before


def current_language() -> str:
    """ "en" or "zh"."""
    return _current


def tr(text: str, **values) -> str:
    """`text` in the current language, its {places} filled with `values`.

    Without values, `text` may be a finished English sentence (a reason out of a Run, a defect): it is held against the
    templates of the catalogue, and what stood in their places is put into the translation.
    """
    if _current != "en":
        said = read_catalogue(_current).get(text)
        if said is None and not values:
            return _translate(text, _current)
        text = said or text
    return text.format(**values) if values else text


def join_sentences(sentences: Iterable[str]) -> str:
    """Sentences one after another; Chinese has no blank between them."""
    return ("" if _current == "zh" else " ").join(sentences)


def join_words(words: Iterable[str]) -> str:
    """An enumeration."""
    return ("、" if _current == "zh" else ", ").join(words)


@cache
def read_catalogue(code: str) -> dict[str, str]:
    """{English: translation} of a .po file."""
    from babel.messages.pofile import read_po

    with open(LOCALE / f"{code}.po", "rb") as handle:
        return {entry.id: entry.string for entry in read_po(handle) if entry.id and entry.string}


@cache
def _templates(code: str) -> list[tuple[re.Pattern, str, bool]]:
    """What finished sentences are held against: the templates with places, those with most fixed words first; then
    once more, loosely, those that begin with words or have many."""
    found = [(text, said) for text, said in read_catalogue(code).items() if _PLACE.search(text)]
    found = [(text, said) for text, said in found if len(_PLACE.sub("", text).strip()) > 3]
    found.sort(key=lambda pair: -len(_PLACE.sub("", pair[0])))
    strict = [(_as_pattern(text, r"(?:(?![,;:] ).)+?"), said, False) for text, said in found]
    known = [pair for pair in found if pair[0].find("{") > 3 or len(_PLACE.sub("", pair[0])) > MANY]
    return strict + [(_as_pattern(text, ".+?"), said, True) for text, said in known]


def _as_pattern(text: str, inside: str) -> re.Pattern:
    """inside: what a place may hold."""
    parts, seen = [], set()
    for literal, name, _, _ in string.Formatter().parse(text):
        parts.append(re.escape(literal))
        if name is not None:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{inside})")
            seen.add(name)
    return re.compile("".join(parts), re.DOTALL)


@lru_cache(maxsize=4096)
def _translate(sentence: str, code: str) -> str:
    """Whole, or else its longest parts between stops and commas; what the catalogue has nothing for stays English."""
    if said := _find(sentence, code, whole=True):
        return said
    pieces, ends = _ENDS.split(sentence), [*_ENDS.findall(sentence), ""]
    done, start = [], 0
    while start < len(pieces):
        for stop in range(len(pieces), start, -1):
            part = "".join(piece + end for piece, end in zip(pieces[start:stop], ends[start:stop], strict=True))
            part = part.removesuffix(ends[stop - 1])
            if said := _find_before_mark(part, code) or _find(part, code):
                break
        done += [said or pieces[start], "" if said and said[-1] in _MARKS.values() else ends[stop - 1]]
        start = stop
    return "".join(done)


def _find(sentence: str, code: str, *, whole: bool = False) -> str | None:
    """The catalogue's text for a sentence, or that of the template that it is made of.

    A place holds no comma, else a template would swallow what stands beside it in an enumeration. Only a whole
    sentence that begins as a template does may have one there.
    """
    known = read_catalogue(code)
    if sentence in known:
        return known[sentence]
    for pattern, said, loose in _templates(code):
        if (not loose or whole) and (match := pattern.fullmatch(sentence)):
            values = {name: _translate(value, code) for name, value in match.groupdict().items()}
            return re.sub(_PLACE, lambda place, values=values: values[place[1]], said)
    return None


def _find_before_mark(part: str, code: str) -> str | None:
    said = _find(part[:-1], code) if part[-1:] in _MARKS else None
    return said and said + _MARKS[part[-1]]
