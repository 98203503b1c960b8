"""The one exception that a user is meant to read, and what a terminal may be shown."""

import difflib
import unicodedata
from collections.abc import Iterable


class LabError(Exception):
    """A mistake in what we were given, said in one sentence.

    The sentence names what was found, what was expected and what to do. The command line prints it without
    a traceback and exits with status 2; in a notebook it is the last line of the cell. Names from files stand in it, so
    it is `harmless`.
    """

    def __init__(self, sentence: str):
        super().__init__(harmless(sentence))


def suggest(word: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known, or what is."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"


def harmless(text: str, *, keep: str = "\n") -> str:
    """The text with a mark in the place of what a terminal would obey instead of show: control and direction
    characters, halves of surrogates. keep: those that may stay."""
    if text.isprintable():
        return text
    shown = (c if c in keep or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(shown)
