"""The results of a tile scan as files: a table, the map, a picture."""

import csv
import io
from pathlib import Path
from typing import Any

import msgspec

from semagent.session.storage import mapped_errors, write_whole
from semagent.survey.work import Found

POSITIONS, MAP, PICTURE = "positions.csv", "focus-map.json", "focus-map.png"
_DOUBT = "focus found elsewhere contradicts the prediction"


def write_results(folder: Path, found: Found) -> tuple[Path, ...]:
    """Write the table and the map into ``folder``, and the picture if matplotlib is installed.

    Without any visit there is no picture.

    Raises:
        RecordError: they cannot be written.
    """
    files = write_tables(folder, found)
    try:
        from semagent.survey.picture import picture  # noqa: PLC0415 - matplotlib is an extra
    except ImportError:
        return files
    return (*files, _write(folder / PICTURE, picture(found))) if found.visits else files


def write_tables(folder: Path, found: Found) -> tuple[Path, ...]:
    """Write the table and the map into ``folder``, in place of earlier ones.

    Raises:
        RecordError: they cannot be written.
    """
    return _write(folder / POSITIONS, _table(found)), _write(folder / MAP, _map(found))


def _write(path: Path, data: bytes) -> Path:
    with mapped_errors(path):
        path.parent.mkdir(exist_ok=True)
        write_whole(path, data, sync=True)
    return path


def _table(found: Found) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(
        [
            "index",
            "x_um",
            "y_um",
            "working_distance_um",
            "predicted_um",
            "sigma_um",
            "how",
            "focus_score",
            "frames",
            "reason",
        ]
    )
    for visit in found.visits:
        lengths = (*visit.place, visit.working_distance_m, visit.predicted_m, visit.sigma_m)
        table.writerow(
            [
                visit.index,
                *(f"{length * 1e6:.4f}" for length in lengths),
                visit.how,
                "" if visit.focus_score is None else f"{visit.focus_score:.4f}",
                " ".join(map(str, visit.sequences)),
                _DOUBT if visit.index in found.doubtful else visit.reason,
            ]
        )
    return text.getvalue().encode()


def _map(found: Found) -> bytes:
    text = msgspec.json.encode(describe(found))
    return msgspec.json.format(text, indent=2) + b"\n"


def describe(found: Found) -> dict[str, Any]:
    """The map in SI units."""
    surface = found.surface
    step = surface.step and dict(
        zip(("across", "between_m", "height_m"), surface.step, strict=True)
    )
    return {
        "tilt": list(surface.tilt),
        "sag_m": list(surface.sag_m),
        "reach_m": surface.reach_m,
        "middle_m": list(surface.origin[:2]),
        "working_distance_m": surface.middle_m,
        "drift_m_per_s": surface.drift_m_per_s,
        "step": step,
        "residual_m": surface.residual_m,
        "focused": [
            {
                "x_m": place.x_m,
                "y_m": place.y_m,
                "time_s": place.time_s,
                "working_distance_m": place.working_distance_m,
                "sigma_m": place.sigma_m,
                "rejected": index in surface.rejected,
            }
            for index, place in enumerate(found.focused)
        ],
    }
