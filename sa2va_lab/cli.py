"""The command line: `commands` says what each command does; here they get their names."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout

import typer
from tqdm import tqdm

from sa2va_lab.commands import checkpoints, data, predictions, reports, runs
from sa2va_lab.errors import LabError, harmless

app = typer.Typer(
    help="Run a Sa2VA checkpoint on the hardware at hand, and find out honestly how good it is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    *(checkpoints.inspect, checkpoints.merge, checkpoints.plan),
    *(predictions.predict, predictions.export, runs.evaluate, runs.runs, runs.compare, runs.verify),
    *(data.audit, data.convert, data.split),
    *(reports.training, reports.report, reports.init),
):
    app.command()(command)


class _Shown:
    """A stream on which nothing from a file can steer the terminal; a bar may go back to the beginning of its line."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(harmless(text, keep="\n\r\t"))

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def main() -> None:
    """The `sa2va-lab` command. A user's mistake is one sentence on stderr and exit status 2, never a traceback."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every letter
    with redirect_stdout(_Shown(sys.stdout)), redirect_stderr(_Shown(sys.stderr)):
        _run()


def _run() -> None:
    status = 2
    try:
        return app()
    except LabError as error:
        said = str(error)
    except OSError as error:  # a full disk, no permission; what was whole before still is
        named = str(error.filename or "a file")[:300]  # which may be what was wrong with it
        said = f"{named} cannot be used ({error.strerror or error})."
    except MemoryError:
        said = "memory ran out; what was finished is kept."
    except KeyboardInterrupt:
        said, status = "stopped; what was finished is kept.", 130
    tqdm.write(f"sa2va-lab: {said}", file=sys.stderr)  # on a line of its own, where a bar was cut short
    raise SystemExit(status)


if __name__ == "__main__":
    main()
