"""The console script: Invoke's Program with our help."""

from __future__ import annotations

from invoke import Program
from invoke.exceptions import ParseError

from edgekd import __version__
from edgekd.cli.command import COMMON, OPTIONS, ns


class EdgekdProgram(Program):
    """Invoke's Program with our help: no core options that our tasks do not have, near words for a typo."""

    def print_help(self) -> None:
        print(f"Usage: {self.binary} TASK [options]        {self.binary} TASK --help\n")
        self.list_tasks()
        print("Options of most tasks:\n")
        for name in (*COMMON, "to"):
            print(f"  --{name:<10} {OPTIONS[name][1]}")

    def parse_tasks(self) -> None:
        try:
            super().parse_tasks()
        except ParseError as error:
            raise ParseError(_mended(str(error)), error.context) from None


def _mended(message: str) -> str:
    """Invoke's "No idea what '--taget' is!" with the nearest word that there is."""
    from edgekd.declaration import suggest

    if "No idea what" not in message:
        return message
    word = message.split("'")[1]
    known = [f"--{name}" for name in OPTIONS] if word.startswith("-") else list(ns.task_names)
    return f"edgekd: {word!r} is no option or task here{suggest(word, known)}"


def main() -> None:
    """The console script `edgekd`: the same tasks outside a checkout."""
    program = EdgekdProgram(version=__version__, namespace=ns, name="edgekd", binary="edgekd")
    program.run()
