"""``replay``: a recorded session through the unmodified loop."""

from pathlib import Path

import msgspec
from rich.progress import track

from semagent.cli import exits
from semagent.cli.output import Output
from semagent.replay import Replay


def replay(folder: Path, *, compare: bool, output: Output) -> int:
    """Run a session again and return the exit code.

    With ``compare`` a command that comes out differently is a failure.
    """
    again = Replay(folder)
    try:
        heard = track(
            again.run(),
            "replaying",
            total=len(again),
            console=output.people,
            transient=True,
            disable=output.json,
        )
        frames = sum(each.kind == "analysis" for each in heard)
    finally:
        again.close()
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
    output.say(f"{frames} frames, {len(again.replayed)} commands, {len(differences)} different")
    return exits.FAILED if compare and differences else exits.DONE


def _short(command: object) -> str:
    return "nothing" if command is None else str(msgspec.to_builtins(command))
