"""A recorded session as a page: what was seen, what was believed, what was done and refused.

Drawing needs matplotlib, from the extra ``report``; it is imported when a report is written.
"""

from pathlib import Path

from semagent.errors import UsageError
from semagent.report.story import Focusing, Step, Story, read_story
from semagent.session.storage import mapped_errors, write_whole

__all__ = ["Focusing", "Step", "Story", "read_story", "write_report"]


def write_report(session: Path, output: Path) -> None:
    """Write a report of a recorded session: one HTML file that needs nothing else, and a PNG.

    Args:
        session: folder of the session.
        output: the HTML file; the PNG gets the same name with ``.png``. Both are overwritten.

    Raises:
        InputFileError: the folder is no session, or is damaged.
        UsageError: matplotlib is not installed, or the files cannot be written; what was there of
            them before still is.
    """
    story = read_story(session)
    try:
        from semagent.report.page import render  # noqa: PLC0415 - matplotlib is an extra
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a report needs {error.name}: install the extra, pip install 'semagent[report]'"
        ) from error
    html, png = render(story)
    with mapped_errors(output, UsageError):
        write_whole(output, html.encode(errors="replace"), sync=False)
        write_whole(output.with_suffix(".png"), png, sync=False)
