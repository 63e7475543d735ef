"""What the commands print: JSON lines for programs, tables and progress for people.

With ``--json`` standard output carries one JSON object a line and nothing else; everything
meant for people goes to standard error.
"""

import codecs
import errno
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO, TypeVar

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from semagent.health import unverified
from semagent.types import Capabilities

_T = TypeVar("_T")
_HELD = 100
_USUAL_WIDTH = 80
_STEERING = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "?")
_IN_ASCII = ("u", "+/-", "deg", "2", "x", "/", "->", "...", ".", "-")
_PLAINLY = dict(zip("µ±°²×÷→…·–", _IN_ASCII, strict=True))
PLAIN = "semagent.plain"
"""How an encoding writes what it lacks: the code pages of East Asia know no µ."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAINLY.get(sign, "?") for sign in lacking), error.end


codecs.register_error(PLAIN, _plainly)


class UnreadError(Exception):
    """Nobody reads what is printed any more, as with ``| head``: so nobody needs the rest."""


class LostError(UnreadError):
    """What is printed goes into a file that takes no more, and is needed."""


class _Stream:
    """A standard stream that falls silent once its reader has gone or its terminal was closed.

    Args:
        stream: where to write.
        on_unread: told of it, once.
    """

    def __init__(self, stream: TextIO, on_unread: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_unread = on_unread

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fall_silent(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fall_silent(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fall_silent(self, error: OSError) -> None:
        # What is still in its buffer must not fail again, not even when the interpreter ends.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
        self._on_unread(error)


class _Legible(Console):
    """Shows what would steer a terminal as ``?``: texts come from files and microscopes too."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else segment.text.translate(_STEERING)
            yield segment._replace(text=text)


class Output:
    """One command's way of talking.

    Once nobody reads it any more, what it is told raises `UnreadError`, but under `when_unread`.

    Args:
        json: print JSON lines instead of tables.

    Attributes:
        lost: why what was printed is lost, e.g. on a full disk; empty if it is not.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.lost = ""
        self._when_unread: Callable[[str], None] | None = None
        programs: Any = _Stream(sys.stdout, self._unread)
        errors: Any = _Stream(sys.stderr, self._unread)
        self._programs = programs
        self.people = _Legible(file=errors if json else programs, highlight=False)
        # On one terminal both are one: what is said while a bar is shown goes above it.
        one = json or all(each and each.isatty() for each in (sys.stdout, sys.stderr))
        self.errors = self.people if one else _Legible(file=errors, highlight=False)
        self.held_warnings: deque[str] = deque(maxlen=_HELD)
        self._left_out = 0
        self._holding = False

    @contextmanager
    def when_unread(self, ask: Callable[[str], None]) -> Iterator[None]:
        """Meanwhile ``ask`` for the end, with the reason, instead of raising.

        Things have to be put back first.
        """
        self._when_unread = ask
        try:
            yield
        finally:
            self._when_unread = None

    def _unread(self, error: OSError) -> None:
        if error.errno in _FULL:
            self.lost = f"the output cannot be written: {error.strerror}"
        if self._when_unread is not None:
            self._when_unread(self.lost or "nobody reads the output any more")
        elif self.lost:
            raise LostError(self.lost)
        else:
            raise UnreadError

    def record(self, record: dict[str, Any]) -> None:
        """One JSON line, if that is what was asked for."""
        if self.json:
            text = json.dumps(msgspec.to_builtins(record))
            plain = json.loads(text, parse_constant=lambda _: None)  # JSON has no NaN
            # In ASCII, since Windows decodes what comes through a pipe as it pleases; which has
            # room for names of files that are no Unicode, too.
            self.write(json.dumps(plain, separators=(",", ":")) + "\n")

    def write(self, text: str) -> None:
        """Text for programs, as it is."""
        self._programs.write(text)
        self._programs.flush()

    def table(
        self, title: str, columns: list[str], rows: list[list[str]], *, figures: bool = False
    ) -> None:
        """A table for people; nothing with ``--json``.

        With ``figures`` all columns but the first hold figures, which are not broken in a terminal
        as wide as usual: where there is little room, the first one is.
        """
        if self.json:
            return
        table = Table(title=title, title_justify="left")
        whole = figures and self.people.width >= _USUAL_WIDTH
        for index, column in enumerate(columns):
            # Two long file names have to differ.
            table.add_column(column, overflow="fold", no_wrap=whole and index > 0)
        for row in rows:
            table.add_row(*map(Text, row))  # not markup: "semagent[report]" is a word
        self.people.print(table)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars that show how far it is and how long it will take; on a terminal only."""
        bars = Progress(console=self.people, transient=True)
        with bars if self.people.is_interactive and not self.json else nullcontext():
            yield bars

    @contextmanager
    def track(self, items: Iterable[_T], total: int, doing: str) -> Iterator[Iterator[_T]]:
        """The items, with a bar that shows how many of ``total`` are done.

        Rich's own ``track`` has a thread, for which Python 3.13 waits for ever at its end where an
        error has ended the loop.
        """
        with self.progress() as bars:
            task = bars.add_task(doing, total=total)

            def each() -> Iterator[_T]:
                for item in items:
                    yield item
                    bars.advance(task)

            yield each()

    def say(self, text: str) -> None:
        """A line for people; on standard error with ``--json``."""
        self.people.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line people should not miss, on standard error."""
        if self._holding:
            self._left_out += len(self.held_warnings) == _HELD
            self.held_warnings.append(text)
            return
        self.errors.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def hold_warnings(self) -> None:
        """Keep warnings back while a view owns the screen."""
        self._holding = True

    def release_warnings(self) -> None:
        """Print the last warnings that were held back, and all further ones at once."""
        self._holding = False
        if self._left_out:
            self.warn(f"{self._left_out} earlier warnings are left out; a record has them all")
            self._left_out = 0
        while self.held_warnings:
            self.warn(self.held_warnings.popleft())

    def warn_unverified(self, capabilities: Capabilities) -> None:
        """Say so if a driver has never met the hardware it is for."""
        warning = unverified(capabilities)
        if warning is not None:
            self.warn(warning)

    def fail(self, text: str) -> None:
        """Why the command ends, on standard error."""
        self.errors.print(f"error: {text}", style="red", markup=False, soft_wrap=True)


def counted(number: int, what: str) -> str:
    """How many there are, e.g. ``1 frame`` or ``2 frames``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
