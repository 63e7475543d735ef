"""The operator's console: a web page with live frames, focus, and controls.

A role like the others: it listens on the bus, and what an operator asks for goes through the same
channels and the same safety gate as the agent's wishes. Nothing depends on it. It needs the extra
``console``; nothing outside this package imports Starlette or uvicorn.
"""

from semagent.console.access import Tokens
from semagent.console.browse import Browser
from semagent.console.facts import RunFacts
from semagent.console.listener import Listener, check_access, listen
from semagent.console.role import Console

__all__ = ["Browser", "Console", "Listener", "RunFacts", "Tokens", "check_access", "listen"]
