"""What an operation changes for its own sake it puts back, or says that it could not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from semagent.errors import DisconnectedError, MicroscopeError, MicroscopeTimeoutError

_LINK = (DisconnectedError, MicroscopeTimeoutError)


@contextmanager
def put_back(what: str, restore: Callable[[], None]) -> Iterator[None]:
    """Call ``restore`` at the end of the block, whatever happens in it.

    ``restore`` raises a `MicroscopeError` if it fails, as everything inside `Adapter.edge` does.
    ``what`` names the setting in the message: "blanker", "working distance".

    Raises:
        MicroscopeError: as the block, or ``restore``, did; if ``restore`` failed, its message
            ends with ``not put back: WHAT``.
    """
    problem: BaseException | None = None
    try:
        yield
    except BaseException as error:
        problem = error
        raise
    finally:
        try:
            restore()
        except MicroscopeError as error:
            first = error if problem is None else problem
            worst = next((each for each in (first, error) if isinstance(each, _LINK)), None)
            kind = MicroscopeError if worst is None else type(worst)
            raise kind(f"{first}; not put back: {what}") from error
