"""Micro-Manager's core, in this process or behind its bridge: the same calls by the same names."""

import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from semagent.errors import ConfigError
from semagent_drivers.adapter import SdkThread, load_sdk
from semagent_drivers.micromanager.facts import DRIVER

_LAST_THREADS_S = 0.1
"""A camera says that its sequence is over shortly before its own thread has left the device."""

Argument = str | float | int | bool
Image = npt.NDArray[np.generic]
Rectangle = tuple[int, int, int, int]


class CoreError(Exception):
    """The core says that a call failed."""


class Core(Protocol):
    """``mmcorej.CMMCore``: https://micro-manager.org/apidoc/mmcorej/latest/."""

    def call(self, name: str, *arguments: Argument, timeout_s: float) -> Any:
        """Call a method that returns a number, a string or nothing.

        Raises:
            CoreError: the core says that it failed.
            MicroscopeTimeoutError: no answer in time.
            DisconnectedError: the link is gone.
        """
        ...

    def post(self, name: str, *arguments: Argument) -> None:
        """Call a method without waiting for it; the next call does. Errors are not told."""
        ...

    def pop_image(self, *, timeout_s: float) -> Image:
        """``popNextImage``: the pixels, flat or in rows. Raises as `call` does."""
        ...

    def roi(self, *, timeout_s: float) -> Rectangle:
        """``getROI``: x, y, width, height. Raises as `call` does."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class PythonCore:
    """The core in this process, through pymmcore.

    Args:
        adapters: folder of the device adapters.
        configuration: file that says which devices there are.
        timeout_s: to load them.

    Raises:
        ConfigError: pymmcore is missing, or one of the two does not exist.
        CoreError: a device does not come up.
    """

    def __init__(self, adapters: str, configuration: str, timeout_s: float) -> None:
        folder, file = Path(adapters), Path(configuration)
        if not folder.is_dir():
            raise ConfigError(f"driver micromanager: adapters: there is no folder {folder}")
        if not file.is_file():
            raise ConfigError(f"driver micromanager: configuration: there is no file {file}")
        pymmcore = load_sdk("pymmcore", "micromanager", DRIVER)
        self._core: Any = pymmcore.CMMCore()
        self._thread = SdkThread("Micro-Manager")
        try:
            self.call("setDeviceAdapterSearchPaths", [str(folder)], timeout_s=timeout_s)
            self.call("loadSystemConfiguration", str(file), timeout_s=timeout_s)
        except BaseException:
            self.close()
            raise

    def call(self, name: str, *arguments: Any, timeout_s: float) -> Any:
        """See `Core`."""
        try:
            return self._thread.call(
                lambda: getattr(self._core, name)(*arguments),
                timeout_s=timeout_s,
                what=f"return from {name}",
            )
        except (RuntimeError, OSError) as error:  # the latter while it loads its hardware
            raise CoreError(str(error)) from error

    def post(self, name: str, *arguments: Argument) -> None:
        """See `Core`."""
        self._thread.post(lambda: getattr(self._core, name)(*arguments))

    def pop_image(self, *, timeout_s: float) -> Image:
        """See `Core`."""
        return np.asarray(self.call("popNextImage", timeout_s=timeout_s))

    def roi(self, *, timeout_s: float) -> Rectangle:
        """See `Core`."""
        x, y, width, height = self.call("getROI", timeout_s=timeout_s)
        return x, y, width, height

    def close(self) -> None:
        """See `Core`."""
        # Devices whose thread hangs cannot be unloaded; the end of the process does it.
        self._thread.post(self._leave)
        self._thread.close()

    def _leave(self) -> None:
        """Unload the devices, and the core with them: on its thread, not in a garbage collection.

        Another core may be at work by then.
        """
        core, self._core = self._core, None
        time.sleep(_LAST_THREADS_S)
        core.unloadAllDevices()
