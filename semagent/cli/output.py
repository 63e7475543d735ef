"""What the commands print: JSON lines for programs, tables and progress for people.

With ``--json`` standard output carries one JSON object a line and nothing else; everything
meant for people goes to standard error.
"""

import json
import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from semagent.health import unverified
from semagent.types import Capabilities


class Output:
    """One command's way of talking.

    Args:
        json: print JSON lines instead of tables.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.people = Console(stderr=json, highlight=False)
        self.errors = Console(stderr=True, highlight=False)
        self.held_warnings: list[str] = []
        self._holding = False

    def record(self, record: dict[str, Any]) -> None:
        """One JSON line, if that is what was asked for."""
        if self.json:
            plain = json.loads(msgspec.json.encode(record))
            # In ASCII, since Windows decodes what comes through a pipe as it pleases.
            sys.stdout.write(json.dumps(plain, separators=(",", ":")) + "\n")
            sys.stdout.flush()

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """A table for people; nothing with ``--json``."""
        if self.json:
            return
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")  # two long file names have to differ
        for row in rows:
            table.add_row(*map(Text, row))  # not markup: "semagent[report]" is a word
        self.people.print(table)

    def say(self, text: str) -> None:
        """A line for people; on standard error with ``--json``."""
        self.people.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line people should not miss, on standard error."""
        if self._holding:
            self.held_warnings.append(text)
            return
        self.errors.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def hold_warnings(self) -> None:
        """Keep warnings back while a view owns the screen."""
        self._holding = True

    def release_warnings(self) -> None:
        """Print the warnings that were held back, and all further ones at once."""
        self._holding = False
        while self.held_warnings:
            self.warn(self.held_warnings.pop(0))

    def warn_unverified(self, capabilities: Capabilities) -> None:
        """Say so if a driver has never met the hardware it is for."""
        warning = unverified(capabilities)
        if warning is not None:
            self.warn(warning)

    def fail(self, text: str) -> None:
        """Why the command ends, on standard error."""
        self.errors.print(f"error: {text}", style="red", markup=False, soft_wrap=True)


def metres(value: float | None) -> str:
    """A length as people read it, e.g. ``5.0321 mm`` or ``12.3 um``."""
    if value is None:
        return "-"
    if abs(value) >= 1e-3:
        return f"{value * 1e3:.4f} mm"
    if abs(value) >= 1e-6:
        return f"{value * 1e6:.2f} um"
    return f"{value * 1e9:.1f} nm"
