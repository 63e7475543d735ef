"""Exit codes, as documented for scripts."""

from semagent.errors import SemagentError, UsageError

DONE = 0
USAGE = 2
FAILED = 3
HELD = 4
REFUSED = 5
INTERRUPTED = 130


def code_for(error: SemagentError) -> int:
    """The exit code that tells a script what kind of error ended the command."""
    return USAGE if isinstance(error, UsageError) else FAILED
