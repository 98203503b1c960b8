"""The command line: `commands` says what each command does; here they get their names."""

from __future__ import annotations

import sys

import typer

from sa2va_lab.commands import checkpoints, data, predictions, reports, runs
from sa2va_lab.errors import LabError

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


def main() -> None:
    """The `sa2va-lab` command. A user's mistake is one sentence on stderr and exit status 2, never a traceback."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are no text
    try:
        app()
    except LabError as error:
        print(f"sa2va-lab: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # a full disk, no permission; what was whole before still is
        print(f"sa2va-lab: {error.filename or 'a file'} cannot be used ({error.strerror}).", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("sa2va-lab: stopped; what was finished is kept.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
