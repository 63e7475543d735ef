"""Live frames on a page of NiceGUI; started by `console_framework.py` with another interpreter."""

import base64
from typing import Any

import cv2
import numpy as np

INTERVAL_S = 1 / 30
SHAPE = (768, 1024)
_FRAMES = 32
_PORT = 8650


def make_frames() -> list[Any]:
    """Blurred noise with shot noise on it: about as hard to code as a micrograph."""
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.random(SHAPE, np.float32), (0, 0), 6)
    field = 40 + 160 * (field - field.min()) / np.ptp(field)
    return [rng.poisson(field).clip(0, 255).astype(np.uint8) for _ in range(_FRAMES)]


def main() -> None:
    """Serve the page until killed."""
    from nicegui import ui  # noqa: PLC0415 - not installed where the frames are imported from

    frames = make_frames()
    count = 0

    @ui.page("/")  # type: ignore[untyped-decorator, unused-ignore]
    def index() -> None:
        picture = ui.interactive_image()

        def update() -> None:
            nonlocal count
            count += 1
            body = cv2.imencode(".jpg", frames[count % _FRAMES])[1].tobytes()
            picture.set_source("data:image/jpeg;base64," + base64.b64encode(body).decode())

        ui.timer(INTERVAL_S, update)

    print(f"http://127.0.0.1:{_PORT}/", flush=True)
    ui.run(host="127.0.0.1", port=_PORT, show=False, reload=False, show_welcome_message=False)


if __name__ in ("__main__", "__mp_main__"):
    main()
