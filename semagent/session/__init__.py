"""A recorded session: a folder of plain files that can be read without semagent.

::

    manifest.json                    what was run, with what, and whether it was closed in order
    events.jsonl                     everything that happened, one JSON object a line
    frames/frame-00000001.ome.tif    the raw frames, bit for bit
    derived/frame-00000001-restored.ome.tif   what an engine made of them

The format is described in ``docs/sessions.md``.
"""

from semagent.session.check import verify
from semagent.session.folder import is_session, read_manifest
from semagent.session.layout import (
    DerivedRecord,
    EngineRecord,
    FrameRecord,
    Manifest,
    Problem,
    ProblemKind,
)
from semagent.session.ometiff import read_frame_file
from semagent.session.reader import (
    Entry,
    SessionReader,
    StackFrame,
    session_stack,
)
from semagent.session.writer import SessionWriter

__all__ = [
    "DerivedRecord",
    "EngineRecord",
    "Entry",
    "FrameRecord",
    "Manifest",
    "Problem",
    "ProblemKind",
    "SessionReader",
    "SessionWriter",
    "StackFrame",
    "is_session",
    "read_frame_file",
    "read_manifest",
    "session_stack",
    "verify",
]
