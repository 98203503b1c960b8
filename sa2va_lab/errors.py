"""The one exception that a user is meant to read."""

import unicodedata


class LabError(Exception):
    """A mistake in what we were given, said in one sentence.

    The sentence names what was found, what was expected and what to do. The command line prints it without
    a traceback and exits with status 2; in a notebook it is the last line of the cell. Names from files stand in it, so
    what a terminal would obey instead of show (control and direction characters, halves of surrogates) is replaced.
    """

    def __init__(self, sentence: str):
        shown = (c if c == "\n" or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in sentence)
        super().__init__("".join(shown))
