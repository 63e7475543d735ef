"""Everything semagent raises on purpose.

::

    SemagentError
    ├── UsageError                 exit 2: what the user gave is wrong
    │   ├── ConfigError            a configuration file; names file, key, value and what is allowed
    │   └── InputFileError         an image, stack or session; names the file
    ├── MicroscopeError            exit 3: the microscope or its driver failed
    │   ├── CommandRefusedError    the microscope said no; its state is unchanged
    │   │   ├── GateRefusedError   the safety gate said no, here or on another machine
    │   │   └── NotReadyError      somebody has to do something at the microscope first
    │   ├── AcquisitionStoppedError  ``stop()`` ended an acquisition
    │   ├── MicroscopeTimeoutError the microscope did not answer before the deadline
    │   └── DisconnectedError      the link is gone; open the driver again
    ├── EngineError                exit 3: the inference engine failed
    │   └── FrameTooSmallError     a frame has fewer pixels than the engine needs
    ├── RoleError                  exit 3: a process of the agent died or fell silent
    ├── RecordError                exit 3: the record would have a gap
    └── WireError                  a message that cannot be read
        └── WireVersionError       a peer speaks another major version

Foreign exceptions are mapped to one of these where they enter, with ``from error``.
"""

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises of bytes that make no sense: text may be no UTF-8, and values too deep."""


class SemagentError(Exception):
    """Base of every error semagent raises on purpose."""


class UsageError(SemagentError):
    """What the user gave is wrong; the message says where and what is allowed."""


class ConfigError(UsageError):
    """A configuration file is wrong; the message names file, key, value and what is allowed."""


class InputFileError(UsageError):
    """An image, stack or session cannot be used; the message names the file."""


class MicroscopeError(SemagentError):
    """The microscope or its driver failed."""


class CommandRefusedError(MicroscopeError):
    """The microscope refused an action; its state is unchanged."""


class GateRefusedError(CommandRefusedError):
    """The safety gate refused an action, here or on the machine that has the microscope."""


class NotReadyError(CommandRefusedError):
    """A frame or an action has to wait for a person: the beam is blanked, the image is frozen."""


class AcquisitionStoppedError(MicroscopeError):
    """An acquisition was ended by ``stop()`` before a whole frame was there."""


class MicroscopeTimeoutError(MicroscopeError):
    """The microscope did not answer before the deadline."""


class DisconnectedError(MicroscopeError):
    """The link to the microscope is gone; the driver has to be opened again."""


class EngineError(SemagentError):
    """The inference engine failed."""


class FrameTooSmallError(EngineError):
    """A frame has fewer pixels than the engine needs."""


class RoleError(SemagentError):
    """A process of the agent died, hung or fell silent."""


class RecordError(SemagentError):
    """The record would have a gap, so the run ends instead."""


class WireError(SemagentError):
    """A message that cannot be read."""


class WireVersionError(WireError):
    """A peer speaks another major version of the wire."""
