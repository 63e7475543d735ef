"""What is done with a recorded session: replay, report, export, browse."""

import contextlib
import threading
from pathlib import Path

import msgspec

from semagent.cli import exits
from semagent.cli.output import Output, counted
from semagent.config import ConsoleOptions
from semagent.errors import UsageError
from semagent.export import Target, export_session
from semagent.process import new_token
from semagent.replay import Replay
from semagent.report import write_report
from semagent.session import SessionReader
from semagent.signals import handled

_POLL_S = 0.2


def replay(folder: Path, *, compare: bool, output: Output) -> int:
    """Run a session again and return the exit code.

    With ``compare`` a command that comes out differently is a failure.
    """
    again = Replay(folder)
    with (
        contextlib.closing(again),
        output.track(again.run(), len(again), "replaying") as heard,
    ):
        frames = sum(each.kind == "analysis" for each in heard)
    differences = again.differences()
    for difference in differences:
        output.record({"event": "difference", **msgspec.to_builtins(difference)})
        output.warn(f"recorded {_short(difference.recorded)}, now {_short(difference.replayed)}")
    output.record(
        {
            "event": "replay",
            "frames": frames,
            "commands": len(again.replayed),
            "differences": len(differences),
        }
    )
    output.say(
        f"{counted(frames, 'frame')}, {counted(len(again.replayed), 'command')}, "
        f"{len(differences)} different"
    )
    return exits.FAILED if compare and differences else exits.DONE


def report(folder: Path, *, target: Path | None, output: Output) -> int:
    """Write a report of a session and return the exit code.

    Raises:
        UsageError: the target is no HTML file or cannot be written.
    """
    resolved = folder.resolve()
    page = target or resolved.with_name(f"{resolved.name}.html")
    if page.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"--output: {page} does not end in .html")
    write_report(resolved, page)
    output.say(f"wrote {page}, and the same as a picture, {page.with_suffix('.png')}")
    return exits.DONE


def export(folder: Path, *, target: Path, to: Target, derived: bool, output: Output) -> int:
    """Export a session for other programs and return the exit code."""
    session = SessionReader(folder)
    with output.progress() as bar:
        task = bar.add_task("exporting")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        exported = export_session(session, target, to, derived=derived, progress=show)
    for problem in session.problems:
        output.warn(f"{problem.file}: {problem.message}")
    for sentence in exported.left_out:
        output.warn(f"left out: {sentence}")
    output.record({"event": "export", **msgspec.to_builtins(exported)})
    for image in exported.images:
        size = f"{image.width_px} x {image.height_px}, {image.dtype}"
        output.say(f"{image.name}: {counted(image.frames, 'frame')}, {size}")
    output.say(f"wrote {exported.output}")
    return exits.DONE


def browse(folder: Path, *, port: int | None, output: Output) -> int:
    """Serve the session browser until Ctrl-C and return the exit code.

    Raises:
        UsageError: the console's libraries are not installed.
    """
    try:
        from semagent.console import Browser, Tokens, listen  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the browser needs {error.name}: install the extra, pip install 'semagent[console]'"
        ) from error
    tokens = Tokens(operator=new_token(), viewer=new_token())
    with contextlib.ExitStack() as held:
        listener = held.enter_context(contextlib.closing(listen(ConsoleOptions(port=port))))
        browser = held.enter_context(contextlib.closing(Browser(folder, listener, tokens)))
        output.say(f"sessions:  {listener.url}/?token={tokens.operator}")
        output.say(f"view only: {listener.url}/?token={tokens.viewer}")
        stop = threading.Event()
        with handled(lambda *_: stop.set()):
            while not stop.wait(_POLL_S):
                browser.check()
    return exits.DONE


def _short(command: object) -> str:
    return "nothing" if command is None else str(msgspec.to_builtins(command))
