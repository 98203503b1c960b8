"""The one exception that a user is meant to read."""


class LabError(Exception):
    """A mistake in what we were given, said in one sentence.

    The sentence names what was found, what was expected and what to do. The command line prints it without
    a traceback and exits with status 2; in a notebook it is the last line of the cell.
    """
